"""FER2013 as chips: from the ``.npz`` that ``calibration.fer2013`` reads, or from Kaggle's table.

Kaggle hands the set out as ``fer2013.csv`` (columns ``emotion,pixels,Usage``) and as ``icml_face_data.csv``
(``emotion, Usage, pixels``). ``pixels`` is 2304 numbers between blanks; ``Usage`` is ``Training``, ``PublicTest`` or
``PrivateTest``. Columns are found by their names.
"""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.faces import scaled
from calibration.fer2013 import (
    CHIP_FROM_IMAGE,
    CHIP_SIDE,
    IMAGE_SIDE,
    LABELS,
    LANDMARKS,
    SPLITS,
    TEMPLATE,
    Fer2013Error,
    read_split,
)
from trainer.data.alignment import Template, alike, upright
from trainer.data.split import digest_of_arrays

USAGES = dict(zip(SPLITS, ("Training", "PublicTest", "PrivateTest"), strict=True))
"""What Kaggle's table calls each split."""

_COLUMNS = ("emotion", "pixels", "usage")
_PIXELS = re.compile(r"(?:[0-9]{1,3} ){2303}[0-9]{1,3}")


class FerPictures:
    """Faces of FER2013 where the agent's alignment would have put them, as a source (see ``trainer.data.reading``).

    Attributes:
        labels: int64 [n], numbers in ``calibration.fer2013.LABELS``.
    """

    def __init__(self, path: Path, split: str, side: int, template: Template | None = None) -> None:
        """Read one split.

        Args:
            path: ``fer2013.npz`` or Kaggle's ``.csv``.
            split: one of ``calibration.fer2013.SPLITS``.
            side: of the pictures to give.
            template: where the agent's alignment puts the five points, pixels; None stands for the default pack's.

        Raises:
            Fer2013Error: the file is missing or is not FER2013.
        """
        read = read_csv if path.suffix.lower() == ".csv" else read_split
        self._images, self.labels = read(path, split)
        self._path, self._split, self._side = path, split, side
        usual = scaled(TEMPLATE, CHIP_SIDE, side)
        self._aligned_anew = template is not None and not alike(template, usual, side)
        if template is not None and self._aligned_anew:
            self._to_chip = upright(np.array(LANDMARKS, np.float32), template)
        else:
            # From the chip's map to one of another side: the chip's edge, half a pixel out, stays at the edge.
            factor = side / CHIP_SIDE
            self._to_chip = factor * CHIP_FROM_IMAGE
            self._to_chip[:, 2] += (factor - 1) / 2

    def read(self, index: int) -> NDArray[np.uint8]:
        """The face: uint8 RGB [side, side, 3], three equal channels."""
        grey = cv2.warpAffine(
            self._images[index],
            self._to_chip,
            (self._side, self._side),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, axis=2)

    def name(self, index: int) -> str:
        """File, split and number."""
        return f"{self._path}, {self._split} image {index}"

    def digest(self) -> str:
        """What these faces are."""
        own = (self._to_chip,) if self._aligned_anew else ()
        return digest_of_arrays(self._images, self.labels, *own)


def read_csv(path: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One split of Kaggle's table: images uint8 [N, 48, 48] and labels int64 [N] in 0…6.

    Raises:
        Fer2013Error: the file cannot be read, a line is not what it should be, or the split is empty.
    """
    if split not in SPLITS:
        raise Fer2013Error(f"FER2013 has no split {split!r}; choose one of {', '.join(SPLITS)}")
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            columns = [name.strip().lower() for name in next(rows, [])]
            if not set(_COLUMNS) <= set(columns):
                raise Fer2013Error(f"{path}: the columns are {columns}; expected emotion, pixels and Usage")
            emotion, pixels, usage = (columns.index(name) for name in _COLUMNS)
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(columns):
                    raise Fer2013Error(f"{where}: {len(row)} fields; expected {len(columns)}")
                if row[usage].strip() not in USAGES.values():
                    raise Fer2013Error(
                        f"{where}: Usage {row[usage][:30]!r}; expected {', '.join(USAGES.values())}"
                    )
                if row[usage].strip() == USAGES[split]:
                    labels.append(_label(where, row[emotion].strip()))
                    images.append(_image(where, row[pixels].strip()))
    except OSError as error:
        raise Fer2013Error(f"{path}: {error.strerror}; name fer2013.csv or fer2013.npz") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise Fer2013Error(f"{path}: not a table in text ({error})") from error
    if not images:
        raise Fer2013Error(f"{path}: no line has the Usage {USAGES[split]}")
    return np.stack(images), np.array(labels, np.int64)


def _label(where: str, text: str) -> int:
    if len(text) != 1 or text not in "0123456":
        raise Fer2013Error(f"{where}: emotion {text[:30]!r}; expected 0 to {len(LABELS) - 1}")
    return int(text)


def _image(where: str, text: str) -> NDArray[np.uint8]:
    if not _PIXELS.fullmatch(text):
        raise Fer2013Error(
            f"{where}: pixels {text[:30]!r}...; expected {IMAGE_SIDE**2} numbers, each after one blank"
        )
    values = np.fromstring(text, np.int64, sep=" ")
    if values.max() > 255:
        raise Fer2013Error(f"{where}: a pixel is {values.max()}; expected 0 to 255")
    return values.astype(np.uint8).reshape(IMAGE_SIDE, IMAGE_SIDE)
