"""Pictures for a detector to learn from: canvases put together from parts of marked pictures.

A folder of photographs may show one face each, all of one size and in the middle, as LFW does. A detector would learn
just that. So a canvas is cut into one to sixteen cells, and each shows a part of another picture: about a face that is
brought to a random size and place, or where there is none. Two canvases are hardly ever alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from calibration.faces import read_image
from trainer.data.reading import Tolerant
from trainer.data.wider import Marked

FACE, NEITHER = 1, 2
"""Kinds of boxes: to be found, and neither to be found nor to be missed. 0 is no box."""
MOST = 48
"""Boxes of a canvas; the largest stay."""

_SHIFTED = 0.15  # of a cell's side: how far the cuts between cells stray
_ENLARGED = 2.0  # most that a picture is enlarged: what is coarser than pixels looks like no camera's picture
_WHOLE = 0.6  # visible share of a face from which it is one
_GONE = 0.1  # visible share up to which nothing of it is left
_TRIES = 20  # for a part without a face

Weight = Annotated[float, Meta(ge=0, le=1000)]
Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]


class CanvasSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How canvases are put together.

    Attributes:
        side: of the canvas, pixels; a multiple of 32.
        cells: how often a canvas has 1×1, 2×2, 3×3 and 4×4 cells.
        smallest: least side of a face (root of its area), in parts of the cell's side; sizes are drawn evenly in
            octaves.
        largest: greatest side.
        least: pixels on a side below which a face is neither to be found nor to be missed.
        background: share of cells that show a part without a face, if one turns up.
        cut_off: share of cells where the face may lie partly outside.
        black: share of cells where what the picture does not fill is black, as the agent has it; else it is of one
            random colour.
        longest: side in pixels to which larger pictures are scaled down when they are read.
        memory: megabytes of such pictures that are held, for each process that reads.
    """

    side: Annotated[int, Meta(ge=64, le=1024, multiple_of=32)] = 160
    cells: Annotated[tuple[Weight, ...], Meta(min_length=1, max_length=4)] = (0.65, 0.23, 0.07, 0.05)
    smallest: Annotated[float, Meta(ge=0.05, le=1)] = 0.2
    largest: Annotated[float, Meta(ge=0.1, le=2)] = 1.1
    least: Annotated[float, Meta(ge=4, le=64)] = 10.0
    background: Annotated[float, Meta(ge=0, le=1)] = 0.2
    cut_off: Annotated[float, Meta(ge=0, le=1)] = 0.15
    black: Annotated[float, Meta(ge=0, le=1)] = 0.5
    longest: Annotated[int, Meta(ge=64, le=4096)] = 640
    memory: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        if not sum(self.cells) > 0:
            raise ValueError("canvas.cells are all 0; give at least one kind of canvas a weight")
        if self.smallest >= self.largest:
            raise ValueError("canvas.smallest must be below canvas.largest")


@dataclass(frozen=True)
class _Part:
    """A rectangle of a picture that a cell shows: left, top, width, height in its pixels; it may reach beyond it."""

    left: int
    top: int
    width: int
    height: int


