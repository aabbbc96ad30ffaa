"""Who takes part: baselines by name."""

from collections.abc import Sequence
from functools import partial

from calibration.baselines.catalogue import BASELINES, FROZEN, WITH_TORCH, Catalogue, MethodError, check_torch
from calibration.baselines.method import Source
from calibration.streams.cells import Contender

_EXPRESSIONS_ONLY = "lame"  # it corrects probabilities of labels; an embedding has none


def contenders(names: Sequence[str], source: Source, labels: int) -> dict[str, Contender]:
    """The methods by name, the frozen source first.

    Args:
        names: of methods; none: all that suit the task.
        source: what they start from.
        labels: how many expressions there are.

    Raises:
        MethodError: there is no such method, it does not suit the task, or torch is missing.
    """
    possible = [name for name in BASELINES if not (source.identity and name == _EXPRESSIONS_ONLY)]
    unknown = [name for name in names if name not in possible]
    if unknown:
        raise MethodError(f"no method {unknown[0]!r} for this task; there are {', '.join(possible)}")
    chosen = [name for name in possible if name in names or not names or name == FROZEN]
    if set(chosen) & set(WITH_TORCH):
        check_torch()
    catalogue = Catalogue(source, labels)
    return {name: Contender(partial(catalogue.make, name)) for name in chosen}
