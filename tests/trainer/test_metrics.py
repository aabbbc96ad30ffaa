import numpy as np
import pytest

from trainer.metrics import best_temperature, measure


def test_metrics_of_four_answers_worked_by_hand():
    logits = np.log(np.float32([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))
    metrics = measure(logits, np.array([0, 0, 1, 1]))
    assert metrics.accuracy == 0.75
    assert metrics.balanced_accuracy == 0.75  # class 2 does not occur and does not count
    assert metrics.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert metrics.nll == pytest.approx(-(3 * np.log(0.8) + np.log(0.1)) / 4)
    assert metrics.calibration_error == pytest.approx(0.05)


def test_the_temperature_that_made_the_logits_too_sharp_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 7)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1).clip(0, 6)
    assert best_temperature(logits * np.float32(1.7), labels) == pytest.approx(1.7, rel=0.05)
