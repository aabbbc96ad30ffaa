"""Pictures with boxes in the way of WIDER FACE, for detectors.

``wider_face_train_bbx_gt.txt`` and ``wider_face_val_bbx_gt.txt`` have for each picture: its path below ``images``, the
number of faces, and a line for each, ``x y w h blur expression illumination invalid occlusion pose``, in pixels. A
picture without faces has the number 0 and yet one line of zeros. Faces flagged ``invalid`` are not to be learnt nor to
count as false alarms; some boxes have no width or height, and are treated so, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.faces import read_image
from trainer.data.reading import DataError, Tolerant

_FIELDS = 10
_MOST_FACES = 10_000  # of a picture; WIDER FACE's fullest has 1,968


class MarkedImage(NamedTuple):
    """A picture as a detector takes it, with the faces in it.

    Attributes:
        image: uint8 RGB [3, height, width]; what the picture does not fill, right and below, is black.
        boxes: float32 [n, 4], x1, y1, x2, y2 in the image's pixels.
        ignored: bool [n], faces that are neither to be found nor to be missed.
    """

    image: Tensor
    boxes: Tensor
    ignored: Tensor


class MarkedBatch(NamedTuple):
    """Some marked images: uint8 RGB [n, 3, height, width], and boxes and flags of each."""

    images: Tensor
    boxes: list[Tensor]
    ignored: list[Tensor]


@dataclass(frozen=True)
class Marked:
    """A picture's path below the folder of images, and its faces.

    Attributes:
        path: with slashes.
        boxes: float32 [n, 4], x1, y1, x2, y2 in pixels.
        ignored: bool [n].
    """

    path: str
    boxes: NDArray[np.float32]
    ignored: NDArray[np.bool_]


class MarkedPictures(Tolerant[MarkedImage]):
    """Pictures with boxes, scaled into a detector's input."""

    def __init__(self, root: Path, marked: Sequence[Marked], size: tuple[int, int], limit: int = 100) -> None:
        """Read pictures when they are asked for.

        Args:
            root: the folder that the paths start from.
            marked: at least one.
            size: width and height to give.
            limit: damaged pictures that are passed over.

        Raises:
            DataError: there is no picture.
        """
        super().__init__(len(marked), limit)
        self.root, self.marked, self._size = root, marked, size

    def make(self, index: int) -> MarkedImage:
        """The picture in the detector's input, in its own proportions."""
        marked = self.marked[index % len(self)]
        picture = read_image(self.root / marked.path)
        height, width = picture.shape[:2]
        scale = min(self._size[0] / width, self._size[1] / height)
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.zeros((3, self._size[1], self._size[0]), np.uint8)
        image[:, : small[1], : small[0]] = cv2.resize(picture, small, interpolation=way)[
            :, :, ::-1
        ].transpose(2, 0, 1)
        ratio = np.array([small[0] / width, small[1] / height] * 2, np.float32)
        limits = np.array([small[0], small[1]] * 2, np.float32)
        boxes = np.clip(marked.boxes * ratio, 0, limits)
        gone = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        return MarkedImage(
            torch.from_numpy(image), torch.from_numpy(boxes), torch.from_numpy(marked.ignored | gone)
        )


def together(items: list[MarkedImage]) -> MarkedBatch:
    """A batch of marked images."""
    return MarkedBatch(
        torch.stack([item.image for item in items]),
        [item.boxes for item in items],
        [item.ignored for item in items],
    )


def read_boxes(path: Path) -> list[Marked]:
    """The pictures of a list as WIDER FACE writes it.

    Raises:
        DataError: the file cannot be read, or a line is not what it should be.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name wider_face_train_bbx_gt.txt") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    while lines and not lines[-1].strip():
        lines.pop()
    found: list[Marked] = []
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(
                f"{path}, line {at + 1}: {name[:60]!r}; expected the path of a picture below `images`"
            )
        count = _count(path, lines, at + 1)
        rows = [_row(path, lines, at + 2 + face) for face in range(count)]
        at += 2 + count
        if count == 0 and at < len(lines) and lines[at].split() == ["0"] * _FIELDS:
            at += 1
        table = np.array(rows, np.float32).reshape(-1, _FIELDS)
        x, y, width, height = table[:, :4].T
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        found.append(Marked(name, boxes, (table[:, 7] != 0) | (width <= 0) | (height <= 0)))
    if not found:
        raise DataError(f"{path}: the file is empty; name wider_face_train_bbx_gt.txt")
    return found


def _count(path: Path, lines: list[str], at: int) -> int:
    text = lines[at].strip() if at < len(lines) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= _MOST_FACES):
        raise DataError(
            f"{path}, line {at + 1}: {text[:60]!r}; expected the number of faces, {_MOST_FACES} at most"
        )
    return int(text)


def _row(path: Path, lines: list[str], at: int) -> list[float]:
    fields = lines[at].split() if at < len(lines) else []
    try:
        values = [float(field) for field in fields]
    except ValueError:
        values = []
    if len(values) != _FIELDS or not all(abs(value) < 1e6 for value in values):
        raise DataError(
            f"{path}, line {at + 1}: {' '.join(fields)[:60]!r}; expected x y w h and six flags, {_FIELDS} numbers"
        )
    return values
