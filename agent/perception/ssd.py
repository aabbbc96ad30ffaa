"""Read the maps of a single-shot detector with anchors (SSD: Liu et al., ECCV 2016) that finds boxes only."""

from collections.abc import Mapping, Sequence

import numpy as np

from agent.perception.types import Float32
from engines.pack import Anchors

# What offsets are divided by in training; the authors' values.
_CENTRE_VARIANCE = 0.1
_SIZE_VARIANCE = 0.2
_LARGEST_GROWTH = np.float32(np.log(1000 / 16))  # of a side over its anchor's: e to more than that is no face

POINTS = np.array([[0.277, 0.385], [0.723, 0.385], [0.504, 0.584], [0.313, 0.74], [0.687, 0.74]], np.float32)
"""Where the five landmarks lie in a box, in parts of its sides: the means of CenterFace's on 400 photographs of LFW,
left and right brought together. They stand in for what such a detector does not see: a tilted or turned head is
aligned as if it were upright and frontal."""


class Ssd:
    """The decoder for a pack's anchors."""

    def __init__(self, anchors: Sequence[Anchors]) -> None:
        self._levels = [(each.stride, np.array(each.sizes, np.float32)) for each in anchors]

    def __call__(self, maps: Mapping[str, Float32], threshold: float) -> Float32:
        """Candidates in the maps, best first.

        Args:
            maps: as ``maps`` describes them.
            threshold: least score, 0 to 1.

        Returns:
            float32 [n, 15]: x1, y1, x2, y2, score, then five landmarks x, y; in input pixels.
        """
        found = np.concatenate(
            [self._level(maps, stride, sizes, threshold) for stride, sizes in self._levels]
        )
        # Beside a box that is no number suppression would keep no other.
        found = found[np.isfinite(found).all(axis=1)]
        return np.asarray(found[np.argsort(-found[:, 4], kind="stable")], np.float32)

    def _level(self, maps: Mapping[str, Float32], stride: int, sizes: Float32, threshold: float) -> Float32:
        scores = maps[f"scores_{stride}"][0]
        anchor, rows, columns = np.nonzero(scores >= threshold)
        boxes = maps[f"boxes_{stride}"][0]
        offset = boxes.reshape(len(sizes), 4, *boxes.shape[1:])[anchor, :, rows, columns]
        centre = (np.stack([columns, rows], 1) + np.float32(0.5)) * np.float32(stride)
        centre = centre + offset[:, :2] * _CENTRE_VARIANCE * sizes[anchor]
        side = sizes[anchor] * np.exp(np.minimum(offset[:, 2:] * _SIZE_VARIANCE, _LARGEST_GROWTH))
        found = np.empty((len(anchor), 15), np.float32)
        found[:, :2], found[:, 2:4] = centre - side / 2, centre + side / 2
        found[:, 4] = scores[anchor, rows, columns]
        found[:, 5:] = (found[:, None, :2] + POINTS * side[:, None]).reshape(-1, 10)
        return found


def maps(anchors: Sequence[Anchors], width: int, height: int) -> dict[str, tuple[int, ...]]:
    """The outputs that a detector with these anchors has for an input of that size, and their shapes.

    For each stride S with k anchors, ``scores_S`` is the probability of a face at each anchor, and ``boxes_S`` has four
    channels for each anchor, its offsets: of the centre's x and y in tenths of the anchor's sides, and of width and
    height five times the logarithm of how many times the anchor's they are.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for each in anchors:
        rows, columns = height // each.stride, width // each.stride
        shapes[f"scores_{each.stride}"] = (1, len(each.sizes), rows, columns)
        shapes[f"boxes_{each.stride}"] = (1, 4 * len(each.sizes), rows, columns)
    return shapes