class Canvases(Tolerant[tuple[Tensor, Tensor, Tensor]]):
    """Canvases as a data set.

    An item is the canvas uint8 RGB [3, side, side], its boxes float32 [``MOST``, 4] as x1, y1, x2, y2 in pixels, and
    their kinds uint8 [``MOST``]. Item i has picture i in its first cell; which others, and all else, follows from the
    seed and i, and is drawn anew beyond the end (see ``Tolerant``).
    """

    def __init__(
        self, root: Path, marked: Sequence[Marked], settings: CanvasSettings, seed: int, limit: int = 100
    ) -> None:
        """Read pictures when they are asked for.

        Args:
            root: the folder that the paths start from.
            marked: at least one.
            settings: how.
            seed: of all choices.
            limit: pictures that may be damaged.

        Raises:
            DataError: there is no picture.
        """
        super().__init__(len(marked), limit)
        self.root, self.marked, self.settings, self._seed = root, marked, settings, seed
        self._held: dict[int, tuple[Image, Float32]] = {}
        self._bytes = 0

    def make(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The canvas, its boxes and their kinds."""
        rng = np.random.default_rng((self._seed, index))
        settings, side = self.settings, self.settings.side
        count = 1 + int(rng.choice(len(settings.cells), p=np.array(settings.cells) / sum(settings.cells)))
        rows, columns = (_cuts(rng, count, side) for _ in range(2))
        canvas = np.empty((side, side, 3), np.uint8)
        boxes, kinds = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.uint8)]
        number = index % len(self)
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                cell = canvas[top:bottom, left:right]
                found, kind = self._fill(cell, number, rng)
                boxes.append(found + np.array([left, top, left, top], np.float32))
                kinds.append(kind)
                number = int(rng.integers(len(self)))
        return _item(canvas, np.concatenate(boxes), np.concatenate(kinds))

    def _fill(self, cell: Image, number: int, rng: np.random.Generator) -> tuple[Float32, NDArray[np.uint8]]:
        """Show a part of a picture in a cell, perhaps mirrored; the boxes in it and their kinds."""
        picture, boxes = self._picture(number)
        ignored = self.marked[number].ignored
        height, width = cell.shape[:2]
        part = choose(
            rng, self.settings, (width, height), (picture.shape[1], picture.shape[0]), boxes, ignored
        )
        colour = np.zeros(3) if rng.random() < self.settings.black else rng.integers(0, 256, 3)
        show(picture, part, colour.astype(np.uint8), cell)
        found, kinds = seen(boxes, ignored, part, (width, height), self.settings.least)
        if rng.random() < 0.5:
            cell[:] = cell[:, ::-1].copy()
            found[:, [0, 2]] = width - found[:, [2, 0]]
        return found, kinds

    def _picture(self, number: int) -> tuple[Image, Float32]:
        """The picture, uint8 BGR and not larger than wanted, and its boxes in it."""
        if number in self._held:
            return self._held[number]
        marked = self.marked[number]
        image, boxes = read_image(self.root / marked.path), marked.boxes
        scale = self.settings.longest / max(image.shape[:2])
        if scale < 1:
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            ratio = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2, np.float32)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            boxes = boxes * ratio
        if self._bytes + image.nbytes <= self.settings.memory * 1_000_000:
            self._held[number] = image, boxes
            self._bytes += image.nbytes
        return image, boxes


def choose(
    rng: np.random.Generator,
    settings: CanvasSettings,
    cell: tuple[int, int],
    size: tuple[int, int],
    boxes: Float32,
    ignored: NDArray[np.bool_],
) -> _Part:
    """Which part of a picture a cell shows.

    Args:
        rng: draws.
        settings: how.
        cell: its width and height.
        size: width and height of the picture.
        boxes: float32 [n, 4], in its pixels.
        ignored: bool [n].
    """
    faces = boxes[~ignored & (np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) > 0)]
    if len(faces) and rng.random() >= settings.background:
        face = faces[rng.integers(len(faces))]
        return _about(rng, settings, cell, face)
    # A part of any size without a face; where none turns up, whatever came last with all that is in it.
    part = _anywhere(rng, cell, size)
    for _ in range(_TRIES):
        if not _meets(part, boxes):
            break
        part = _anywhere(rng, cell, size)
    return part


def _about(rng: np.random.Generator, settings: CanvasSettings, cell: tuple[int, int], face: Float32) -> _Part:
    """A part in which a face has a random size and place."""
    across, down = float(face[2] - face[0]), float(face[3] - face[1])
    least = math.log(max(settings.smallest * min(cell), settings.least))
    most = max(least, math.log(settings.largest * min(cell)))
    scale = min(_ENLARGED, math.exp(rng.uniform(least, most)) / math.sqrt(across * down))
    width, height = (max(1, round(side / scale)) for side in cell)
    outside = rng.random() < settings.cut_off
    middle = [(float(face[0]) + float(face[2])) / 2, (float(face[1]) + float(face[3])) / 2]
    corner = []
    for centre, length, side in ((middle[0], across, width), (middle[1], down, height)):
        # How far the face's centre may lie from the part's, so that all of it is seen.
        free = side / 2 if outside else max(0.0, (side - length) / 2)
        corner.append(round(centre - side / 2 - free * rng.uniform(-1, 1)))
    return _Part(corner[0], corner[1], width, height)


def _anywhere(rng: np.random.Generator, cell: tuple[int, int], size: tuple[int, int]) -> _Part:
    """A part of any size and place that lies within the picture, as far as its proportions allow."""
    fits = min(size[0] / cell[0], size[1] / cell[1])
    factor = max(1 / _ENLARGED, fits * 2 ** -rng.uniform(0, 2))
    width, height = (max(1, round(side * factor)) for side in cell)
    left, top = (
        round(rng.uniform(min(0, room), max(0, room))) for room in (size[0] - width, size[1] - height)
    )
    return _Part(left, top, width, height)


def _meets(part: _Part, boxes: Float32) -> bool:
    right, bottom = part.left + part.width, part.top + part.height
    apart = (
        (boxes[:, 0] >= right)
        | (boxes[:, 2] <= part.left)
        | (boxes[:, 1] >= bottom)
        | (boxes[:, 3] <= part.top)
    )
    return not apart.all()


def show(picture: Image, part: _Part, colour: NDArray[np.uint8], cell: Image) -> None:
    """Scale a part of a picture into a cell (uint8 [height, width, 3]); beyond the picture it is of one colour."""
    patch = np.empty((part.height, part.width, 3), np.uint8)
    patch[:] = colour
    top, left = max(0, part.top), max(0, part.left)
    bottom, right = (
        min(picture.shape[0], part.top + part.height),
        min(picture.shape[1], part.left + part.width),
    )
    if bottom > top and right > left:
        patch[top - part.top : bottom - part.top, left - part.left : right - part.left] = picture[
            top:bottom, left:right
        ]
    way = cv2.INTER_AREA if cell.shape[1] < part.width else cv2.INTER_LINEAR
    cell[:] = cv2.resize(patch, (cell.shape[1], cell.shape[0]), interpolation=way)


def seen(
    boxes: Float32, ignored: NDArray[np.bool_], part: _Part, cell: tuple[int, int], least: float
) -> tuple[Float32, NDArray[np.uint8]]:
    """The boxes that a cell shows of a part, cut at its edge, float32 [m, 4] in its pixels, and their kinds [m]."""
    ratio = np.array([cell[0] / part.width, cell[1] / part.height] * 2, np.float32)
    moved = (boxes - np.array([part.left, part.top] * 2, np.float32)) * ratio
    clipped = np.clip(moved, 0, np.array(cell * 2, np.float32))
    whole, left = (np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1) for box in (moved, clipped))
    share = np.where(whole > 0, left / np.maximum(whole, 1e-9), 0)
    kinds = np.where(ignored | (share < _WHOLE) | (np.sqrt(left) < least), NEITHER, FACE).astype(np.uint8)
    there = share > _GONE
    return clipped[there], kinds[there]


def _cuts(rng: np.random.Generator, count: int, side: int) -> list[int]:
    """Where the cells of a row or column begin, and where the last ends."""
    inner = [round((place + rng.uniform(-_SHIFTED, _SHIFTED)) * side / count) for place in range(1, count)]
    return [0, *inner, side]


def _item(canvas: Image, boxes: Float32, kinds: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")[:MOST]
    filled, kind = np.zeros((MOST, 4), np.float32), np.zeros(MOST, np.uint8)
    filled[: len(order)], kind[: len(order)] = boxes[order], kinds[order]
    planes = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(planes), torch.from_numpy(filled), torch.from_numpy(kind)
