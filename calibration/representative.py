"""Choose the images that a network is calibrated on: balanced, not as they come.

Photographs as they come show faces that are bright, sharp and frontal. Ranges measured on those alone cut off what a
cabin at night gives. So each trait is divided at quantiles into bins, narrow ones at the ends, and images are taken so
that every bin of every trait gets the same share, as far as it has images.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.perception.types import Image

QUANTILES = (0.1, 0.3, 0.7, 0.9)
"""Where a trait is divided. The darkest tenth fills one bin of five: it is taken twice as often as it occurs."""

Traits = Mapping[str, NDArray[np.float64]]
"""Name of a trait to float64 [n], one value for each image."""


class Bin(Struct, frozen=True):
    """One part of a trait's range, ``low`` included: images that were there, and images that were taken."""

    low: float
    high: float
    available: int
    chosen: int


class Choice(Struct, frozen=True, kw_only=True):
    """What was chosen, as it is written down. No name and no image is kept.

    Attributes:
        count: images chosen.
        available: images they were chosen from.
        without_face: photographs that were left out because no face was found in them.
        seed: decides between images that balance equally well.
        digest: SHA-256 over the chosen chips, in order: another choice has another.
        traits: the bins of each trait.
    """

    count: int
    available: int
    without_face: int
    seed: int
    digest: str
    traits: dict[str, tuple[Bin, ...]]


def choose(traits: Traits, count: int, seed: int) -> NDArray[np.int64]:
    """Indices of ``count`` images, or of all where there are not more, balanced over the traits; int64, rising.

    One is taken after the other: always the one whose bins lack most. Of several the seed decides.
    """
    total = len(next(iter(traits.values())))
    if total <= count:
        return np.arange(total)
    bins = np.stack([_bins(values)[0] for values in traits.values()])  # [traits, n]
    wanted = [count / len(np.unique(row)) for row in bins]
    taken = np.zeros((len(bins), len(QUANTILES) + 1))
    luck = np.random.default_rng(seed).random(total) * 1e-9
    free = np.ones(total, np.bool_)
    for _ in range(count):
        lacking = sum(1 - taken[t, row] / wanted[t] for t, row in enumerate(bins))
        best = int(np.argmax(np.where(free, lacking + luck, -np.inf)))
        free[best] = False
        taken[np.arange(len(bins)), bins[:, best]] += 1
    return np.flatnonzero(~free)


def describe(
    traits: Traits, chosen: NDArray[np.int64], chips: NDArray[np.uint8], *, without_face: int, seed: int
) -> Choice:
    """The record of a choice.

    Args:
        traits: of all images.
        chosen: indices of those taken.
        chips: uint8 [n, side, side, 3], all images.
        without_face: photographs in which none was found.
        seed: that was used.
    """
    return Choice(
        count=len(chosen),
        available=len(chips),
        without_face=without_face,
        seed=seed,
        digest=digest(chips[chosen]),
        traits={name: _describe(values, chosen) for name, values in traits.items()},
    )


def digest(chips: NDArray[np.uint8] | list[Image]) -> str:
    """SHA-256 over images, as 64 hex digits."""
    total = hashlib.sha256()
    for chip in chips:
        total.update(np.ascontiguousarray(chip).data)
    return total.hexdigest()


def plot(choice: Choice, path: Path) -> None:
    """A picture: of each trait how the images are spread over the bins, before and after."""
    import matplotlib as mpl  # noqa: PLC0415 # an extra

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(choice.traits), figsize=(4 * len(choice.traits), 4), squeeze=False)
    figure.suptitle(f"{choice.count} images chosen of {choice.available}")
    for axis, (name, bins) in zip(axes[0], choice.traits.items(), strict=True):
        places = np.arange(len(bins))
        axis.bar(
            places - 0.2, [100 * b.available / choice.available for b in bins], 0.4, label="as they come"
        )
        axis.bar(places + 0.2, [100 * b.chosen / choice.count for b in bins], 0.4, label="as chosen")
        axis.set_xticks(places, [f"{b.low:.4g}\nto {b.high:.4g}" for b in bins], fontsize=8)
        axis.set(title=name, ylabel="share of the images (%)")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bins(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The bin of each value, int64 [n], and the edges between bins."""
    edges = np.quantile(values, QUANTILES)
    return np.searchsorted(edges, values, side="right").astype(np.int64), edges


def _describe(values: NDArray[np.float64], chosen: NDArray[np.int64]) -> tuple[Bin, ...]:
    bins, edges = _bins(values)
    limits = np.concatenate([[values.min()], edges, [values.max()]])
    size = len(limits) - 1
    available, taken = np.bincount(bins, minlength=size), np.bincount(bins[chosen], minlength=size)
    return tuple(
        Bin(float(limits[k]), float(limits[k + 1]), int(available[k]), int(taken[k])) for k in range(size)
    )
