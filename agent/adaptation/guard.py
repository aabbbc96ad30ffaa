"""Whether proposed norms may run: what they make of chips held aside, beside what the source makes of them. Pure."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Float32
from agent.perception.vote import softmax


@dataclass(frozen=True, slots=True)
class Limits:
    """What proposed norms must keep to.

    Attributes:
        chips: fewest held-aside chips to judge by.
        cosine: least mean cosine between the source's embedding of a chip and the proposed one: the people who are
            enrolled were enrolled with the source.
        entropy: by how many nats the mean entropy of the expressions may rise.
        top_share: by how much the share of the most frequent expression may rise: towards 1 it collapses.
        tracks: fewest tracks of which that can be said: one face may well keep one expression.
        fall: by how many nats the mean entropy may fall: what learns from its own answers makes itself sure of them.
        changed: share of the chips whose most likely expression may be another one.
    """

    chips: int = 6
    cosine: float = 0.9
    entropy: float = 0.25
    top_share: float = 0.35
    tracks: int = 3
    fall: float = math.inf
    changed: float = 1.0


def judge(
    before: tuple[Float32, Float32], after: tuple[Float32, Float32], tracks: int, limits: Limits
) -> tuple[str, dict[str, float]]:
    """Why proposed norms are refused, empty if they are not; and the figures behind it.

    Args:
        before: embeddings float32 [n, dim] of length 1 and logits float32 [n, labels] of the held-aside chips, as the
            source has them.
        after: the same, as the proposal has them.
        tracks: number of tracks that the chips are of.
        limits: to keep to.

    Returns:
        A code (``too_few``, ``not_finite``, ``drift``, ``uncertain``, ``too_sure``, ``changed``, ``collapse``), and
        figures.
    """
    figures = {"chips": float(len(before[0])), "tracks": float(tracks)}
    if len(before[0]) < limits.chips:
        return "too_few", figures
    if not all(np.isfinite(each).all() for each in after):
        return "not_finite", figures
    was, becomes = (softmax(logits.astype(np.float64)) for _, logits in (before, after))
    figures |= {
        "cosine": float((before[0] * after[0]).sum(axis=1).mean()),
        "entropy_before": float(entropy(was).mean()),
        "entropy_after": float(entropy(becomes).mean()),
        "top_share_before": _top_share(was),
        "top_share_after": _top_share(becomes),
        "changed": float((was.argmax(axis=1) != becomes.argmax(axis=1)).mean()),
    }
    if figures["cosine"] < limits.cosine:
        return "drift", figures
    if figures["entropy_after"] > figures["entropy_before"] + limits.entropy:
        return "uncertain", figures
    if figures["entropy_after"] < figures["entropy_before"] - limits.fall:
        return "too_sure", figures
    if figures["changed"] > limits.changed:
        return "changed", figures
    risen = figures["top_share_after"] - figures["top_share_before"]
    if tracks >= limits.tracks and risen > limits.top_share:
        return "collapse", figures
    return "", figures


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row of [n, labels], nats."""
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1), np.float64)


def _top_share(probabilities: NDArray[np.float64]) -> float:
    """Share of the rows that name the most frequent label."""
    return float(np.bincount(probabilities.argmax(axis=1)).max() / len(probabilities))
