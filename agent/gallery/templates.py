"""From the samples of a person to the one vector that stands for them."""

import numpy as np

from agent.perception.types import Float32


def template(samples: Float32) -> Float32:
    """The direction of the mean of ``samples`` (float32 [n, dim]), as float32 [dim] of length 1.

    Samples that cancel each other out have no mean direction; they give a vector near zero, which nobody matches.
    """
    mean = samples.astype(np.float64).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)
