"""The order in which a stream shows its faces: pure plans, the same for the same seed.

A plan says of each frame which face it shows, how badly it is spoiled, to which track it belongs and when it is. Behind
every stream comes a stretch of clean faces, over which nothing is reset: is the network back?
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from calibration.corruptions import KINDS
from calibration.metrics import Labels
from engines.errors import UserError

Order = Literal["shuffled", "sorted", "ramp", "tunnels", "neutral", "clean"]
ORDERS: tuple[Order, ...] = get_args(Order)
"""Every order; ``clean`` is a piece of each of the others in a row, and then clean faces, which are what counts."""

LOOKS_PER_S = 5.0
"""Looks at the driver's face that the daemon makes in a second (``tracking.refresh_s``)."""
HALF_HOUR = 9000
"""Looks in thirty minutes: the stream of one neutral face, unless streams are limited."""
TUNNELS = 20
TUNNEL_S = 12.0
"""How long it is dark in each at least, and bright before it. Where a stream has too few faces for that at the usual
pace, looks come more slowly, as the daemon makes them when it is short of time (docs/budget.md)."""
RAMP = (1, 2, 3, 4, 5, 4, 3, 2, 1)
"""Severities of the ramp, each for as long."""
_CONCENTRATION = 0.1
"""Of the Dirichlet distribution by which the faces of a label fall into slots: 0.1 as in Gong et al., "NOTE: Robust
Continual Test-time Adaptation Against Temporal Correlation" (NeurIPS 2022); LAME has such streams too."""
_SLOTS = 7
"""Slots into which the faces of a label fall: as many as there are expressions, as NOTE has as many as classes."""

CLEAN = "none"
"""The shift that is none."""
SHIFTS: dict[Order, tuple[str, ...]] = {
    "shuffled": (CLEAN, *KINDS),
    "sorted": (CLEAN, *KINDS),
    "ramp": ("low_light", "over_exposure"),
    "tunnels": ("low_light", "over_exposure"),
    "neutral": (CLEAN, "low_light"),
    "clean": ("low_light", "motion_blur"),
}
"""The shifts of each order where nobody names others."""

Ints = NDArray[np.int64]


