"""How a setting moves while training goes on: pure functions of progress, 0 at the first step and 1 at the last."""

import math


def ramp(progress: float, first: float, last: float, begin: float = 0.0, end: float = 1.0) -> float:
    """``first`` until ``begin``, ``last`` from ``end``, a straight line between them.

    For margin and scale, for the weights of several losses, and as a step for a doubt that sets in late.

    Args:
        progress: share of the training that is done, 0..1.
        first: value at the start.
        last: value at the end.
        begin: progress at which the line starts, 0..1.
        end: progress at which it ends, ``begin``..1; equal to ``begin`` makes a step: ``last`` from there on.

    Raises:
        ValueError: progress, begin or end is out of its range.
    """
    if not 0.0 <= progress <= 1.0 or not 0.0 <= begin <= end <= 1.0:
        raise ValueError(f"progress {progress}, begin {begin}, end {end}: 0..1 is needed, and begin <= end")
    if progress >= end:
        return last
    if progress <= begin:
        return first
    return first + (last - first) * (progress - begin) / (end - begin)


def cosine_ramp(progress: float, first: float, last: float, begin: float = 0.0, end: float = 1.0) -> float:
    """As ``ramp``, along half a cosine: it leaves and arrives without a kink (Loshchilov & Hutter 2017)."""
    return first + (last - first) * (1.0 - math.cos(math.pi * ramp(progress, 0.0, 1.0, begin, end))) / 2.0


def least_scale(classes: int, probability: float = 0.9) -> float:
    """The least scale of cosine logits at which a perfect sample can reach ``probability``, CosFace's equation 6.

    Below it the loss cannot become small, however good the embeddings are: s >= (C-1)/C ln((C-1) P / (1-P)), Wang et
    al. 2018, from class centres spread as far apart as they go.

    Args:
        classes: number of classes C, at least 2.
        probability: P, between 1 / C and 1, both excluded.

    Raises:
        ValueError: an argument is out of its range.
    """
    if classes < 2 or not 1.0 / classes < probability < 1.0:
        raise ValueError(
            f"{classes} classes, probability {probability}: 2 classes and 1/classes..1 are needed"
        )
    return (classes - 1) / classes * math.log((classes - 1) * probability / (1.0 - probability))
