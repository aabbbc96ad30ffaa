"""Find faces in a frame: fit the frame to the detector's input, read its maps, drop doubles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from agent.perception.align import alignable
from agent.perception.ssd import Ssd
from agent.perception.types import Detection, Float32, Image
from engines.pack import DetectorModel

_STRIDE = 4  # CenterFace reads out at a quarter of its input's resolution


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a frame lies in the detector's input: scaled by ``scale``, in its top left corner, the rest black."""

    scale: float
    width: int
    height: int


def letterbox(frame_size: tuple[int, int], input_size: tuple[int, int]) -> Letterbox:
    """Fit a frame (width, height) into an input (width, height), keeping its proportions."""
    scale = min(input_size[0] / frame_size[0], input_size[1] / frame_size[1])
    return Letterbox(scale, max(1, round(frame_size[0] * scale)), max(1, round(frame_size[1] * scale)))


def fill(image: Image, box: Letterbox, target: Image) -> None:
    """Write ``image`` into the input ``target`` (uint8 [H, W, 3]) and black beside it."""
    target[box.height :] = 0
    target[: box.height, box.width :] = 0
    view = target[: box.height, : box.width]
    if image.shape == view.shape:
        np.copyto(view, image)
    else:
        # Averaging is slower, and needed only where a bilinear sample would skip whole pixels.
        method = cv2.INTER_AREA if box.scale < 0.5 else cv2.INTER_LINEAR
        cv2.resize(image, (box.width, box.height), dst=view, interpolation=method)


def centerface(maps: Mapping[str, Float32], threshold: float) -> Float32:
    """Candidates in CenterFace's output maps, best first.

    After Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point" (2019): a cell of the heat map
    is a face's centre, its size is the exponential of ``scale``, and landmarks are fractions of the box.

    Args:
        maps: ``heatmap`` [1, 1, h, w], ``scale`` and ``offset`` [1, 2, h, w], ``landmarks`` [1, 10, h, w].
        threshold: least score, 0 to 1.

    Returns:
        float32 [n, 15]: x1, y1, x2, y2, score, then five landmarks x, y; in input pixels.
    """
    heat = maps["heatmap"][0, 0]
    rows, columns = np.nonzero(heat >= threshold)
    scores = heat[rows, columns]
    order = np.argsort(-scores)
    rows, columns, scores = rows[order], columns[order], scores[order]
    height, width = np.exp(maps["scale"][0][:, rows, columns]) * _STRIDE
    offset_y, offset_x = maps["offset"][0][:, rows, columns]
    left = (columns + offset_x + 0.5) * _STRIDE - width / 2
    top = (rows + offset_y + 0.5) * _STRIDE - height / 2
    points = maps["landmarks"][0][:, rows, columns]
    found = np.empty((len(scores), 15), np.float32)
    found[:, 0], found[:, 1], found[:, 2], found[:, 3] = left, top, left + width, top + height
    found[:, 4] = scores
    found[:, 5::2] = (points[1::2] * width + left).T
    found[:, 6::2] = (points[0::2] * height + top).T
    return found


Decoder = Callable[[Mapping[str, Float32], float], Float32]
"""Candidates float32 [n, 15] as ``centerface`` gives them, best first, of a detector's outputs and the least score."""
DECODERS: dict[str, Callable[[DetectorModel], Decoder]] = {
    "centerface": lambda _: centerface,
    "ssd": lambda model: Ssd(model.anchors),
}
"""What makes a decoder of the manifest's table, by the name that the manifest gives."""


def suppress(found: Float32, overlap: float) -> Float32:
    """Greedy non-maximum suppression: of candidates whose IoU exceeds ``overlap``, the best scored stays.

    Args:
        found: float32 [n, ≥ 5] x1, y1, x2, y2, score, …, best first.
        overlap: greatest IoU of two faces, 0 to 1.
    """
    kept = []
    rest = found
    while len(rest):
        kept.append(rest[0])
        rest = rest[1:][iou(rest[0], rest[1:]) <= overlap]
    return np.array(kept, np.float32).reshape(-1, found.shape[1])


def iou(box: Float32, boxes: Float32) -> Float32:
    """Intersection over union of one box [≥ 4] with each of ``boxes`` [n, ≥ 4]; float32 [n]."""
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = (
        (box[2] - box[0]) * (box[3] - box[1])
        + (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        - common
    )
    return np.asarray(common / np.maximum(union, 1e-6), np.float32)


def to_frame(found: Float32, box: Letterbox, frame_size: tuple[int, int]) -> list[Detection]:
    """Candidates in input pixels as detections in frame pixels, largest first; boxes are cut at the frame's edge.

    What lies wholly outside the frame, is not finite, or has all landmarks on one spot is dropped.
    """
    detections = []
    limits = np.array(frame_size * 2, np.float32)
    for row in found[np.isfinite(found).all(axis=1)]:
        x1, y1, x2, y2 = np.clip(row[:4] / box.scale, 0, limits).tolist()
        if x2 - x1 >= 1 and y2 - y1 >= 1:
            landmarks = (row[5:15] / np.float32(box.scale)).reshape(5, 2)
            if alignable(landmarks):
                detections.append(Detection((x1, y1, x2, y2), float(row[4]), landmarks))
    return sorted(detections, key=lambda d: -d.area)
