"""FER2013 as this project reads it: 48x48 grey faces in an ``.npz``, and how such an image becomes a chip.

The set: Goodfellow et al., "Challenges in Representation Learning" (2013). The split called ``validation`` is
the challenge's public test, ``test`` its private test.
"""

import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import UserError

LABELS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Expression of each label number, in the order of the data set."""

SPLITS: tuple[str, ...] = ("train", "validation", "test")

IMAGE_SIDE = 48
CHIP_SIDE = 150

# FER2013's typical face: CenterFace on 1,500 random training images, enlarged 3.5 times inside a replicated border,
# found 974 above score 0.6; these are the medians of their landmarks.
LANDMARKS = ((14.9, 19.5), (32.1, 19.0), (23.7, 28.5), (17.2, 35.8), (31.1, 35.4))
"""Left eye, right eye, tip of the nose and corners of the mouth in the 48x48 image, pixel centres."""

TEMPLATE = ((47.5, 46.6), (100.5, 46.6), (74.0, 76.6), (50.4, 103.0), (97.6, 103.0))
"""Where these are to lie in the chip."""

# Least squares without rotation; at most 3 chip pixels a point are left.
# (The default pack's template is larger by 5 %; on chips so enlarged the emotion branch loses 0.2 points.)
_SCALE = 3.33
_SHIFT_X, _SHIFT_Y = -5.2, -16.7

CHIP_FROM_IMAGE: NDArray[np.float64] = np.array(
    [[_SCALE, 0.0, _SHIFT_X], [0.0, _SCALE, _SHIFT_Y]], np.float64
)
"""Affine map [2, 3] from pixels of a FER2013 image to pixels of the chip."""


class Fer2013Error(UserError):
    """The file is not FER2013 in the expected form; the message says what differs and what to do."""


def read_split(npz_path: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One split: images uint8 [N, 48, 48] and labels int64 [N] in 0…6.

    Args:
        npz_path: file with arrays ``SPLIT_x`` and ``SPLIT_y``.
        split: one of ``SPLITS``.

    Raises:
        Fer2013Error: the file is missing or unreadable, lacks an array, or an array has a wrong type,
            shape or value.
    """
    if split not in SPLITS:
        raise Fer2013Error(f"FER2013 has no split {split!r}; choose one of {', '.join(SPLITS)}")
    images, labels = _read_arrays(npz_path, f"{split}_x", f"{split}_y")
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE):
        raise Fer2013Error(
            f"{split}_x in {npz_path} is {images.dtype} {list(images.shape)}; expected uint8 [N, 48, 48]"
        )
    count = len(images)
    if count == 0:
        raise Fer2013Error(f"{split}_x in {npz_path} holds no image")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (count,):
        raise Fer2013Error(
            f"{split}_y in {npz_path} is {labels.dtype} {list(labels.shape)}; expected integers [{count}]"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(LABELS):
        raise Fer2013Error(
            f"{split}_y in {npz_path} ranges from {low} to {high}; expected 0 to {len(LABELS) - 1}"
        )
    return images.astype(np.uint8, copy=False), labels.astype(np.int64)


def to_chip(
    image: NDArray[np.uint8], chip_from_image: NDArray[np.float64] = CHIP_FROM_IMAGE
) -> NDArray[np.uint8]:
    """A FER2013 image, uint8 [48, 48], as a chip: uint8 BGR [150, 150, 3].

    Args:
        image: the grey image.
        chip_from_image: affine map [2, 3]; the default is the one for evaluation, training varies it.

    Raises:
        ValueError: the image is not uint8 [48, 48].
    """
    if image.dtype != np.uint8 or image.shape != (IMAGE_SIDE, IMAGE_SIDE):
        raise ValueError(f"expected a uint8 [48, 48] image, got {image.dtype} {list(image.shape)}")
    grey = cv2.warpAffine(
        image, chip_from_image, (CHIP_SIDE, CHIP_SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)


def _read_arrays(npz_path: Path, *names: str) -> list[NDArray[np.generic]]:
    """These arrays of an ``.npz``, as they are."""
    if not npz_path.is_file():
        wrong = "is no file" if npz_path.exists() else "does not exist"
        raise Fer2013Error(f"{npz_path} {wrong}; give the path of fer2013.npz")
    try:
        file = np.load(npz_path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise Fer2013Error(
                f"{npz_path} is a single array, not an .npz of several; give the path of fer2013.npz"
            )
        with file:
            absent = [name for name in names if name not in file]
            found = [file[name] for name in names if name in file]
            present = ", ".join(file) or "nothing"
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise Fer2013Error(f"{npz_path} cannot be read ({error}); fetch it again") from error
    except ValueError as error:
        # numpy's word for pickled content, which could run code, and for what is no archive. Its own text is left out:
        # it advises to load the file unsafely.
        raise Fer2013Error(f"{npz_path} is not an .npz of plain arrays; fetch it again") from error
    if absent:
        raise Fer2013Error(f"{npz_path} has no array {absent[0]}; it holds {present}")
    return found
