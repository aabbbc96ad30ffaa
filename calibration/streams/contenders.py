"""Who takes part: the published methods, and our own."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from agent.adaptation.tiers import check_tier
from agent.adaptation.types import Adapts
from agent.config import AdaptationSettings
from calibration.baselines.catalogue import BASELINES, FROZEN, WITH_TORCH, Catalogue, MethodError
from calibration.baselines.method import Method, Source
from calibration.streams.cells import Contender
from calibration.streams.own import Cabinsense
from engines.torch_extra import check_torch

OWN = "cabinsense"
"""Our own method, in the tier that ``[adaptation]`` names; where that is off, by statistics."""
_EXPRESSIONS_ONLY = "lame"  # it corrects probabilities of labels; an embedding has none

Make = Callable[[AdaptationSettings, int], Adapts]
"""Makes an adapter for the pack, by settings and a seed."""


def stamp(folder: Path) -> str:
    """Names the content of a pack's folder: what our own method has learnt before is part of it."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def choose(names: Sequence[str], *, identity: bool) -> list[str]:
    """The methods that take part, the frozen source first.

    Args:
        names: of methods; none: all that suit the task.
        identity: the task is to recognise people, not expressions.

    Raises:
        MethodError: there is no such method, or it does not suit the task.
        TorchError: one of them needs torch, which is missing.
    """
    possible = [name for name in (*BASELINES, OWN) if not (identity and name == _EXPRESSIONS_ONLY)]
    unknown = [name for name in names if name not in possible]
    if unknown:
        raise MethodError(f"no method {unknown[0]!r} for this task; there are {', '.join(possible)}")
    chosen = [name for name in possible if name in names or not names or name == FROZEN]
    if needing := [name for name in chosen if name in WITH_TORCH]:
        check_torch(", ".join(needing), "name others with --methods")
    return chosen


def contenders(
    names: Sequence[str], source: Source, labels: int, settings: AdaptationSettings, pack: str, make: Make
) -> dict[str, Contender]:
    """The methods by name, the frozen source first.

    Args:
        names: as for ``choose``.
        source: what they start from.
        labels: how many expressions there are.
        settings: of our own method.
        pack: what its results depend on beside, see ``stamp``.
        make: makes its adapter.

    Raises:
        MethodError, TorchError: as ``choose``.
    """
    chosen = choose(names, identity=source.identity)
    own = msgspec.structs.replace(settings, tier="statistics") if settings.tier == "off" else settings
    catalogue = Catalogue(source, labels)
    found = {name: Contender(partial(catalogue.make, name)) for name in chosen if name != OWN}
    if OWN in chosen:
        check_tier(own)
        variant = f"{pack} {msgspec.json.encode(own, order='sorted').decode()}"
        found[OWN] = Contender(partial(_own, source, own, make), variant)
    return found


def _own(source: Source, settings: AdaptationSettings, make: Make, seed: int) -> Method:
    return Cabinsense(source, make(settings, seed), settings.every_s)
