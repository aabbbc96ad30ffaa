from functools import partial

import numpy as np
import pytest

from agent.gallery.templates import templates
from calibration.openset import labelled
from calibration.threshold import ThresholdError, ThresholdReport, calibrate, supported

MEAN = partial(templates, method="mean")


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def looks(crowd):
    return crowd(100, lambda who: 2 + who % 4, spread=0.5, dim=12)


@pytest.fixture(scope="module")
def found(looks):
    return calibrate(looks, 3, 0.02, MEAN, 0.0, quiet)


def test_each_size_keeps_the_promise_and_larger_galleries_ask_for_more(found):
    steps, behind = found
    assert [step.people for step in steps] == [1, 2, 5, 10, 20, 50]
    for step, searches in zip(steps, behind, strict=True):
        assert searches.fpir(step.threshold) == step.far <= 0.02
        assert searches.dir(step.threshold) == step.tar
        assert step.tar_interval[0] <= step.tar <= step.tar_interval[1]
        assert 0 < step.eer < 0.3
        assert step.impostor > 2000
    thresholds = [step.threshold for step in steps]
    assert thresholds == sorted(thresholds)
    assert thresholds[-1] > thresholds[0] + 0.05


def test_it_holds_for_people_who_had_no_say(found, crowd):
    """The promise is about strangers to come, not about those of the data."""
    steps, _ = found
    _, behind = calibrate(crowd(100, lambda who: 2 + who % 4, seed=1, dim=12), 3, 0.02, MEAN, 0.0, quiet)
    for step, searches in zip(steps, behind, strict=True):
        assert searches.fpir(step.threshold) < 0.05


def test_the_same_data_give_the_same_threshold(looks, found):
    again, _ = calibrate(looks, 3, 0.02, MEAN, 0.0, quiet)
    assert again == found[0]


def test_a_margin_lets_the_threshold_of_a_large_gallery_be_lower(looks, found):
    strict, _ = calibrate(looks, 3, 0.02, MEAN, 0.1, quiet)
    assert strict[0].threshold == found[0][0].threshold  # alone nobody has a rival
    assert strict[-1].threshold < found[0][-1].threshold


def test_progress_is_told_to_the_end(looks):
    told = []
    calibrate(looks, None, 0.2, MEAN, 0.0, lambda *what: told.append(what))
    assert told[0][1] == 0
    assert told[-1][1] == told[-1][2] > 0


@pytest.mark.parametrize(
    ("people", "images", "far", "sizes"),
    [
        (40, 3, 0.02, [1, 2, 5, 10]),  # 1,560 pairs of people: for ten of them 1,500 are needed
        (40, 3, 0.1, [1, 2, 5, 10, 20]),  # no more than half are enrolled, for there must be strangers
        (100, 2, 0.001, [1, 2]),
    ],
)
def test_no_size_is_claimed_that_the_people_cannot_show(crowd, people, images, far, sizes):
    assert supported(crowd(people, lambda who: images), far) == sizes


def test_too_little_is_said_to_be_too_little(crowd):
    with pytest.raises(ThresholdError, match=r"5 people, 5 of them with two .*20 pairs.* 3000 are needed"):
        supported(crowd(5, lambda who: 10), 0.001)
    with pytest.raises(ThresholdError, match="0 of them with two"):
        supported(crowd(80, lambda who: 1), 0.1)
    with pytest.raises(ThresholdError, match="0 people"):
        supported(labelled([]), 0.1)
    lost = labelled([(str(who % 40), None) for who in range(80)])
    with pytest.raises(ThresholdError, match="0 people"):
        supported(lost, 0.1)


@pytest.mark.parametrize(("enrolled", "size"), [(0, 1), (1, 1), (3, 5), (50, 50), (51, 50)])
def test_what_is_stored_is_about_the_gallery_as_it_is_and_holds_every_size(found, looks, enrolled, size):
    steps, _ = found
    report = ThresholdReport(
        source="a crowd",
        people=len(looks.names),
        looks=len(looks.samples),
        undetected=0,
        images=3,
        far=0.02,
        template="mean",
        margin=0.0,
        enrolled=enrolled,
        steps=steps,
    )
    stored = report.calibration("f" * 64)
    (step,) = [step for step in steps if step.people == size]
    assert (stored.pack, stored.threshold, stored.far_target, stored.far) == (
        "f" * 64,
        step.threshold,
        0.02,
        step.far,
    )
    assert stored.steps == tuple((step.people, step.threshold) for step in steps)
    assert "350 looks at 100 people of a crowd" in stored.pairs
    assert np.isfinite([*stored.tar_interval, stored.tar]).all()
