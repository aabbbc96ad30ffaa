"""What is measured on a split, from logits and labels; pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """How well logits fit labels."""

    accuracy: float
    balanced_accuracy: float  # mean over the classes that occur of the share found
    nll: float  # mean negative log-likelihood, in nats
    calibration_error: float  # expected calibration error, 15 equal bins (Guo et al. 2017)
    confusion: NDArray[np.int64]  # [true, predicted]


def measure(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Metrics:
    """Metrics of logits [N, classes] and labels [N]."""
    log_p = log_softmax(logits)
    predicted = log_p.argmax(axis=1)
    classes = logits.shape[1]
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    occurring = confusion.sum(axis=1) > 0
    recall = confusion.diagonal()[occurring] / confusion.sum(axis=1)[occurring]
    right = predicted == labels
    return Metrics(
        accuracy=float(right.mean()),
        balanced_accuracy=float(recall.mean()),
        nll=float(-log_p[np.arange(len(labels)), labels].mean()),
        calibration_error=_calibration_error(np.exp(log_p.max(axis=1)), right),
        confusion=confusion.astype(np.int64),
    )


def best_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The divisor of logits, in 0.3 to 3, that gives the least negative log-likelihood (Guo et al. 2017)."""
    candidates = np.geomspace(0.3, 3.0, 231)  # steps of 1 %
    rows = np.arange(len(labels))
    losses = [-log_softmax(logits / np.float32(t))[rows, labels].mean() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithm of the softmax of each row, float64 [N, classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    out: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence, weighted by their counts."""
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))
