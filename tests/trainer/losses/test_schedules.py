import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.losses.schedules import cosine_ramp, least_scale, ramp

SHARES = st.floats(0.0, 1.0)


def test_a_margin_that_grows_over_the_second_quarter():
    margins = [ramp(p, 0.0, 0.5, 0.25, 0.5) for p in (0.0, 0.25, 0.375, 0.5, 1.0)]
    assert margins == [0.0, 0.0, 0.25, 0.5, 0.5]
    assert cosine_ramp(0.375, 0.0, 0.5, 0.25, 0.5) == pytest.approx(0.25)
    assert cosine_ramp(0.3125, 0.0, 0.5, 0.25, 0.5) == pytest.approx(0.25 * (1 - math.sqrt(0.5)))


def test_a_step_holds_from_its_place_on():
    assert [ramp(p, 0.0, 1.0, 0.8, 0.8) for p in (0.79, 0.8, 1.0)] == [0.0, 1.0, 1.0]


@given(SHARES, SHARES, SHARES, SHARES, st.floats(-100, 100), st.floats(-100, 100))
def test_a_ramp_goes_one_way_and_never_beyond_its_ends(p, q, one, other, first, last):
    begin, end = sorted((one, other))
    for shape in (ramp, cosine_ramp):
        early, late = (shape(x, first, last, begin, end) for x in sorted((p, q)))
        assert min(first, last) - 1e-9 <= early <= max(first, last) + 1e-9
        assert (late - early) * (last - first) >= -1e-9
        assert shape(1.0, first, last, begin, end) == pytest.approx(last)


@pytest.mark.parametrize(
    ("progress", "begin", "end"), [(-0.1, 0, 1), (1.1, 0, 1), (0.5, 0.6, 0.4), (0.5, 0, 2)]
)
def test_what_is_no_progress_is_refused(progress, begin, end):
    with pytest.raises(ValueError, match="is needed"):
        ramp(progress, 0.0, 1.0, begin, end)


@given(st.integers(2, 30), st.floats(0.5, 0.99))
def test_at_the_least_scale_the_best_embeddings_just_reach_the_probability(classes, probability):
    if probability <= 1.0 / classes:
        return
    scale = least_scale(classes, probability)
    # Centres as far apart as they go are a simplex: every cosine between two is -1 / (C - 1).
    logits = torch.full((classes,), -scale / (classes - 1), dtype=torch.float64)
    logits[0] = scale
    assert logits.softmax(0)[0].item() == pytest.approx(probability, rel=1e-9)


def test_a_probability_below_chance_is_refused():
    with pytest.raises(ValueError, match="2 classes"):
        least_scale(4, 0.2)
