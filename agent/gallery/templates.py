"""From the samples of a person to the few vectors that stand for them: one comparison a template.

The methods are compared in docs/recognition.md. None of them knows how far apart a pack puts faces: what is far is
measured by the samples themselves.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from agent.config import Gallery, TemplateMethod
from agent.gallery.types import Sample
from agent.perception.types import Float32, Quality

Aggregate = Callable[[Sequence[Sample]], Float32]
"""Makes the templates of one person, float32 [k, dim] of length 1, of at least one sample of one pack."""

MOST = 3
"""Templates of one person at most, with ``clusters``."""
_OUTLIER = 2.0  # times the median distance: a sample farther than that from the others is left out
_APART = (
    1.5  # times the usual distance of a sample to its nearest: clusters farther apart than that stay apart
)
_SAME = 1e-6  # distance of samples that differ by rounding alone

# What a sample needs to weigh in full: about the median of LFW's photographs.
_FULL_SIZE = 40.0  # pixels between the eyes
_FULL_SHARPNESS = 40.0
_FULL_CONTRAST = 45.0


def aggregate(settings: Gallery) -> Aggregate:
    """How the configuration wants templates to be made."""
    return partial(templates, method=settings.template, most=settings.templates)


def templates(samples: Sequence[Sample], method: TemplateMethod = "mean", most: int = MOST) -> Float32:
    """The templates of one person, float32 [k, dim], rows of length 1.

    Args:
        samples: at least one, of one pack.
        method: ``mean``: the direction of the mean. ``trimmed``: of the mean of those that are no outliers, see
            ``_agreeing``. ``weighted``: of the mean weighted by ``weight``. ``clusters``: the directions of the means
            of at most ``most`` clusters, see ``_clusters``.
        most: 1 or more.
    """
    rows = np.stack([sample.embedding for sample in samples]).astype(np.float64)
    match method:
        case "mean":
            return _direction(rows)[None]
        case "trimmed":
            return _direction(rows[_agreeing(rows)])[None]
        case "weighted":
            weights = np.array([weight(sample.quality) for sample in samples])
            return _direction(rows * weights[:, None])[None]
        case "clusters":
            return np.stack([_direction(rows[cluster]) for cluster in _clusters(rows, most)])


def weight(quality: Quality) -> float:
    """How much a sample counts: cos yaw · cos pitch · size · √sharpness · contrast, each as a share of enough.

    The square root because sharpness is a variance. Nothing weighs less than a hundredth, so that a person of whom
    there are only poor samples still has a template.
    """
    pose = math.cos(math.radians(quality.pose.yaw)) * math.cos(math.radians(quality.pose.pitch))
    size = min(1.0, quality.size / _FULL_SIZE)
    sharpness = math.sqrt(min(1.0, quality.sharpness / _FULL_SHARPNESS))
    contrast = min(1.0, quality.contrast / _FULL_CONTRAST)
    return max(0.01, pose * size * sharpness * contrast)


def _agreeing(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which samples are no outliers, bool [n].

    The distance of a sample is the median of its distances (1 - cosine) to the others; an outlier is more than twice as
    far as the median sample. So the scale is the samples' own, and one sample in four may be wrong without a say in
    it. Of fewer than four all stay: nobody can say which of them is wrong.
    """
    count = len(rows)
    if count < 4:
        return np.ones(count, np.bool_)
    to_others = (1 - rows @ rows.T)[~np.eye(count, dtype=np.bool_)].reshape(count, count - 1)
    distance = np.median(to_others, axis=1)
    return np.asarray(distance <= max(_OUTLIER * float(np.median(distance)), _SAME))


def _clusters(rows: NDArray[np.float64], most: int) -> list[list[int]]:
    """The samples in groups of like ones, as indices.

    Agglomerative with average linkage (Sokal and Michener 1958) on 1 - cosine: the two closest groups are joined until
    no two are closer than ``_APART`` times the usual distance between a sample and its nearest, and there are at most
    ``most``. It depends on nothing but the samples and their order.
    """
    distance = 1 - rows @ rows.T
    np.fill_diagonal(distance, np.inf)
    near = max(_APART * float(np.median(distance.min(axis=1))), _SAME)
    groups = [[index] for index in range(len(rows))]
    while len(groups) > 1:
        first, second = np.unravel_index(int(distance.argmin()), distance.shape)
        if distance[first, second] > near and len(groups) <= most:
            break
        # Average linkage after Lance and Williams: distances to the union are the weighted mean of those to its parts.
        sizes = len(groups[first]), len(groups[second])
        joined = (sizes[0] * distance[first] + sizes[1] * distance[second]) / sum(sizes)
        distance[first], distance[:, first] = joined, joined
        distance[first, first] = np.inf
        distance = np.delete(np.delete(distance, second, axis=0), second, axis=1)
        groups[first] += groups.pop(second)
    return groups


def _direction(rows: NDArray[np.float64]) -> Float32:
    """The direction of the mean of ``rows`` (float64 [n, dim]), as float32 [dim] of length 1.

    Rows that cancel each other out have no mean direction; they give a vector near zero, which nobody matches.
    """
    mean = rows.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)
