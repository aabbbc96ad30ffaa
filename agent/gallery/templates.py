"""From the samples of a person to the vectors that stand for them."""

from collections.abc import Sequence

import numpy as np

from agent.gallery.types import Sample
from agent.perception.types import Float32


def templates(samples: Sequence[Sample]) -> Float32:
    """The templates of one person, float32 [k, dim]: here one, the direction of the mean of the embeddings.

    Args:
        samples: at least one, of one pack.
    """
    return _direction(np.stack([sample.embedding for sample in samples]))[None]


def _direction(rows: Float32) -> Float32:
    """The direction of the mean of ``rows`` (float32 [n, dim]), as float32 [dim] of length 1.

    Rows that cancel each other out have no mean direction; they give a vector near zero, which nobody matches.
    """
    mean = rows.astype(np.float64).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)
