import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.metrics import (
    accuracy,
    at_threshold,
    best_threshold,
    classify,
    folded_accuracy,
    roc,
    tar_at_far,
    tar_interval,
)

# Few distinct scores, so that ties are common; None is a pair in which a face was not found.
SCORE = st.one_of(st.none(), st.integers(-3, 3).map(float))


@st.composite
def pairs(draw):
    """Scores with at least one pair of each kind."""
    kinds = [True, False, *draw(st.lists(st.booleans(), max_size=30))]
    scores = draw(st.lists(SCORE, min_size=len(kinds), max_size=len(kinds)))
    return np.array([math.nan if s is None else s for s in scores]), np.array(kinds)


def naive_rates(scores, genuine, threshold):
    """FAR and TAR, counted pair by pair."""
    accepted = {True: 0, False: 0}
    total = {True: 0, False: 0}
    for score, kind in zip(scores, genuine, strict=True):
        total[bool(kind)] += 1
        if not math.isnan(score) and score >= threshold:
            accepted[bool(kind)] += 1
    return accepted[False] / total[False], accepted[True] / total[True]


def naive_accuracy(scores, genuine, threshold):
    """A pair without a score is wrong, whatever it shows."""
    right = 0
    for score, kind in zip(scores, genuine, strict=True):
        if not math.isnan(score) and (score >= threshold) == kind:
            right += 1
    return right / len(scores)


def candidates(scores):
    return [math.inf, *sorted({float(s) for s in scores if not math.isnan(s)})]


@given(pairs())
def test_every_point_of_the_roc_is_what_counting_pair_by_pair_gives(data):
    scores, genuine = data
    curve = roc(scores, genuine)
    assert curve.threshold.tolist() == sorted(candidates(scores), reverse=True)
    for threshold, far, tar in zip(curve.threshold, curve.far, curve.tar, strict=True):
        assert (far, tar) == pytest.approx(naive_rates(scores, genuine, threshold))


@given(pairs(), st.floats(0, 1))
def test_no_threshold_within_the_allowed_far_accepts_more_genuine_pairs(data, far):
    scores, genuine = data
    point = tar_at_far(scores, genuine, far)
    assert (point.far, point.tar) == pytest.approx(naive_rates(scores, genuine, point.threshold))
    assert point.far <= far
    allowed = [naive_rates(scores, genuine, t) for t in candidates(scores)]
    assert point.tar == max(tar for rate, tar in allowed if rate <= far)


@given(pairs())
def test_no_threshold_is_right_more_often_than_the_best(data):
    scores, genuine = data
    best = naive_accuracy(scores, genuine, best_threshold(scores, genuine))
    assert best == pytest.approx(max(naive_accuracy(scores, genuine, t) for t in candidates(scores)))


@given(pairs(), st.floats(-4, 4))
def test_rates_and_accuracy_at_a_given_threshold(data, threshold):
    scores, genuine = data
    point = at_threshold(scores, genuine, threshold)
    assert (point.far, point.tar) == naive_rates(scores, genuine, threshold)
    assert accuracy(scores, genuine, threshold) == naive_accuracy(scores, genuine, threshold)


def test_ten_pairs_worked_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.85, 0.5, 0.4, 0.3, 0.1])
    genuine = np.array([True] * 5 + [False] * 5)
    # Falling: .9g .85i .8g .7g .6g .5i .4i .3i .2g .1i
    strict, loose = tar_at_far(scores, genuine, 0.0), tar_at_far(scores, genuine, 0.2)
    assert (strict.threshold, strict.far, strict.tar) == (0.9, 0.0, 0.2)
    assert (loose.threshold, loose.far, loose.tar) == (0.6, 0.2, 0.8)
    assert (
        tar_at_far(scores, genuine, 0.19).tar == 0.2
    )  # one impostor of five is 0.2: nothing is interpolated
    assert best_threshold(scores, genuine) == 0.6
    assert accuracy(scores, genuine, 0.6) == 0.8


def test_a_far_that_is_met_exactly_is_allowed():
    scores = np.concatenate([[2.0], np.full(999, 0.0), [1.0]])
    genuine = np.array([False] * 1000 + [True])
    point = tar_at_far(scores, genuine, 0.001)
    assert (point.threshold, point.far, point.tar) == (1.0, 0.001, 1.0)


def test_pairs_of_equal_score_are_accepted_together():
    point = tar_at_far(np.array([0.5, 0.5, 0.4]), np.array([True, False, False]), 0.0)
    assert (point.threshold, point.far, point.tar) == (math.inf, 0.0, 0.0)


