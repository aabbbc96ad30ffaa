"""Bring a face to the place where the network expects it: five landmarks onto a template by a similarity."""

import cv2
import numpy as np

from agent.perception.types import Float32, Image


def similarity(points: Float32, template: Float32) -> Float32:
    """The rotation, uniform scale and shift that take ``points`` closest to ``template``, as float32 [2, 3].

    Least squares after Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
    (PAMI 1991), in the closed form that two dimensions allow: with points as complex numbers, the factor is
    Σ conj(p)·t / Σ |p|² over centred points. A reflection cannot come out.

    Args:
        points: float32 [n, 2], n ≥ 2, not all the same.
        template: float32 [n, 2].

    Raises:
        ValueError: all points coincide.
    """
    p = points.astype(np.float64) @ (1, 1j)
    t = template.astype(np.float64) @ (1, 1j)
    p_mean, t_mean = p.mean(), t.mean()
    centred = p - p_mean
    spread = np.vdot(centred, centred).real
    if spread < 1e-9:
        raise ValueError("the points coincide: no similarity is defined")
    factor = np.vdot(centred, t - t_mean) / spread
    shift = t_mean - factor * p_mean
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.array(rows, np.float32)


def alignable(landmarks: Float32) -> bool:
    """Whether float32 [5, 2] are numbers, and not all on one spot, so that a similarity is defined."""
    return bool(np.isfinite(landmarks).all() and np.ptp(landmarks, axis=0).max() >= 1)


def align(image: Image, landmarks: Float32, template: Float32, chip: Image) -> None:
    """Write the aligned face into ``chip`` (uint8 BGR [side, side, 3]); outside the frame it is black.

    Args:
        image: the frame.
        landmarks: float32 [5, 2] of the face in it.
        template: float32 [5, 2], where they are to lie in the chip.
        chip: to be written.
    """
    warp(image, similarity(landmarks, template), chip)


def warp(image: Image, matrix: Float32, chip: Image) -> None:
    """Write what ``matrix`` brings there into ``chip`` (uint8 [height, width, 3]); outside the image it is black.

    Faces larger than the chip are averaged down in halves first: a bilinear sample of a face four times too large
    would read one pixel in sixteen, and the noise of the others would not be averaged away.

    Args:
        image: uint8 [height, width, 3].
        matrix: float32 [2, 3], a similarity, mirrored or not, from the image's pixels to the chip's.
        chip: to be written.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    height, width = chip.shape[:2]
    if scale < 0.5:
        image, matrix = _shrink(image, matrix, scale, (width, height))
    cv2.warpAffine(image, matrix, (width, height), dst=chip, flags=cv2.INTER_LINEAR)


def _shrink(image: Image, matrix: Float32, scale: float, size: tuple[int, int]) -> tuple[Image, Float32]:
    """Cut out the part of ``image`` that the chip shows and average it down to at most twice the chip's resolution."""
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], np.float32)
    seen = corners @ inverse[:, :2].T + inverse[:, 2]
    low = np.maximum(np.floor(seen.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(seen.max(axis=0)).astype(int) + 1, (image.shape[1], image.shape[0]))
    if (high - low).min() < 2:
        return image, matrix
    part = image[low[1] : high[1], low[0] : high[0]]
    factor = int(1 / scale)
    small_size = np.maximum((high - low) // factor, 1)
    small = cv2.resize(part, (int(small_size[0]), int(small_size[1])), interpolation=cv2.INTER_AREA)
    ratio = (high - low) / small_size  # frame pixels for each small pixel, nearly but not exactly ``factor``
    origin = low + (ratio - 1) / 2  # frame position of the first small pixel's centre
    to_frame = np.array([[ratio[0], 0, origin[0]], [0, ratio[1], origin[1]], [0, 0, 1]])
    return np.asarray(small, np.uint8), (matrix.astype(np.float64) @ to_frame).astype(np.float32)
