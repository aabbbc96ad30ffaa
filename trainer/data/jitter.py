"""Chips about the boxes of faces, as the agent cuts them or as if the detector had been less exact."""

import math
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from calibration.faces import read_image, square, warp
from trainer.common.settings import Share
from trainer.data.landmarks import Marked
from trainer.data.reading import Tolerant, rgb

MIRRORED = (1, 0, 2, 4, 3)
"""Which point of a face is in the place of each in its mirror image: left and right change places."""


class Jitter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a chip may lie from the detector's box; drawn evenly between minus and plus the value.

    Attributes:
        rotation: degrees.
        scale: relative.
        shift: of the chip's side, in x and in y.
        flip: probability of a mirror image, whose left and right points change places.
    """

    rotation: Annotated[float, Meta(ge=0, le=180)] = 30.0
    scale: Annotated[float, Meta(ge=0, le=0.5)] = 0.2
    shift: Annotated[float, Meta(ge=0, le=0.5)] = 0.08
    flip: Share = 0.5


def draw_jitter(jitter: Jitter, side: int, draw: np.random.Generator) -> tuple[NDArray[np.float64], bool]:
    """A random similarity of the chip, and whether it mirrors it.

    Args:
        jitter: how far it may go.
        side: of the chip, pixels.
        draw: where it comes from; four numbers and one are drawn whatever the settings.

    Returns:
        From pixels of the exact chip to those of the other, float64 [2, 3]; and whether left is right there.
    """
    turn, grow, right, down = draw.uniform(-1, 1, 4)
    mirrored = bool(draw.uniform() < jitter.flip)
    angle, scale = math.radians(jitter.rotation) * turn, 1 + jitter.scale * grow
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = np.full(2, (side - 1) / 2)
    shift = middle - linear @ middle + jitter.shift * side * np.array([right, down])
    return np.column_stack([linear, shift]), mirrored


def composed(after: NDArray[np.floating], before: NDArray[np.floating]) -> NDArray[np.float64]:
    """The affine map [2, 3] that does ``before``, then ``after``."""
    return np.column_stack([after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2]])


def moved(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points [n, 2] where an affine map [2, 3] takes them."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


class Chips(Tolerant[tuple[Tensor, Tensor]]):
    """Chips of marked faces: an item is uint8 RGB [3, side, side] and its points, float32 [5, 2] in the chip's pixels.

    Where there is a jitter, an item follows from the seed and its index alone; indices beyond the end draw anew.
    """

    def __init__(
        self, faces: Marked, side: int, margin: float, *, jitter: Jitter | None, seed: int, limit: int
    ) -> None:
        """Read photographs when they are asked for.

        Args:
            faces: at least one.
            side: of the chips.
            margin: about the box, see ``agent.perception.landmarks.square``.
            jitter: how far chips lie from the boxes; None: where the agent cuts them.
            seed: of the jitter.
            limit: photographs that may have become unreadable.

        Raises:
            DataError: there is no face.
        """
        super().__init__(len(faces.photos), limit)
        self.faces, self.side = faces, side
        self._margin, self._jitter, self._seed = margin, jitter, seed

    def make(self, index: int) -> tuple[Tensor, Tensor]:
        """Chip and points."""
        item = index % len(self)
        x1, y1, x2, y2 = (float(edge) for edge in self.faces.boxes[item])
        matrix = square((x1, y1, x2, y2), self._margin, self.side).astype(np.float64)
        mirrored = False
        if self._jitter is not None:
            random, mirrored = draw_jitter(
                self._jitter, self.side, np.random.default_rng((self._seed, index))
            )
            matrix = composed(random, matrix)
        points = moved(self.faces.points[item], matrix)
        if mirrored:
            points = points[list(MIRRORED)]
        chip = np.empty((self.side, self.side, 3), np.uint8)
        warp(read_image(self.faces.root / self.faces.photos[item]), matrix.astype(np.float32), chip)
        planes = np.ascontiguousarray(rgb(chip).transpose(2, 0, 1))
        return torch.from_numpy(planes), torch.from_numpy(points.astype(np.float32))
