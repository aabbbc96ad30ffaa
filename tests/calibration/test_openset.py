import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gallery.matcher import match
from agent.gallery.templates import templates
from agent.gallery.types import Sample, Snapshot
from agent.perception.types import Pose, Quality
from calibration.openset import (
    STEP,
    Gallery,
    Searches,
    compare,
    decide,
    divide,
    enrol,
    interval,
    joined,
    just_above,
    labelled,
    redrawn,
    search,
)

FAIR = Quality(50, 50, 120, 50, Pose(0, 0, 0))
MEAN = partial(templates, method="mean")


EVERYBODY = np.arange(40)


def test_each_look_either_is_enrolled_or_searches_once(crowd):
    looks = crowd(40, lambda who: 1 + who % 6)
    split = divide(looks, EVERYBODY, 15, 3, np.random.default_rng(0))
    used = np.concatenate([*split.enrolled, split.mated, split.strangers])
    assert sorted(used.tolist()) == list(range(len(looks.samples)))
    for who, indices in zip(split.people, split.enrolled, strict=True):
        assert set(looks.person[indices]) == {who}
    assert (looks.person[split.mated] == split.people[split.own]).all()
    assert not set(looks.person[split.strangers]) & set(split.people)


def test_those_with_enough_photographs_are_enrolled_first_and_one_is_left_to_search(crowd):
    looks = crowd(40, lambda who: 1 + who % 6)
    split = divide(looks, EVERYBODY, 25, 3, np.random.default_rng(1))
    sizes = [len(indices) for indices in split.enrolled]
    assert sizes == [3] * 19 + [2] * 6  # of 19 people there are 4 to 6 looks, of the next 3
    for who, indices in zip(split.people, split.enrolled, strict=True):
        assert len(indices) < len(looks.of_person[who])


def test_all_but_one_of_the_looks_can_be_enrolled(crowd):
    looks = crowd(10, lambda who: 1 + who % 5)
    split = divide(looks, np.arange(10), 6, None, np.random.default_rng(2))
    left = np.bincount(split.own, minlength=6)
    assert left.tolist() == [1] * 6


def as_snapshot(looks, split, gallery) -> Snapshot:
    sizes = np.diff([*gallery.first, len(gallery.templates)])
    names = tuple(looks.names[who] for who in split.people)
    return Snapshot(names, gallery.templates, np.repeat(np.arange(len(names)), sizes))


@pytest.mark.parametrize("method", ["mean", "clusters"])
@pytest.mark.parametrize("people", [1, 2, 12])
def test_searches_name_whom_the_agent_names(method, people, crowd):
    looks = crowd(40, lambda who: 1 + who % 6, spread=0.8)
    split = divide(looks, EVERYBODY, people, 3, np.random.default_rng(3))
    gallery = enrol(looks, split, partial(templates, method=method))
    searches = search(looks, split, gallery, margin=0.03)
    snapshot = as_snapshot(looks, split, gallery)
    probes = np.concatenate([split.mated, split.strangers])
    for threshold in (-1.0, 0.3, 0.6, 0.8):
        for look, score, right, mated in zip(
            probes, searches.score, searches.right, searches.mated, strict=True
        ):
            found = match(looks.embeddings[look], snapshot, threshold, 0.03)
            assert (found.person is not None) == (score >= threshold)
            if mated and found.person is not None:
                assert right == (found.person == looks.names[looks.person[look]])


def test_rates_are_shares_of_all_searches_those_without_a_face_included():
    searches = Searches(
        score=np.array([0.9, 0.8, 0.7, -np.inf, 0.75, 0.6, 0.5, -np.inf], np.float32),
        person=np.array([0, 0, 1, 2, 3, 4, 5, 6]),
        mated=np.array([True, True, True, True, False, False, False, False]),
        right=np.array([True, False, True, False, False, False, False, False]),
    )
    assert searches.dir(0.7) == 0.5
    assert searches.misnamed(0.7) == 0.25
    assert searches.fpir(0.6) == 0.5
    assert searches.fpir(-1) == 0.75
    curve = searches.curve()
    assert curve.tar[-1] == 0.5
    assert curve.far[-1] == 0.75


