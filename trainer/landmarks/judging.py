"""How far points lie from where they should: in parts of the distance between the eyes, as papers give it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt

NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
FAILURE = 0.1
"""A face whose mean error is above this counts as failed, as on 300-W and WFLW."""

_SHOWN = 0.15  # where the picture of the cumulative errors ends
_ACROSS = 8  # faces in a row of an overview


@dataclass(frozen=True)
class Errors:
    """The errors of some faces.

    Attributes:
        each: float64 [n, 5], distance of each point from the true one over the true distance of the eyes.
    """

    each: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Normalised mean error, over points and faces."""
        return float(self.each.mean())

    @property
    def by_point(self) -> dict[str, float]:
        """Normalised mean error of each point."""
        return dict(zip(NAMES, self.each.mean(axis=0).tolist(), strict=True))

    @property
    def faces(self) -> NDArray[np.float64]:
        """The mean error of each face, [n]."""
        return np.asarray(self.each.mean(axis=1), np.float64)

    @property
    def failures(self) -> float:
        """Share of the faces whose mean error is above ``FAILURE``."""
        return float((self.faces > FAILURE).mean())

    def told(self) -> str:
        """The figures in words."""
        points = ", ".join(
            f"{name.replace('_', ' ')} {100 * value:.2f}" for name, value in self.by_point.items()
        )
        return (
            f"mean error {100 * self.mean:.2f} % of the distance between the eyes ({points}), median of the faces "
            f"{100 * float(np.median(self.faces)):.2f} %, above {100 * FAILURE:g} % on {100 * self.failures:.2f} % of "
            f"{len(self.each):,} faces"
        )


def errors(found: NDArray[np.floating], true: NDArray[np.floating]) -> Errors:
    """The errors of points, both float [n, 5, 2] in one unit; the eyes of no face are on one spot."""
    distance = np.linalg.norm(found.astype(np.float64) - true, axis=2)
    eyes = np.linalg.norm(true[:, 0].astype(np.float64) - true[:, 1], axis=1)
    return Errors(distance / eyes[:, None])


def cumulative(found: Mapping[str, Errors], path: Path) -> None:
    """The share of faces whose error is at most so much, as a picture, with a line for each kind of chips."""
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name, each in found.items():
        faces = np.sort(each.faces)
        share = np.arange(1, len(faces) + 1) / len(faces)
        axes.step(100 * faces, 100 * share, where="post", label=f"{name}: mean {100 * each.mean:.2f} %")
    axes.axvline(100 * FAILURE, color="tab:red", linewidth=0.8)
    axes.set(
        xlim=(0, 100 * _SHOWN),
        ylim=(0, 100),
        xlabel="mean error of a face (% of the distance between the eyes)",
        ylabel="faces (%)",
    )
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def overview(
    chips: NDArray[np.uint8], found: NDArray[np.floating], true: NDArray[np.floating], path: Path
) -> None:
    """Faces with the points found on them (dots) and the true ones (circles), as a picture.

    Args:
        chips: uint8 RGB [n, side, side, 3], at least one.
        found: float [n, 5, 2], pixels.
        true: the same.
        path: of the picture.
    """
    rows = -(-len(chips) // _ACROSS)
    figure, cells = plt.subplots(
        rows, _ACROSS, figsize=(1.5 * _ACROSS, 1.5 * rows), layout="constrained", squeeze=False
    )
    for axes in cells.flat:
        axes.axis("off")
    for axes, chip, dots, circles in zip(cells.flat, chips, found, true, strict=False):
        axes.imshow(chip)
        axes.plot(*dots.T, ".", color="tab:orange", markersize=4)
        axes.plot(*circles.T, "o", color="tab:green", markersize=7, fillstyle="none")
    figure.savefig(path, dpi=120)
    plt.close(figure)
