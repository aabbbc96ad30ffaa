"""Random variants of a FER2013 image as chips: the alignment, light and noise that a car's camera will bring.

Pure: the same image, settings and generator give the same chip.
"""

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.fer2013 import CHIP_FROM_IMAGE, CHIP_SIDE, to_chip


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a chip may stray; unless said otherwise, drawn evenly between minus and plus the value."""

    rotation: float = 12.0  # degrees about the chip's middle
    scale: float = 0.12  # relative
    shift: float = 0.06  # of the chip's side, in x and in y
    flip: float = 0.5  # probability of a mirror image
    contrast: float = 0.35  # exponent: the factor about mid-grey is 2**u
    gamma: float = 0.6  # exponent: the power is 2**u
    brightness: float = 30.0  # grey levels of 255
    dark: float = 0.1  # probability of night: gain of 0.15 to 0.5
    blur: float = 0.25  # probability of a Gaussian blur, sigma 0.5 to 2.5 chip pixels
    noise: float = 0.3  # probability of Gaussian noise, sigma 1 to 10 grey levels
    erase: float = 0.3  # probability of one grey rectangle, sides of 15 to 55 chip pixels


def random_similarity(
    settings: Augmentation, rng: np.random.Generator, to_chip_from: NDArray[np.float64] = CHIP_FROM_IMAGE
) -> NDArray[np.float64]:
    """A random affine map [2, 3] to the chip: a fixed one, FER2013's unless another is given, then random ones."""
    angle = np.deg2rad(rng.uniform(-settings.rotation, settings.rotation))
    scale = 1.0 + rng.uniform(-settings.scale, settings.scale)
    middle = (CHIP_SIDE - 1) / 2
    shift = rng.uniform(-settings.shift, settings.shift, 2) * CHIP_SIDE
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < settings.flip:
        linear[:, 0] *= -1.0
    offset = middle + shift - linear @ np.array([middle, middle])
    moved: NDArray[np.float64] = linear @ to_chip_from
    moved[:, 2] += offset
    return moved


def disturb(
    maps: NDArray[np.float16], shift: int, erase: float, rng: np.random.Generator
) -> NDArray[np.float16]:
    """A feature map [channels, side, side], moved by up to ``shift`` cells and, with chance ``erase``, holed.

    Cheap variety on top of the cached variants; without it the branch learns these by heart after some epochs.
    """
    side = maps.shape[1]
    rows, columns = (
        np.clip(np.arange(side) + rng.integers(-shift, shift + 1), 0, side - 1) for _ in range(2)
    )
    moved = maps[:, rows[:, None], columns]
    if rng.random() < erase:
        size = rng.integers(3, 8)
        top, left = rng.integers(0, side - size + 1, 2)
        moved[:, top : top + size, left : left + size] = 0
    return moved


def augment(image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random variant of a FER2013 image, uint8 [48, 48], as a chip: uint8 BGR [150, 150, 3]."""
    chip = to_chip(image, random_similarity(settings, rng))[:, :, 0].astype(np.float32)
    return np.repeat(_taken_anew(chip, settings, rng)[:, :, None], 3, axis=2)


def augment_chip(
    chip: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A random variant of a chip, uint8 BGR [150, 150, 3]; a generator in the same state varies another one alike."""
    moved = cv2.warpAffine(
        chip,
        random_similarity(settings, rng, np.eye(2, 3)),
        (CHIP_SIDE, CHIP_SIDE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _taken_anew(moved.astype(np.float32), settings, rng)


def _taken_anew(
    chip: NDArray[np.float32], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A picture [150, 150] or [150, 150, 3], values 0 to 255, under other light, by another sensor."""
    if rng.random() < settings.blur:
        chip = cv2.GaussianBlur(chip, (0, 0), rng.uniform(0.5, 2.5)).astype(np.float32, copy=False)
    # Light: power, then contrast and brightness, then night: the order of scene, exposure and sensor gain.
    chip = 255.0 * np.power(chip / 255.0, np.float32(2.0 ** rng.uniform(-settings.gamma, settings.gamma)))
    factor = np.float32(2.0 ** rng.uniform(-settings.contrast, settings.contrast))
    chip = (chip - 127.5) * factor + np.float32(
        127.5 + rng.uniform(-settings.brightness, settings.brightness)
    )
    if rng.random() < settings.dark:
        chip = np.maximum(chip, 0.0) * np.float32(rng.uniform(0.15, 0.5))
    if rng.random() < settings.noise:
        chip = chip + rng.standard_normal(chip.shape, dtype=np.float32) * np.float32(rng.uniform(1.0, 10.0))
    if rng.random() < settings.erase:
        height, width = rng.integers(15, 56, 2)
        top, left = rng.integers(0, CHIP_SIDE - height), rng.integers(0, CHIP_SIDE - width)
        chip[top : top + height, left : left + width] = rng.uniform(0.0, 255.0)
    return np.clip(np.rint(chip), 0.0, 255.0).astype(np.uint8)
