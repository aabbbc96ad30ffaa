"""What cameras in cars do to faces: pure functions on images, each in five severities, the same for the same seed.

The idea and, where a name is theirs too, the constants are those of ImageNet-C (Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019). Its images are 224 pixels wide. Lengths
are given here in eye distances instead (``EYES`` pixels unless landmarks say otherwise), so that a severity means the
same for a chip, a photograph and a frame. What ImageNet-C does not have (a cabin at night, a low sun, covered faces)
is built from how a camera works; the constants of these are choices: 1 is seen at once, 5 is about as much as a person
can still recognise.
"""

import math
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Float32, Image

SEVERITIES = (1, 2, 3, 4, 5)
EYES = 45.0
"""Distance between the eyes, in pixels, where no landmarks are given: that of a photograph of LFW, nearly of a chip."""

_GAMMA = 2.2  # from pixel values to light, as sRGB has it nearly
_IMAGENET_EYES = (
    67.0  # a face that fills an image of ImageNet-C (224 pixels) as LFW's fill theirs (45 of 150)
)

Float = NDArray[np.float32]
Generator = np.random.Generator


def corrupt(
    image: Image, kind: str, severity: int, seed: int = 0, key: str = "", landmarks: Float32 | None = None
) -> Image:
    """A copy of ``image`` that has suffered.

    Args:
        image: uint8 BGR [height, width, 3].
        kind: one of ``KINDS``.
        severity: 1 to 5.
        seed: of all that is random.
        key: tells images apart that are to suffer differently under one seed, such as the name of a photograph.
        landmarks: float32 [5, 2], where the face is (as ``Detection.landmarks``). Without them the face is taken to
            lie as in a photograph of LFW; glasses and masks cannot do without.

    Returns:
        uint8 BGR of the same shape.

    Raises:
        ValueError: there is no such kind or severity, or the kind needs landmarks.
    """
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(
            f"no corruption {kind!r} of severity {severity}; there are {', '.join(KINDS)}, 1 to 5"
        )
    rng = np.random.default_rng([seed, zlib.crc32(key.encode()), zlib.crc32(kind.encode())])
    index = severity - 1
    if kind in _ON_FACES:
        if landmarks is None:
            raise ValueError(f"{kind} needs to know where the face is")
        return _ON_FACES[kind](image, index, rng, landmarks.astype(np.float64))
    eyes = EYES if landmarks is None else max(1.0, math.dist(*landmarks[:2].tolist()))
    return _ON_IMAGES[kind](image, index, rng, eyes)


def _low_light(image: Image, index: int, rng: Generator, _eyes: float) -> Image:
    """A cabin at night: 3 to 7 stops less light, of which the camera wins back half by gain, noise and all.

    Signal and noise of a small sensor: a well of 5,000 electrons, shot noise of Poisson, 4 electrons of read noise
    (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting", TIP 2008, has the model).
    """
    well, read = 5000.0, 4.0
    stops = (3.0, 4.0, 5.0, 6.0, 7.0)[index]
    electrons = _light(image) * np.float32(well * 2.0**-stops)
    seen = rng.poisson(electrons).astype(np.float32) + rng.normal(0, read, image.shape).astype(np.float32)
    return _pixels(seen * np.float32(2.0 ** (stops / 2) / well))


def _over_exposure(image: Image, index: int, _rng: Generator, _eyes: float) -> Image:
    """0.5 to 2.5 stops too much light: what the sensor cannot hold is white."""
    return _pixels(_light(image) * np.float32(2.0 ** (0.5, 1.0, 1.5, 2.0, 2.5)[index]))


def _side_glare(image: Image, index: int, rng: Generator, _eyes: float) -> Image:
    """A low sun from the left or the right: its stray light veils the image, most at that side."""
    veil = (0.3, 0.6, 1.0, 1.6, 2.4)[index]  # light at the edge; 1 is white
    width = image.shape[1]
    across = np.arange(width, dtype=np.float32) / width
    if rng.random() < 0.5:
        across = 1 - across
    falloff = np.exp(-across / np.float32(0.5))  # in the middle a third of it is left
    return _pixels(_light(image) + np.float32(veil) * falloff[None, :, None])


