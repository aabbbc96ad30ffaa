"""Five landmarks by a network of their own, for packs whose detector gives boxes alone or places points badly."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from agent.perception.align import alignable, warp
from agent.perception.types import Detection, Float32, Image
from engines.engine import Engine
from engines.pack import LandmarkModel

Box = tuple[float, float, float, float]
Lap = Callable[[str], None]


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

    def mark(self, image: Image, detections: list[Detection], lap: Lap) -> list[Detection]:
        """The detections with the landmarks that the network sees, but for those where it sees none to align by.

        Args:
            image: the frame, uint8 BGR [height, width, 3].
            detections: in its pixels.
            lap: told when the step ``crop`` and when the step ``landmarks`` of a face is done.
        """
        marked = []
        for each in detections:
            self._cut(image, each.box)
            lap("crop")
            landmarks = self._read(each.box)
            lap("landmarks")
            if alignable(landmarks):
                marked.append(replace(each, landmarks=landmarks))
        return marked

    def _cut(self, image: Image, box: Box) -> None:
        """Show the network the square about a box."""
        warp(image, square(box, self._model.margin, self._model.side), self._chip)

    def _read(self, box: Box) -> Float32:
        """The landmarks of the face that the network is shown: float32 [5, 2], pixels of the frame with the box."""
        side, margin = self._model.side, self._model.margin
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