class Stream(Struct, frozen=True, order=True):
    """Which stream: how it is spoiled and how badly (0: ``CLEAN``), its order, its seed."""

    shift: str
    severity: int
    order: Order
    seed: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One face of a stream.

    Attributes:
        item: which face of the material.
        severity: 0, where nothing is done to it, to 5.
        track: which track it belongs to; a run of one label or person is one.
        at: seconds since the stream began.
        part: whether it belongs to the stream proper or to the clean faces behind it.
        version: tells apart how often a face has been shown: another camera noise each time; 0 where it is shown once.
    """

    item: int
    severity: int
    track: int
    at: float
    part: Literal["stream", "after"] = "stream"
    version: int = 0


def streams(orders: Sequence[Order], shifts: Sequence[str], severity: int, seeds: int) -> list[Stream]:
    """All streams of these orders, shifts (none: each order's own) and so many seeds, the first seed's first."""
    return [
        Stream(shift, severity if shift != CLEAN else 0, order, seed)
        for seed in range(seeds)
        for order in orders
        for shift in shifts or SHIFTS[order]
    ]


class OrderError(UserError):
    """The faces do not suffice for an order; the message names it and the remedy."""


def plan(
    order: Order,
    labels: Labels,
    severity: int,
    seed: int,
    alone: Sequence[int] = (),
    looks_alone: int = HALF_HOUR,
) -> list[Frame]:
    """The frames of a stream and of the clean stretch behind it, a third as long (for ``clean``: as long).

    Args:
        order: one of ``ORDERS``.
        labels: int64 [n]: of each face the expression or the person, by which ``sorted`` makes its runs.
        severity: how badly the shift spoils the faces, 1 to 5, or 0 for not at all. The ramp goes by its own, and
            without a shift there is none in it either.
        seed: of the order.
        alone: the faces from which the seed picks that of ``neutral``; where there are none, ``clean`` does without.
        looks_alone: how often ``neutral`` shows it.

    Raises:
        ValueError: there are no faces.
        OrderError: there are too few for ``clean``, or for ``neutral`` none to pick from.
    """
    if not len(labels):
        raise ValueError("a stream needs faces")
    rng = np.random.default_rng([seed, ORDERS.index(order)])
    everything = np.arange(len(labels))
    if order == "clean":
        pieces = [name for name in ORDERS[:-1] if name != "neutral" or len(alone)]
        if len(labels) < len(pieces):
            raise OrderError(f"order clean: {len(labels)} faces are too few; raise --limit")
        cut = np.array_split(rng.permutation(len(labels)), len(pieces))
        frames: list[Frame] = []
        for name, items in zip(pieces, cut, strict=True):
            frames = _joined(frames, _ORDERS[name](items, labels, severity, rng, alone))
    else:
        shown = np.zeros(looks_alone, np.int64) if order == "neutral" else everything
        frames = _ORDERS[order](shown, labels, severity, rng, alone)
    items = rng.permutation(len(labels))[: len(labels) if order == "clean" else max(1, len(labels) // 3)]
    after = [replace(frame, part="after") for frame in _each_alone(items, [0] * len(items))]
    return _joined(frames, after)


def runs(labels: Labels, rng: np.random.Generator) -> list[Ints]:
    """The faces in long runs of one label.

    The faces of each label fall into slots, to shares drawn from a Dirichlet distribution; a slot is shown label by
    label. So a label occurs in at most as many runs as there are slots, and most of it in one or two.

    Args:
        labels: int64 [n].
        rng: draws.

    Returns:
        Runs of indices into ``labels``; together they are all of them, once.
    """
    slots: list[list[Ints]] = [[] for _ in range(_SLOTS)]
    for label in rng.permutation(np.unique(labels)):
        faces = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(rng.dirichlet([_CONCENTRATION] * _SLOTS))[:-1]
        for slot, part in zip(slots, np.split(faces, np.rint(ends * len(faces)).astype(int)), strict=True):
            if len(part):
                slot.append(part)
    found: list[Ints] = []
    for slot in slots:
        found += [slot[index] for index in rng.permutation(len(slot))]
    return found


def _shuffled(
    items: Ints, _labels: Labels, severity: int, rng: np.random.Generator, _alone: Sequence[int]
) -> list[Frame]:
    """Each face another person's: a track of its own."""
    return _each_alone(rng.permutation(items), [severity] * len(items))


def _sorted(
    items: Ints, labels: Labels, severity: int, rng: np.random.Generator, _alone: Sequence[int]
) -> list[Frame]:
    """Long runs, each a track."""
    found = [
        (int(items[index]), track) for track, run in enumerate(runs(labels[items], rng)) for index in run
    ]
    return [Frame(item, severity, track, index / LOOKS_PER_S) for index, (item, track) in enumerate(found)]


def _ramp(
    items: Ints, _labels: Labels, severity: int, rng: np.random.Generator, _alone: Sequence[int]
) -> list[Frame]:
    """Shuffled faces, so that nothing but the severity changes."""
    stretches = np.array_split(np.arange(len(items)), len(RAMP))
    severities = [
        step if severity else 0 for step, stretch in zip(RAMP, stretches, strict=True) for _ in stretch
    ]
    return _each_alone(rng.permutation(items), severities)


def _tunnels(
    items: Ints, _labels: Labels, severity: int, rng: np.random.Generator, _alone: Sequence[int]
) -> list[Frame]:
    """Shuffled faces, clean before each tunnel and spoiled inside."""
    stretches = np.array_split(np.arange(len(items)), 2 * TUNNELS)
    severities = [severity if index % 2 else 0 for index, stretch in enumerate(stretches) for _ in stretch]
    step = max(1 / LOOKS_PER_S, TUNNEL_S * 2 * TUNNELS / len(items))
    return _each_alone(rng.permutation(items), severities, step)


def _neutral(
    items: Ints, _labels: Labels, severity: int, rng: np.random.Generator, alone: Sequence[int]
) -> list[Frame]:
    """One face, as often as there are ``items``, on one track."""
    if not len(alone):
        raise OrderError(
            "order neutral: there is no neutral face that the frozen model names rightly; raise --limit"
        )
    item = int(rng.choice(np.asarray(alone)))
    return [Frame(item, severity, 0, index / LOOKS_PER_S, version=index + 1) for index in range(len(items))]


_Maker = Callable[[Ints, Labels, int, np.random.Generator, Sequence[int]], list[Frame]]
_ORDERS: dict[Order, _Maker] = {
    "shuffled": _shuffled,
    "sorted": _sorted,
    "ramp": _ramp,
    "tunnels": _tunnels,
    "neutral": _neutral,
}


def _each_alone(items: Ints, severities: Sequence[int], step: float = 1 / LOOKS_PER_S) -> list[Frame]:
    """Each face on a track of its own, so many seconds behind the one before."""
    return [
        Frame(int(item), severity, index, index * step)
        for index, (item, severity) in enumerate(zip(items, severities, strict=True))
    ]


def _joined(first: list[Frame], second: list[Frame]) -> list[Frame]:
    """One stream behind the other, on other tracks and later."""
    if not first:
        return second
    track, at = first[-1].track + 1, first[-1].at + 1 / LOOKS_PER_S
    return first + [replace(frame, track=frame.track + track, at=frame.at + at) for frame in second]


def stretches(severities: Sequence[int]) -> list[tuple[int, int, int]]:
    """Where the severity stays the same: first frame, one behind the last, severity."""
    edges = [0, *(index for index in range(1, len(severities)) if severities[index] != severities[index - 1])]
    return [(start, end, severities[start]) for start, end in pairwise([*edges, len(severities)])]
