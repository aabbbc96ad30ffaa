"""LAME draws answers to like faces together, and never looks ahead."""

import numpy as np
import onnx
import pytest

from agent.perception.vote import softmax
from calibration.baselines.lame import Lame, affinity, corrected_answers, head_input
from calibration.baselines.method import Frozen, Source

PROBABILITIES = np.array([[0.8, 0.2], [0.6, 0.4], [0.45, 0.55], [0.1, 0.9]])


def test_without_neighbours_answers_stay():
    found = corrected_answers(PROBABILITIES, np.zeros((4, 4)))
    assert found == pytest.approx(PROBABILITIES, abs=1e-6)


def test_the_answer_is_the_papers_fixed_point():
    graph = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], float)
    found = corrected_answers(PROBABILITIES, graph)
    assert found == pytest.approx(softmax(np.log(PROBABILITIES) + graph @ found), abs=1e-4)
    # The third is drawn over to its neighbour's label; the last has no neighbour.
    assert found.argmax(1).tolist() == [0, 0, 0, 1]
    assert found[3] == pytest.approx(PROBABILITIES[3], abs=1e-6)


def test_one_step_by_hand():
    graph = np.array([[0.0, 1.0], [0.0, 0.0]])
    found = corrected_answers(np.array([[0.5, 0.5], [0.9, 0.1]]), graph)
    weight = np.exp([0.9, 0.1]) * 0.5
    assert found[0] == pytest.approx(weight / weight.sum(), abs=1e-6)


def test_the_nearest_by_angle_are_neighbours():
    features = np.array([[1, 0], [10, 1], [0, 1], [1, 9]], float)
    assert affinity(features, 1).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    assert affinity(features[:1]).tolist() == [[0]]
    assert affinity(features, 5).sum(1).tolist() == [3, 3, 3, 3]


def test_an_answer_depends_on_frames_before_it_alone(small):
    rng = np.random.default_rng(0)
    chips = rng.integers(0, 256, (16, 24, 24, 3), np.uint8)
    source = Source(small, chips)
    where = np.zeros(16, np.int64), np.zeros(16)
    first, _ = Lame(source).step(chips, *where)
    changed = chips.copy()
    changed[10:] = rng.integers(0, 256, (6, 24, 24, 3), np.uint8)
    second, _ = Lame(source).step(changed, *where)
    assert (first[:10] == second[:10]).all()
    frozen, _ = Frozen(source).step(chips, *where)
    assert softmax(first[0]) == pytest.approx(softmax(frozen[0]), abs=1e-5)


def test_features_are_what_the_expression_head_reads(small, pack):
    assert head_input(small) == "pool"
    assert head_input(onnx.load(str(pack.face))) == "emotion.pool"
