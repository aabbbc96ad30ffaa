"""What a network is calibrated on is balanced, the same each time, and written down."""

from itertools import pairwise

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.representative import QUANTILES, choose, describe, plot

BINS = len(QUANTILES) + 1


def some_traits(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "brightness": rng.normal(120, 30, count),
        "sharpness": rng.lognormal(4, 1, count),
        "yaw": rng.normal(0, 12, count),
        "size": rng.gamma(4, 10, count),
    }


def shares(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    bins = np.searchsorted(np.quantile(values, QUANTILES), values, side="right")
    return np.bincount(bins[chosen], minlength=BINS) / len(chosen)


@pytest.mark.parametrize("seed", range(3))
def test_every_bin_of_every_trait_gets_its_share(seed):
    traits = some_traits(2000, seed)
    chosen = choose(traits, 200, seed)
    for name, values in traits.items():
        assert np.abs(shares(values, chosen) - 1 / BINS).max() < 0.02, name


def test_what_is_rare_is_taken_more_often_than_it_occurs():
    traits = {"brightness": some_traits(1000)["brightness"]}
    dark = traits["brightness"] < np.quantile(traits["brightness"], 0.1)
    chosen = choose(traits, 100, 0)
    assert dark[chosen].mean() == pytest.approx(0.2)


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 5), st.integers(0, 1000))
def test_as_many_as_asked_for_are_chosen_none_twice_and_always_the_same(total, count, seed, data):
    traits = some_traits(total, data)
    chosen = choose(traits, count, seed)
    assert len(chosen) == min(total, count)
    assert (np.diff(chosen) > 0).all()
    assert 0 <= chosen.min() <= chosen.max() < total
    assert (choose(traits, count, seed) == chosen).all()


@given(st.integers(50, 300), st.integers(5, 25), st.integers(0, 1000))
def test_one_trait_alone_is_balanced_as_well_as_whole_images_allow(total, count, data):
    values = np.random.default_rng(data).normal(size=total)
    least = np.bincount(np.searchsorted(np.quantile(values, QUANTILES), values, side="right")).min()
    taken = shares(values, choose({"brightness": values}, count, 0)) * count
    if least >= count / BINS + 1:
        assert np.ptp(taken) < 1.5


def test_images_that_are_all_alike_do_not_stop_it():
    chosen = choose({"brightness": np.full(50, 7.0), "yaw": np.zeros(50)}, 10, 0)
    assert len(chosen) == 10


def test_the_seed_decides_between_equals():
    traits = some_traits(500)
    assert (choose(traits, 50, 0) != choose(traits, 50, 1)).any()


def test_the_choice_is_written_down_without_a_name_or_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra evaluate is not installed")
    traits = some_traits(300)
    chips = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)
    chosen = choose(traits, 40, 3)
    record = describe(traits, chosen, chips, without_face=7, seed=3)
    assert (record.count, record.available, record.without_face, record.seed) == (40, 300, 7, 3)
    for bins in record.traits.values():
        assert sum(each.available for each in bins) == 300
        assert sum(each.chosen for each in bins) == 40
        assert all(a.high == b.low for a, b in pairwise(bins))
    other = describe(traits, choose(traits, 40, 4), chips, without_face=7, seed=4)
    assert other.digest != record.digest
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record
    plot(record, tmp_path / "choice.png")
    assert cv2.imread(str(tmp_path / "choice.png")) is not None
