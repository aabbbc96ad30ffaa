import dataclasses

import msgspec
import numpy as np
import pytest

from calibration.halves import TooFewError, halves
from calibration.identification import METHODS, choose, report
from calibration.lfw import calibrates


@pytest.fixture(scope="module")
def figures(crowd):
    """Of a crowd in which each is like a few others: the first half's report."""
    looks = crowd(240, lambda who: 1 + who % 8, spread=0.6, dim=12)
    return report(halves(looks, 30, 0.0)[0])


def test_nobody_stands_in_both_halves(crowd):
    looks = crowd(200, lambda who: 1 + who % 4)
    first, second = halves(looks, 30, 0.0, splits=3)
    assert not set(first.people) & set(second.people)
    assert len(first.people) + len(second.people) == 200
    for half, side in ((first, True), (second, False)):
        assert len(half.splits) == 3
        for split in half.splits:
            taking_part = {*split.people, *looks.person[split.strangers]}
            assert taking_part == set(half.people)
            assert {calibrates(looks.names[who]) for who in taking_part} == {side}


def test_the_reported_half_has_no_say_in_what_is_chosen(crowd):
    looks = crowd(120, lambda who: 1 + who % 6, dim=10)
    first, second = halves(looks, 20, 0.0)
    rng = np.random.default_rng(0)
    others = set(second.people.tolist())
    scrambled = []
    for sample, who in zip(looks.samples, looks.person, strict=True):
        row = rng.normal(size=10).astype(np.float32)
        moved = dataclasses.replace(sample, embedding=row / np.linalg.norm(row))
        scrambled.append(moved if who in others else sample)
    changed = halves(dataclasses.replace(looks, samples=scrambled), 20, 0.0)
    assert changed[0].searches("mean").threshold(0.01) == first.searches("mean").threshold(0.01)
    assert changed[1].searches("mean").threshold(0.01) != second.searches("mean").threshold(0.01)


def test_the_report_holds_every_method_with_every_number_of_photographs(figures):
    assert [row.method for row in figures.open_set] == list(METHODS)
    cells = {(row.images, row.foreign, row.method) for row in figures.by_images}
    assert cells == {
        (images, foreign, method)
        for images, foreign in ((1, False), (3, False), (5, False), (5, True))
        for method in METHODS
    }
    assert figures.enrolled == 30
    assert figures.in_full == 30  # there are enough people with four photographs or more
    assert msgspec.json.decode(msgspec.json.encode(figures))["many"] == figures.many


def test_the_figures_are_what_they_say(figures):
    rows = {(row.images, row.method): row for row in figures.by_images if not row.foreign}
    for row in rows.values():
        assert 0 <= row.dir["0.001"] <= row.dir["0.01"] <= row.dir["0.1"] <= 1
        low, high = row.dir_interval
        assert low <= row.dir["0.01"] <= high
        assert row.tar_interval[0] <= row.tar["0.001"] <= row.tar_interval[1]
    for method in METHODS:
        assert rows[1, method].dir == rows[1, "mean"].dir  # of one photograph each makes the same
        assert rows[5, method].dir["0.1"] > rows[1, method].dir["0.1"]
    assert rows[1, "clusters"].templates == 1
    assert rows[5, "mean"].templates == 1
    simplest = figures.open_set[0]
    assert simplest.gain == 0
    assert simplest.gain_interval == (0, 0)


def test_a_photograph_of_somebody_else_hurts_the_mean_more_than_the_trimmed_mean(figures):
    spoiled = {row.method: row for row in figures.by_images if row.foreign}
    clean = {row.method: row for row in figures.by_images if row.images == 5 and not row.foreign}
    assert spoiled["mean"].dir["0.1"] < clean["mean"].dir["0.1"]
    assert spoiled["trimmed"].dir["0.1"] > spoiled["mean"].dir["0.1"]
    assert spoiled["trimmed"].gain > 0


def test_of_equally_good_methods_the_simplest_is_chosen_unless_another_bears_a_wrong_photograph(figures):
    def seen(good: dict[str, bool], gains: dict[str, tuple[float, float]]):
        """The report, as if these methods were among the best, and these better than the mean by an interval."""
        many = [
            msgspec.structs.replace(
                row,
                best=good[row.method],
                gain=sum(gains.get(row.method, (0, 0))) / 2 if row.foreign else 0.0,
                gain_interval=gains.get(row.method, (0.0, 0.0)) if row.foreign else (0.0, 0.0),
            )
            for row in figures.by_images
        ]
        large = [msgspec.structs.replace(row, best=good[row.method]) for row in figures.open_set]
        return msgspec.structs.replace(figures, by_images=many, open_set=large)

    every = dict.fromkeys(METHODS, True)
    assert choose(seen(every, {})) == "mean"
    assert choose(seen(every | {"mean": False}, {})) == "trimmed"
    assert choose(seen(every, {"weighted": (0.01, 0.03)})) == "weighted"
    assert choose(seen(every, {"weighted": (-0.01, 0.03)})) == "mean"
    assert choose(seen(every, {"trimmed": (0.01, 0.03), "clusters": (0.02, 0.06)})) == "clusters"
    assert choose(seen(every | {"clusters": False}, {"clusters": (0.2, 0.6)})) == "mean"


def test_too_few_people_are_counted(crowd):
    with pytest.raises(TooFewError, match=r"12 people, .* at least 10 are needed in each half"):
        halves(crowd(12, lambda who: 3), 5, 0.0)
    with pytest.raises(TooFewError, match="0 of these with two"):
        halves(crowd(60, lambda who: 1), 5, 0.0)
