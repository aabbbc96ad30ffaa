"""Five landmarks by a network of their own, for packs whose detector gives boxes alone or places points badly."""

from dataclasses import replace

import numpy as np

from agent.perception.align import alignable, warp
from agent.perception.types import Detection, Float32, Image
from engines.engine import Engine
from engines.pack import LandmarkModel

Box = tuple[float, float, float, float]


def square(box: Box, margin: float, side: int) -> Float32:
    """From pixels of a frame to those of a chip that shows the square about a box, as float32 [2, 3].

    The middle of the box comes to the middle of the chip, and its longer side with the margin fills the chip.

    Args:
        box: x1, y1, x2, y2 in frame pixels, of some width or height.
        margin: added on each side, in parts of the box's longer side.
        side: of the chip.
    """
    scale, (x, y) = side / _width(box, margin), _middle(box)
    middle = (side - 1) / 2
    return np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]], np.float32)


class LandmarkReader:
    """Reads the landmarks of faces whose box is known."""

    def __init__(self, engine: Engine, model: LandmarkModel) -> None:
        """Bind to the engine's input memory."""
        self._engine, self._model = engine, model
        self._chip: Image = engine.buffer("chip")[0]

    def mark(self, image: Image, detections: list[Detection]) -> list[Detection]:
        """The detections with the landmarks that the network sees, but for those where it sees none to align by."""
        marked = [replace(each, landmarks=self.read(image, each.box)) for each in detections]
        return [each for each in marked if alignable(each.landmarks)]

    def read(self, image: Image, box: Box) -> Float32:
        """The landmarks of the face in a box: float32 [5, 2], frame pixels.

        Args:
            image: the frame, uint8 BGR [height, width, 3].
            box: x1, y1, x2, y2 in its pixels, of some width or height.
        """
        side, margin = self._model.side, self._model.margin
        warp(image, square(box, margin, side), self._chip)
        points: Float32 = self._engine.run()["points"].reshape(5, 2) - np.float32((side - 1) / 2)
        points *= np.float32(_width(box, margin) / side)
        points += np.array(_middle(box), np.float32)
        return points


def _width(box: Box, margin: float) -> float:
    """Of the square about a box, frame pixels."""
    x1, y1, x2, y2 = box
    return max(x2 - x1, y2 - y1) * (1 + 2 * margin)


def _middle(box: Box) -> tuple[float, float]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2
