"""Random variants of a batch of faces, on the device where the batch is: pose, light, sensor.

Every variant follows from one row of numbers that a generator on the processor draws: the same generator gives the same
variants on the processor and, but for rounding, on a GPU; and processes that share a batch make of each face what one
process would make of it. The effects come in the order of scene, lens, sensor and file.

Warping, blurring and the JPEG codec are kornia's; its own augmentations draw from PyTorch's global generator, which a
resumed run could not repeat.
"""

import math
from typing import Annotated

import msgspec
import numpy as np
import torch
from kornia.enhance.jpeg import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_perspective
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from trainer.data.samplers import Share

Chance = Annotated[float, Meta(ge=0, le=1)]
Angle = Annotated[float, Meta(ge=0, le=60)]
Part = Annotated[float, Meta(ge=0, le=0.5)]
Octaves = Annotated[float, Meta(ge=0, le=4)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a variant may stray; unless said otherwise, drawn evenly between minus and plus the value.

    Attributes:
        flip: probability of a mirror image.
        yaw: degrees that the face, taken as a plane, is turned to a side.
        pitch: degrees that it is turned up or down.
        roll: degrees in the picture's plane.
        scale: relative.
        shift: of the side, in x and in y.
        erase: probability of a rectangle of one colour before the face.
        erase_most: its longest side, in parts of the picture's; the shortest is a tenth.
        gamma: exponent: the power is 2**u.
        gain: exponent: the factor is 2**u.
        colour: exponent of a factor for each channel.
        shade: of light falling off across the face: the factor goes from 1 - u to 1 + u in a random direction.
        saturation: the distance from grey is multiplied by 1 + u.
        grey: probability of no colour at all, as from an infrared camera.
        blur: probability of a Gaussian blur.
        blur_most: its greatest sigma, in hundredths of the side; the least is 0.3.
        coarse: probability of a face seen from afar: fewer pixels, enlarged again.
        coarse_least: the least share of the pixels on a side that is left.
        noise: probability of noise, stronger where it is brighter.
        noise_most: its greatest sigma at white, grey levels of 255; a quarter of its variance is there in the dark.
        jpeg: probability of JPEG's traces.
        jpeg_least: the least quality; the greatest is 90.
    """

    flip: Chance = 0.5
    yaw: Angle = 25.0
    pitch: Angle = 15.0
    roll: Angle = 8.0
    scale: Part = 0.08
    shift: Part = 0.04
    erase: Chance = 0.2
    erase_most: Annotated[float, Meta(ge=0.1, le=0.9)] = 0.4
    gamma: Octaves = 0.5
    gain: Octaves = 0.5
    colour: Octaves = 0.15
    shade: Chance = 0.4
    saturation: Chance = 0.5
    grey: Chance = 0.1
    blur: Chance = 0.2
    blur_most: Annotated[float, Meta(ge=0.3, le=5)] = 1.8
    coarse: Chance = 0.15
    coarse_least: Annotated[float, Meta(ge=0.05, le=1)] = 0.25
    noise: Chance = 0.3
    noise_most: Annotated[float, Meta(ge=0, le=64)] = 12.0
    jpeg: Chance = 0.15
    jpeg_least: Annotated[float, Meta(ge=1, le=90)] = 25.0


NOTHING = Augmentation(
    flip=0,
    yaw=0,
    pitch=0,
    roll=0,
    scale=0,
    shift=0,
    erase=0,
    gamma=0,
    gain=0,
    colour=0,
    shade=0,
    saturation=0,
    grey=0,
    blur=0,
    coarse=0,
    noise=0,
    jpeg=0,
)
"""Leaves every picture as it is."""

_DISTANCE = 3.0  # of the camera, in sides of the chip: half a metre before a face of 16 cm
_DRAWN = (
    *("flip", "yaw", "pitch", "roll", "scale", "shift_x", "shift_y"),
    *("erase", "erase_x", "erase_y", "erase_width", "erase_height", "erase_r", "erase_g", "erase_b"),
    *("gamma", "gain", "red", "green", "blue", "shade", "shade_angle", "saturation", "grey"),
    *(
        "blur",
        "blur_sigma",
        "coarse",
        "coarse_share",
        "noise",
        "noise_sigma",
        "noise_seed",
        "jpeg",
        "jpeg_quality",
    ),
)
"""What is drawn for each face, whatever the settings: turning one effect off leaves the others as they were."""


def generator(*numbers: int) -> torch.Generator:
    """A generator that follows from seed, epoch and step, say: nothing of it needs to be kept in a checkpoint."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed >> 1)


def augment(
    images: Tensor, settings: Augmentation, draw: torch.Generator, share: Share | None = None
) -> Tensor:
    """A variant of each picture.

    Args:
        images: RGB [n, 3, side, side], uint8 or floating from 0 to 1, on any device.
        settings: how far they may stray.
        draw: where the variants come from; a generator on the processor.
        share: the part of a batch that ``images`` are, of which every process draws with a like generator.

    Returns:
        The variants, of the same shape, type and device.

    Raises:
        ValueError: the images are not of that shape or type.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"expected [n, 3, side, side], got {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"expected uint8 or floating pictures, got {images.dtype}")
    share = share or Share()
    whole = torch.rand(len(images) * share.ranks, len(_DRAWN), generator=draw, dtype=torch.float64)
    drawn = dict(zip(_DRAWN, whole[share.of(len(whole))].T, strict=True))
    if settings == NOTHING or not len(images):
        return images
    with torch.no_grad():
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        x = _mirror(x, settings, drawn)  # from here on x is not the caller's memory
        x = _turn(x, settings, drawn)
        x = _erase(x, settings, drawn)
        x = _light(x, settings, drawn)
        x = _blur(x, settings, drawn)
        x = _coarsen(x, settings, drawn)
        x = _noise(x, settings, drawn)
        x = _jpeg(x, settings, drawn)
        return (x * 255).round().to(torch.uint8) if images.dtype == torch.uint8 else x.to(images.dtype)


def two_views(
    images: Tensor, settings: Augmentation, draw: torch.Generator, share: Share | None = None
) -> tuple[Tensor, Tensor]:
    """Two variants of each picture, as contrastive learning wants them; arguments as for ``augment``."""
    return augment(images, settings, draw, share), augment(images, settings, draw, share)


Drawn = dict[str, Tensor]


def _mirror(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    chosen = _each(drawn["flip"] < settings.flip, x)
    return torch.where(chosen, x.flip(-1), x)


def _turn(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    """Turn the face as a plane before a pinhole camera, then scale and shift it; edges are repeated outwards."""
    if not any((settings.yaw, settings.pitch, settings.roll, settings.scale, settings.shift)):
        return x
    matrix = homographies(settings, drawn, x.shape[-1]).to(x)
    return warp_perspective(x, matrix, (x.shape[2], x.shape[3]), padding_mode="border")


def homographies(settings: Augmentation, drawn: Drawn, side: int) -> Tensor:
    """From pixels of the picture to pixels of the variant: float64 [n, 3, 3].

    A point (x, y, 0) of the plane, turned by R, is seen at d (X, Y) / (d + Z) by a camera at distance d.
    """
    yaw, pitch, roll = (
        math.radians(most) * _even(drawn[name])
        for name, most in (("yaw", settings.yaw), ("pitch", settings.pitch), ("roll", settings.roll))
    )
    sin_y, cos_y, sin_p, cos_p, sin_r, cos_r = (
        f(angle) for angle in (yaw, pitch, roll) for f in (torch.sin, torch.cos)
    )
    # The first two columns of Rz(roll) · Ry(yaw) · Rx(pitch).
    x_axis = (cos_r * cos_y, sin_r * cos_y, -sin_y)
    y_axis = (
        cos_r * sin_y * sin_p - sin_r * cos_p,
        sin_r * sin_y * sin_p + cos_r * cos_p,
        cos_y * sin_p,
    )
    d, none, one = _DISTANCE, torch.zeros_like(yaw), torch.ones_like(yaw)
    seen = _matrix(
        (d * x_axis[0], d * y_axis[0], none),
        (d * x_axis[1], d * y_axis[1], none),
        (x_axis[2], y_axis[2], d * one),
    )
    scale = 1 + settings.scale * _even(drawn["scale"])
    moved = _matrix(
        (scale, none, settings.shift * _even(drawn["shift_x"])),
        (none, scale, settings.shift * _even(drawn["shift_y"])),
        (none, none, one),
    )
    middle = (side - 1) / 2
    to_pixels = torch.tensor([[side, 0, middle], [0, side, middle], [0, 0, 1]], dtype=torch.float64)
    found: Tensor = to_pixels @ moved @ seen @ torch.linalg.inv(to_pixels)
    return found


def _erase(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    chosen = drawn["erase"] < settings.erase
    if not chosen.any():
        return x
    place = torch.arange(x.shape[-1], device=x.device) / x.shape[-1]
    inside = []
    for middle, length in (("erase_y", "erase_height"), ("erase_x", "erase_width")):
        half = (0.1 + (settings.erase_most - 0.1) * drawn[length]) / 2
        inside.append((place - _device(drawn[middle], x)[:, None]).abs() <= _device(half, x)[:, None])
    hole = _each(chosen, x) & (inside[0][:, None, :, None] & inside[1][:, None, None, :])
    colour = torch.stack([drawn[f"erase_{channel}"] for channel in "rgb"], dim=1)
    return torch.where(hole, _device(colour, x)[:, :, None, None], x)


def _light(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    if settings.gamma:
        x = x.clamp(0, 1) ** _each(2 ** (settings.gamma * _even(drawn["gamma"])), x)
    if settings.shade:
        angle = 2 * math.pi * drawn["shade_angle"]
        place = torch.linspace(-1, 1, x.shape[-1], device=x.device)
        across = _each(torch.cos(angle), x) * place + _each(torch.sin(angle), x) * place[:, None]
        x = x * (1 + settings.shade * _each(drawn["shade"], x) * across / math.sqrt(2))
    if settings.gain or settings.colour:
        channels = torch.stack([_even(drawn[channel]) for channel in ("red", "green", "blue")], dim=1)
        factors = 2 ** (settings.gain * _even(drawn["gain"])[:, None] + settings.colour * channels)
        x = x * _device(factors, x)[:, :, None, None]
    if settings.saturation or settings.grey:
        # Luma of ITU-R BT.601, as in JPEG.
        luma = (x * torch.tensor([0.299, 0.587, 0.114], device=x.device)[:, None, None]).sum(1, keepdim=True)
        factor = 1 + settings.saturation * _even(drawn["saturation"])
        factor = torch.where(drawn["grey"] < settings.grey, 0.0, factor)
        x = luma + (x - luma) * _each(factor, x)
    return x.clamp(0, 1)


def _blur(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    rows = _rows(drawn["blur"] < settings.blur)
    if not len(rows):
        return x
    hundredth = x.shape[-1] / 100
    sigma = hundredth * (0.3 + (settings.blur_most - 0.3) * drawn["blur_sigma"][rows])
    reach = min(math.ceil(3 * hundredth * settings.blur_most), x.shape[-1] - 1)
    blurred = gaussian_blur2d(x[rows], 2 * reach + 1, sigma.float()[:, None].expand(-1, 2), "replicate")
    x[rows] = blurred
    return x


def _coarsen(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    side = x.shape[-1]
    for row in _rows(drawn["coarse"] < settings.coarse).tolist():
        share = settings.coarse_least + (1 - settings.coarse_least) * float(drawn["coarse_share"][row])
        few = max(1, round(share * side))
        small = functional.interpolate(x[row : row + 1], size=(few, few), mode="area")
        large = functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
        x[row] = large[0]
    return x


def _noise(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    """Read noise and, rising with the light, shot noise."""
    rows = _rows(drawn["noise"] < settings.noise)
    if not len(rows) or not settings.noise_most:
        return x
    # Each face has a generator of its own: what one gets does not depend on which others are noisy.
    seeds = (drawn["noise_seed"][rows] * 2**53).long().tolist()
    own = torch.Generator(x.device)
    grain = torch.stack(
        [torch.randn(x.shape[1:], generator=own.manual_seed(seed), device=x.device) for seed in seeds]
    )
    noisy = x[rows]
    sigma = _each(drawn["noise_sigma"][rows] * settings.noise_most / 255, x)
    noisy = noisy + grain * sigma * (0.25 + 0.75 * noisy).sqrt()
    x[rows] = noisy.clamp(0, 1)
    return x


def _jpeg(x: Tensor, settings: Augmentation, drawn: Drawn) -> Tensor:
    rows = _rows(drawn["jpeg"] < settings.jpeg)
    if not len(rows):
        return x
    quality = settings.jpeg_least + (90 - settings.jpeg_least) * drawn["jpeg_quality"][rows]
    coded = jpeg_codec_differentiable(x[rows], _device(quality, x))
    x[rows] = coded.clamp(0, 1)
    return x


def _even(drawn: Tensor) -> Tensor:
    """From 0…1 to -1…1."""
    return 2 * drawn - 1


def _device(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, torch.float32)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """One value a picture, to be combined with pictures."""
    kept = values if values.dtype == torch.bool else values.float()
    return kept.to(like.device)[:, None, None, None]


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero().flatten()


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Matrices [n, 3, 3] of their elements [n]."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