def test_a_look_without_a_face_names_nobody_and_cannot_be_enrolled():
    looks = labelled([("a", None), ("a", Sample(np.float32([1, 0]), FAIR)), ("b", None), ("b", None)])
    assert looks.undetected == 3
    split = divide(looks, np.arange(2), 2, 1, np.random.default_rng(0))
    gallery = enrol(looks, split, MEAN)
    searches = search(looks, split, gallery, 0.0)
    assert searches.dir(-1.0) == (1.0 if looks.samples[split.mated[0]] else 0.0) / 2
    nobody = enrol(looks, divide(looks, np.array([1]), 1, 1, np.random.default_rng(0)), MEAN)
    assert not nobody.templates.any()


@given(
    st.lists(st.floats(-1, 1, width=32) | st.just(-np.inf), min_size=1, max_size=60),
    st.floats(0, 1),
)
def test_the_threshold_is_the_least_that_keeps_the_promise(scores, fpir):
    count = len(scores)
    searches = Searches(
        np.array(scores, np.float32), np.arange(count), np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    )
    threshold = searches.threshold(fpir)
    assert searches.fpir(threshold) <= fpir + 1e-9
    assert threshold == -1 or searches.fpir(threshold - 1.5 * STEP) > fpir - 1e-9


def test_without_strangers_there_is_no_threshold():
    one = np.ones(1)
    with pytest.raises(ValueError, match="strangers"):
        Searches(one.astype(np.float32), one.astype(np.int64), one == 1, one == 1).threshold(0.1)


@given(st.floats(-1, 1, width=32))
def test_just_above_is_above_and_a_multiple_of_the_step(score):
    found = just_above(score)
    assert np.float32(score) < found <= score + 1.01 * STEP
    assert found == round(found, 4)


def test_nobody_leads_without_the_margin_and_alone_nobody_has_to():
    scores = np.array([[0.9, 0.86], [0.9, 0.89], [np.nan, np.nan]], np.float32)
    best, score = decide(scores, 0.03)
    assert best[0] == 0
    assert score.tolist() == [pytest.approx(0.9), -math.inf, -math.inf]
    assert decide(scores[:, :1], 0.03)[1].tolist() == [pytest.approx(0.9)] * 2 + [-math.inf]


def test_the_best_of_several_templates_speaks_for_a_person():
    gallery = Gallery(np.eye(3, dtype=np.float32), np.array([0, 2]))
    assert gallery.scores(np.float32([[0.1, 0.9, 0.3]])).tolist() == [
        [pytest.approx(0.9), pytest.approx(0.3)]
    ]


def test_each_look_is_compared_with_each_person_for_one_to_one(crowd):
    looks = crowd(12, lambda who: 4)
    split = divide(looks, np.arange(12), 5, 3, np.random.default_rng(4))
    pairs = compare(looks, split, enrol(looks, split, MEAN))
    assert len(pairs.score) == 5 * (5 + 7 * 4)
    assert pairs.mated.sum() == 5
    assert pairs.score[pairs.mated].mean() > pairs.score[~pairs.mated].mean() + 0.3


def test_intervals_hold_the_truth_and_narrow_with_more_people():
    """Searches of a known law: DIR at FPIR 10 % of two normal distributions two deviations apart is 76.4 %."""
    widths = []
    for people in (100, 1600):
        rng = np.random.default_rng(people)
        held = 0
        for trial in range(20):
            score = np.concatenate([rng.normal(2, 1, people), rng.normal(0, 1, people)]).astype(np.float32)
            mated = np.arange(2 * people) < people
            drawn = redrawn(
                [Searches(score, np.arange(2 * people), mated, mated)], 0.1, seed=trial, rounds=200
            )
            low, high = interval(drawn[:, 0])
            held += low <= 0.7637 <= high
        widths.append(high - low)
        assert held >= 16
    assert widths[1] < widths[0] / 2


def test_looks_at_one_person_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    score = rng.normal(0, 1, 200).astype(np.float32)
    mated = np.arange(200) < 100
    score[mated] += 2
    one = Searches(score, np.arange(200), mated, mated)
    ten = joined([one] * 10)  # the same looks ten times over
    first, second = (interval(redrawn([each], 0.1, seed=1)[:, 0]) for each in (one, ten))
    assert first == pytest.approx(second, abs=0.02)


def test_methods_are_compared_on_the_same_draws(crowd):
    looks = crowd(40, lambda who: 4, spread=0.9)
    split = divide(looks, EVERYBODY, 15, 3, np.random.default_rng(5))
    searches = search(looks, split, enrol(looks, split, MEAN), 0.0)
    drawn = redrawn([searches, searches], 0.1, seed=2, rounds=50)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert drawn[:, 0].std() > 0
