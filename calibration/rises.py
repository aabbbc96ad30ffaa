"""By how much the identity threshold rises in a condition; see ``agent.adaptation.rise``.

Spoiled faces are asked of the condition's network, and compared with the clean faces of all other people as the source
sees them: these were enrolled. The threshold that lets as many of them in as the source lets in of clean faces is the
one wanted.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.adaptation.rise import HIGHEST
from agent.perception.types import Float32

FARS = (1e-2, 1e-3, 1e-4)
"""Shares of strangers let in. Of the rises at these the greatest counts: a threshold may be for one person or for five
hundred."""

_LEAST = 10  # pairs let in, below which a share is chance
_STEP = 1e-4  # rises are rounded up to this


def rise(
    probes: Float32, clean: Float32, asked: NDArray[np.int64], templates: Float32, enrolled: NDArray[np.int64]
) -> float:
    """The rise for a condition, 0 to ``HIGHEST``.

    Args:
        probes: float32 [n, dim] of length 1: spoiled faces, by the condition's network.
        clean: float32 [n, dim]: the same faces unspoiled, by the source.
        asked: int64 [n]: whose they are.
        templates: float32 [m, dim]: clean faces, by the source.
        enrolled: int64 [m]: whose they are.

    Raises:
        ValueError: all faces are of one person.
    """
    strangers = asked[:, None] != enrolled[None, :]
    if not strangers.any():
        raise ValueError("faces of one person only")
    before, after = (np.sort((each @ templates.T)[strangers])[::-1] for each in (clean, probes))
    return between(before, after, FARS)


def between(before: Float32, after: Float32, fars: Sequence[float]) -> float:
    """The greatest rise from what is let in of ``before`` to as much of ``after``.

    Args:
        before: float32 [n]: cosines of strangers, falling.
        after: float32 [n], likewise.
        fars: shares that are let in; those of fewer than ten pairs are passed over, but for the first.
    """
    found = [0.0]
    for index, far in enumerate(fars):
        most = int(far * len(before))
        if most < _LEAST and index:
            break
        old, new = float(before[most]), float(after[most])
        if old < 1:
            found.append((new - old) / (1 - old))
    return min(math.ceil(max(found) / _STEP - 1e-6) * _STEP, HIGHEST)
