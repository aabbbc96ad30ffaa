"""Lists of five points on faces, in the way of CelebA's ``list_landmarks_celeba.txt``.

The first line holds the number of pictures, the second the names of the ten columns, and each one after it a picture's
path and x and y of its points in pixels, separated by spaces: left eye, right eye, nose, left and right corner of the
mouth. Left is left in the picture, as in CelebA.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.reading import DataError

_COLUMNS = [
    f"{point}_{axis}"
    for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    for axis in ("x", "y")
]
_FARTHEST = 1e6  # pixels
_LEAST_EYES = 1.0  # pixels between the eyes


def read_points(path: Path) -> dict[str, NDArray[np.float32]]:
    """The points of a list by the paths of their pictures: float32 [5, 2], pixels.

    Raises:
        DataError: the file cannot be read, or a line is not what it should be.
    """
    try:
        lines = path.read_text("utf-8").rstrip().split("\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name a list as list_landmarks_celeba.txt") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    count = lines[0].strip()
    if not (count.isascii() and count.isdigit() and len(count) < 9 and int(count) == len(lines) - 2):
        raise DataError(
            f"{path}, line 1: {count[:60]!r}; expected the number of pictures, and {len(lines) - 2} lines behind the "
            "names of the columns"
        )
    if not int(count):
        raise DataError(f"{path}: it lists no picture")
    if lines[1].split() != _COLUMNS:
        raise DataError(f"{path}, line 2: {lines[1][:60]!r}; expected {' '.join(_COLUMNS)}")
    found: dict[str, NDArray[np.float32]] = {}
    for number, line in enumerate(lines[2:], 3):
        name, points = _row(f"{path}, line {number}", line)
        if name in found:
            raise DataError(f"{path}, line {number}: {name} has been listed before")
        found[name] = points
    eyes = np.array([points[:2, 0] for points in found.values()])
    if np.mean(eyes[:, 0] > eyes[:, 1]) > 0.5:
        raise DataError(
            f"{path}: most left eyes lie to the right of the right ones; left is left in the picture: swap them"
        )
    return found


def _row(where: str, line: str) -> tuple[str, NDArray[np.float32]]:
    """Path and points of a line."""
    name, *fields = line.strip().rsplit(None, len(_COLUMNS)) or [""]
    try:
        values = [float(field) for field in fields]
    except ValueError:
        values = []
    if len(values) != len(_COLUMNS) or not all(abs(value) < _FARTHEST for value in values):
        raise DataError(f"{where}: {line[:60]!r}; expected the path of a picture and {len(_COLUMNS)} numbers")
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{where}: {name[:60]!r}; expected the path of a picture below the folder of pictures"
        )
    points = np.array(values, np.float32).reshape(5, 2)
    if np.hypot(*(points[0] - points[1])) < _LEAST_EYES:
        raise DataError(f"{where}: {line[:60]!r}; both eyes are on one spot")
    return name, points