def test_a_face_that_was_not_found_is_a_failure_and_never_an_advantage():
    genuine = np.array([True, True, False, False])
    found = np.array([0.9, 0.8, 0.2, 0.1])
    lost_genuine = np.array([0.9, math.nan, 0.2, 0.1])
    lost_impostor = np.array([0.9, 0.8, math.nan, 0.1])
    assert accuracy(found, genuine, 0.5) == 1
    assert accuracy(lost_genuine, genuine, 0.5) == 0.75
    assert accuracy(lost_impostor, genuine, 0.5) == 0.75
    assert tar_at_far(found, genuine, 0.0).tar == 1
    assert tar_at_far(lost_genuine, genuine, 1.0).tar == 0.5
    assert tar_at_far(lost_impostor, genuine, 0.0).tar == 1


def test_when_no_face_was_found_at_all_nothing_is_accepted():
    scores, genuine = np.full(4, math.nan), np.array([True, True, False, False])
    assert tar_at_far(scores, genuine, 0.5).threshold == math.inf
    assert folded_accuracy(scores, genuine, np.array([0, 1, 0, 1])).accuracy.tolist() == [0, 0]


def test_a_roc_of_one_kind_of_pairs_is_refused():
    with pytest.raises(ValueError, match="genuine and impostor"):
        roc(np.array([0.1, 0.2]), np.array([True, True]))


def test_each_fold_is_tested_with_the_threshold_of_the_others():
    # Fold 0 parts at 0.5, fold 1 at 0.8: each is tested at the other's threshold.
    scores = np.array([0.6, 0.4, 0.9, 0.7])
    genuine = np.array([True, False, True, False])
    folded = folded_accuracy(scores, genuine, np.array([0, 0, 1, 1]))
    assert folded.threshold.tolist() == [0.9, 0.6]
    assert folded.accuracy.tolist() == [0.5, 0.5]


def test_of_equally_good_thresholds_the_middle_one_is_taken():
    scores = np.array([0.9, 0.8, 0.5, 0.1])
    genuine = np.array([True, False, True, False])
    # Accepting 1 or 3 pairs is right three times: at 0.9 and at 0.5.
    assert best_threshold(scores, genuine) in {0.9, 0.5}
    flat = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    kinds = np.array([False, True, False, True, False, True])
    # Right: 3 at inf, 2 at 0.9, 3 at 0.8, 2 at 0.7, 3 at 0.6, 2 at 0.5, 3 at 0.4.
    assert best_threshold(flat, kinds) == 0.6


def test_the_interval_is_the_same_each_time_and_holds_the_figure():
    rng = np.random.default_rng(5)
    genuine = np.arange(600) < 300
    scores = rng.normal(0, 1, 600) + 3 * genuine
    low, high = tar_interval(scores, genuine, 0.01, seed=1, rounds=200)
    assert (low, high) == tar_interval(scores, genuine, 0.01, seed=1, rounds=200)
    assert low < tar_at_far(scores, genuine, 0.01).tar < high


def test_the_interval_covers_the_true_rate_about_as_often_as_it_says():
    # Unit normals 3 apart: at FAR 10 % the true TAR is P(z > 1.2816 - 3) = 95.71 %.
    rng = np.random.default_rng(7)
    genuine = np.arange(800) < 400
    covered = 0
    for seed in range(40):
        low, high = tar_interval(rng.normal(0, 1, 800) + 3 * genuine, genuine, 0.1, seed=seed, rounds=100)
        covered += low <= 0.9571 <= high
    assert covered >= 33  # 38 expected; 32 or fewer would come less than once in a thousand runs


def test_the_interval_of_perfect_scores_is_a_point():
    genuine = np.arange(40) < 20
    assert tar_interval(genuine.astype(float), genuine, 0.001, seed=0, rounds=50) == (1, 1)


LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(LABELS)
def test_classification_is_what_counting_one_by_one_gives(answers):
    true, predicted = (np.array(each) for each in zip(*answers, strict=True))
    result = classify(true, predicted, 5)
    for row in range(5):
        for column in range(5):
            assert result.confusion[row, column] == answers.count((row, column))
    assert result.accuracy == pytest.approx(sum(t == p for t, p in answers) / len(answers))
    recalls = []
    for label in range(5):
        of_class = [p for t, p in answers if t == label]
        named = [t for t, p in answers if p == label]
        recall = of_class.count(label) / len(of_class) if of_class else 0
        assert result.recall[label] == pytest.approx(recall)
        assert result.precision[label] == pytest.approx(named.count(label) / len(named) if named else 0)
        if of_class:
            recalls.append(recall)
    assert result.balanced_accuracy == pytest.approx(sum(recalls) / len(recalls))


def test_four_answers_worked_by_hand():
    result = classify(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    assert result.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert result.accuracy == 0.75
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)  # class 2 does not occur
    assert result.precision.tolist() == [1, 0.5, 0]
