"""How good scores and labels are; pure arithmetic on arrays.

Verification: a pair of faces has a cosine, and is accepted when that is at or above a threshold. A pair in which a face
was not found has no score: NaN. Nothing is left out of the count because of it, as in ISO/IEC 19795-1:

- such a pair is never accepted, so a genuine one lowers TAR at every threshold, and an impostor does not raise FAR;
- for accuracy it is wrong, genuine or not: the system could not answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Roc:
    """Rates at every threshold that makes a difference, from the strictest on: one point for each distinct score.

    Attributes:
        threshold: float64 [n], falling; the first is infinite (nothing is accepted).
        far: float64 [n], rising: share of the impostor pairs that are accepted.
        tar: float64 [n], rising: share of the genuine pairs that are accepted.
    """

    threshold: NDArray[np.float64]
    far: NDArray[np.float64]
    tar: NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold gives: accept from ``threshold`` on."""

    threshold: float
    far: float
    tar: float


@dataclass(frozen=True)
class FoldedAccuracy:
    """Accuracy over folds, each with the threshold that was best on the others.

    Attributes:
        accuracy: float64 [folds].
        threshold: float64 [folds].
    """

    accuracy: NDArray[np.float64]
    threshold: NDArray[np.float64]


@dataclass(frozen=True)
class Classification:
    """How predicted labels fit the true ones.

    Attributes:
        confusion: int64 [classes, classes]: how often the row's class was taken for the column's.
        accuracy: share of right answers.
        balanced_accuracy: mean recall of the classes that occur.
        recall: float64 [classes]: share of a class that was found; 0 for a class that does not occur.
        precision: float64 [classes]: share of right answers among those that name a class; 0 for one never named.
    """

    confusion: NDArray[np.int64]
    accuracy: float
    balanced_accuracy: float
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]


def roc(scores: Scores, genuine: Mask) -> Roc:
    """The ROC of pairs.

    Args:
        scores: float [n]; NaN where a face was not found.
        genuine: bool [n]: the pair shows one person.

    Raises:
        ValueError: there is no genuine or no impostor pair.
    """
    positives, negatives = int(genuine.sum()), int((~genuine).sum())
    if not positives or not negatives:
        raise ValueError("a ROC needs genuine and impostor pairs")
    scored = ~np.isnan(scores)
    order = np.argsort(-scores[scored], kind="stable")
    falling = scores[scored][order].astype(np.float64)
    accepted = genuine[scored][order]
    # Pairs of equal score are accepted together: a point stands behind the last of them.
    last = np.append(falling[1:] != falling[:-1], True) if len(falling) else np.zeros(0, np.bool_)
    return Roc(
        threshold=np.concatenate([[np.inf], falling[last]]),
        far=np.concatenate([[0], np.cumsum(~accepted)[last] / negatives]),
        tar=np.concatenate([[0], np.cumsum(accepted)[last] / positives]),
    )


def tar_at_far(scores: Scores, genuine: Mask, far: float) -> OperatingPoint:
    """The most generous threshold whose FAR is at most ``far``: no other has a greater TAR without exceeding it.

    Nothing is interpolated: a rate that the pairs cannot show exactly is undercut. The threshold is a score that was
    seen, or infinite where even the best score would accept too many impostors.

    Args:
        scores: float [n]; NaN where a face was not found.
        genuine: bool [n].
        far: greatest share of impostor pairs accepted, 0 to 1.
    """
    curve = roc(scores, genuine)
    best = int(np.searchsorted(curve.far, far, side="right")) - 1
    return OperatingPoint(float(curve.threshold[best]), float(curve.far[best]), float(curve.tar[best]))


def equal_error_rate(curve: Roc) -> float:
    """The rate at which as many impostor pairs are accepted as genuine ones are refused.

    Between the two points of the curve that lie around it, the mean of both rates at the nearer.
    """
    gap = np.abs(curve.far - (1 - curve.tar))
    nearest = int(gap.argmin())
    return float((curve.far[nearest] + 1 - curve.tar[nearest]) / 2)


def at_threshold(scores: Scores, genuine: Mask, threshold: float) -> OperatingPoint:
    """FAR and TAR of a given threshold."""
    accepted = scores >= threshold
    return OperatingPoint(threshold, float(accepted[~genuine].mean()), float(accepted[genuine].mean()))


def tar_interval(
    scores: Scores, genuine: Mask, far: float, *, seed: int, rounds: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron and Tibshirani 1993) of TAR at a FAR.

    Genuine and impostor pairs are drawn anew, each kind among itself, and the threshold is chosen anew each time: the
    interval holds the chance in the threshold too. Pairs that share a photograph are not independent, so it is a
    little too narrow.

    Args:
        scores: float [n]; NaN where a face was not found.
        genuine: bool [n].
        far: as in ``tar_at_far``.
        seed: of the random draws.
        rounds: how often the pairs are drawn.
        level: share of the draws between the two ends.

    Returns:
        Lower and upper end.
    """
    rng = np.random.default_rng(seed)
    kinds = np.flatnonzero(genuine), np.flatnonzero(~genuine)
    tars = np.empty(rounds)
    for index in range(rounds):
        drawn = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        tars[index] = tar_at_far(scores[drawn], genuine[drawn], far).tar
    low, high = np.quantile(tars, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def accuracy(scores: Scores, genuine: Mask, threshold: float) -> float:
    """Share of pairs that are answered rightly at a threshold; one without a score is not."""
    right = (scores >= threshold) == genuine
    return float((right & ~np.isnan(scores)).mean())


def best_threshold(scores: Scores, genuine: Mask) -> float:
    """The threshold of greatest accuracy; of several that are equally good, the middle one."""
    curve = roc(scores, genuine)
    # Right answers: genuine pairs accepted, impostors not. That undetected impostors are wrong lowers all alike.
    right = curve.tar * genuine.sum() - curve.far * (~genuine).sum()
    best = np.flatnonzero(right > right.max() - 0.5)  # whole numbers, but for rounding
    return float(curve.threshold[best[len(best) // 2]])


def folded_accuracy(scores: Scores, genuine: Mask, fold: Labels) -> FoldedAccuracy:
    """The protocol of LFW's view 2 (Huang et al. 2007): each fold is tested with the threshold of all others.

    Args:
        scores: float [n]; NaN where a face was not found.
        genuine: bool [n].
        fold: int [n], the fold of each pair.
    """
    names = np.unique(fold)
    thresholds = np.array([best_threshold(scores[fold != k], genuine[fold != k]) for k in names])
    shares = [
        accuracy(scores[fold == k], genuine[fold == k], t) for k, t in zip(names, thresholds, strict=True)
    ]
    return FoldedAccuracy(np.array(shares), thresholds)


def classify(true: Labels, predicted: Labels, classes: int) -> Classification:
    """Compare predicted labels with the true ones.

    Args:
        true: int [n ≥ 1], 0 to ``classes`` - 1.
        predicted: int [n], likewise.
        classes: how many there are.
    """
    confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
    found = confusion.diagonal()
    occurring, named = confusion.sum(axis=1), confusion.sum(axis=0)
    recall = found / np.maximum(occurring, 1)
    return Classification(
        confusion=confusion.astype(np.int64),
        accuracy=float(found.sum() / len(true)),
        balanced_accuracy=float(recall[occurring > 0].mean()),
        recall=recall,
        precision=found / np.maximum(named, 1),
    )