def _motion_blur(image: Image, index: int, rng: Generator, eyes: float) -> Image:
    """A head or a camera that moves evenly during the exposure, in any direction."""
    length = max(1.0, (0.1, 0.2, 0.3, 0.4, 0.55)[index] * eyes)
    angle = rng.uniform(0, math.pi)
    reach = math.ceil(length / 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step in np.linspace(-length / 2, length / 2, 4 * reach + 1):
        x, y = reach + step * math.cos(angle), reach + step * math.sin(angle)
        left, top = math.floor(x), math.floor(y)
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            share = (1 - abs(x - column)) * (1 - abs(y - row))
            if share > 0:
                kernel[row, column] += np.float32(share)
    return _filtered(image, kernel)


def _defocus_blur(image: Image, index: int, _rng: Generator, eyes: float) -> Image:
    """A lens out of focus: each point becomes a disk. Radii of ImageNet-C."""
    radius = max(0.5, (3, 4, 6, 8, 10)[index] / _IMAGENET_EYES * eyes)
    reach = math.ceil(radius)
    away = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return _filtered(image, np.clip(radius + 0.5 - away, 0, 1).astype(np.float32))


def _sensor_noise(image: Image, index: int, rng: Generator, _eyes: float) -> Image:
    """Noise of each pixel for itself. ImageNet-C's shot noise: so many photons make white."""
    photons = (60.0, 25.0, 12.0, 5.0, 3.0)[index]
    return _rounded(rng.poisson(image / 255.0 * photons) / photons * 255.0)


def _jpeg(image: Image, index: int, _rng: Generator, _eyes: float) -> Image:
    """Compression. Qualities of ImageNet-C."""
    quality = (25, 18, 15, 10, 7)[index]
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _low_resolution(image: Image, index: int, _rng: Generator, eyes: float) -> Image:
    """As if seen from so far away that this many pixels lie between the eyes, then enlarged again."""
    left = (20.0, 16.0, 12.0, 9.0, 7.0)[index]
    return resampled(image, min(1.0, left / eyes))


def resampled(image: Image, scale: float) -> Image:
    """``image`` averaged down by ``scale`` (0 to 1) and enlarged to its old size again."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _mask(image: Image, index: int, rng: Generator, landmarks: NDArray[np.float64]) -> Image:
    """A mask or scarf in one colour, from below the chin up: 1 ends under the mouth, 5 above the nose."""
    top = (1.35, 1.05, 0.8, 0.55, 0.3)[index]
    outline = [
        (-1.0, top),
        (0.0, top - 0.1),
        (1.0, top),
        (0.85, 1.6),
        (0.45, 2.1),
        (-0.45, 2.1),
        (-0.85, 1.6),
    ]
    return _painted(image, outline, _cloth(rng), 1.0, landmarks)


def _glasses(image: Image, index: int, rng: Generator, landmarks: NDArray[np.float64]) -> Image:
    """Sunglasses as one bar over both eyes, the darker and larger the worse."""
    share, half = ((0.5, 0.2), (0.7, 0.22), (0.9, 0.25), (1.0, 0.3), (1.0, 0.4))[index]
    outline = [(-0.95, -half), (0.95, -half), (0.95, half), (-0.95, half)]
    return _painted(image, outline, np.full(3, rng.uniform(5, 40)), share, landmarks)


_ON_IMAGES: dict[str, Callable[[Image, int, Generator, float], Image]] = {
    "low_light": _low_light,
    "over_exposure": _over_exposure,
    "side_glare": _side_glare,
    "motion_blur": _motion_blur,
    "defocus_blur": _defocus_blur,
    "sensor_noise": _sensor_noise,
    "jpeg": _jpeg,
    "low_resolution": _low_resolution,
}
_ON_FACES: dict[str, Callable[[Image, int, Generator, NDArray[np.float64]], Image]] = {
    "mask": _mask,
    "glasses": _glasses,
}
ON_IMAGES = tuple(_ON_IMAGES)
"""The names of corruptions of whole images."""
KINDS = (*ON_IMAGES, *_ON_FACES)
"""The names of all corruptions; glasses and masks are put on a face."""


def _light(image: Image) -> Float:
    """Pixel values as light, 0 to 1."""
    table = (np.arange(256, dtype=np.float32) / 255) ** np.float32(_GAMMA)
    return np.asarray(table[image], np.float32)


def _pixels(light: Float) -> Image:
    """Light as pixel values; less than nothing is black, more than the sensor holds white."""
    return _rounded(255 * np.clip(light, 0, 1) ** np.float32(1 / _GAMMA))


def _rounded(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _filtered(image: Image, kernel: Float) -> Image:
    """``image`` with each point spread as ``kernel`` says; the edge is mirrored."""
    normed = kernel / kernel.sum()
    return np.asarray(cv2.filter2D(image, -1, normed, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def _cloth(rng: Generator) -> NDArray[np.float64]:
    """A colour that masks have: white, light blue or black, a little varied."""
    colours = np.array([[235, 235, 235], [215, 190, 150], [35, 35, 35]])
    return np.asarray(np.clip(rng.choice(colours) + rng.uniform(-15, 15), 0, 255), np.float64)


def _painted(
    image: Image,
    outline: list[tuple[float, float]],
    colour: NDArray[np.float64],
    share: float,
    landmarks: NDArray[np.float64],
) -> Image:
    """``image`` under a patch.

    Args:
        image: uint8 BGR.
        outline: of the patch, in eye distances from the middle between the eyes: to the right eye as seen, downwards.
        colour: of the patch, BGR.
        share: how much of the patch's colour covers what is below, 0 to 1.
        landmarks: float64 [5, 2].
    """
    right = landmarks[1] - landmarks[0]
    down = np.array([-right[1], right[0]])
    corners = landmarks[:2].mean(axis=0) + np.array(outline) @ np.stack([right, down])
    covered = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(covered, [np.rint(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    weight = covered[..., None] / 255.0 * share
    return _rounded(image * (1 - weight) + colour * weight)
