"""Who is it? The matcher says what a patient person with paper and pencil would say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.gallery.matcher import match
from agent.gallery.templates import templates
from agent.gallery.types import Sample, Snapshot
from agent.perception.types import Pose, Quality


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def snapshot(**people: np.ndarray) -> Snapshot:
    """People with their templates, [dim] or [k, dim]."""
    rows = [np.atleast_2d(each) for each in people.values()]
    owners = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    return Snapshot(tuple(people), np.concatenate(rows), owners)


def template(rows: np.ndarray) -> np.ndarray:
    """The one template of samples with these embeddings."""
    quality = Quality(60, 100, 120, 50, Pose(0, 0, 0))
    (made,) = templates([Sample(row, quality) for row in rows])
    return made


ADA, BOB = unit(1, 0, 0), unit(0, 1, 0)
TWO = snapshot(Ada=ADA, Bob=BOB)


def test_nobody_is_known_to_an_empty_gallery():
    found = match(ADA, Snapshot(), 0.9, 0.0)
    assert (found.person, found.score, found.second, found.reason) == (None, -1.0, -1.0, "empty_gallery")


def test_the_nearest_person_is_recognised_with_both_scores():
    found = match(unit(1, 0.1, 0), TWO, 0.9, 0.1)
    assert found.person == "Ada"
    assert found.reason is None
    assert found.score == pytest.approx(0.995, abs=1e-3)
    assert found.second == pytest.approx(0.0995, abs=1e-3)


def test_a_stranger_stays_unknown_but_the_scores_are_told():
    found = match(unit(1, 1, 5), TWO, 0.9, 0.0)
    assert (found.person, found.reason, found.threshold) == (None, "below_threshold", 0.9)
    assert 0 < found.score < 0.9


def test_a_face_between_two_people_is_nobodys():
    found = match(unit(1, 0.99, 0), TWO, 0.5, 0.05)
    assert (found.person, found.reason) == (None, "ambiguous")


def test_a_single_person_has_no_rival_however_large_the_margin():
    assert match(ADA, snapshot(Ada=ADA), 0.9, 1.0).person == "Ada"


def test_a_person_with_two_templates_is_no_rival_of_their_own():
    glasses = unit(1, 0, 0.1)
    found = match(ADA, snapshot(Ada=np.stack([ADA, glasses]), Bob=BOB), 0.9, 0.5)
    assert (found.person, found.second) == ("Ada", 0.0)


def test_a_score_of_exactly_the_threshold_suffices():
    assert match(ADA, TWO, float(ADA @ ADA), 0.0).person == "Ada"


def test_an_embedding_that_is_not_a_number_is_nobodys():
    assert match(np.full(3, np.nan, np.float32), TWO, -1.0, 0.0).person is None


vectors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-1, 1, width=16)
).filter(lambda rows: (np.linalg.norm(rows, axis=1) > 0.1).all())


@given(vectors, st.integers(0, 11), st.floats(-1, 1, width=32), st.floats(0, 1, width=32))
def test_it_agrees_with_a_loop_over_everybody(rows, which, threshold, margin):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = rows[which % len(rows)]
    known = rows[: max(1, len(rows) - 1)]
    cosines = [math.fsum(float(a) * float(b) for a, b in zip(row, asked, strict=True)) for row in known]
    ranked = sorted(cosines, reverse=True)
    found = match(asked, snapshot(**{str(index): row for index, row in enumerate(known)}), threshold, margin)
    assert found.score == pytest.approx(ranked[0], abs=1e-5)
    assert found.second == (pytest.approx(ranked[1], abs=1e-5) if len(ranked) > 1 else -1.0)
    lead = ranked[0] - ranked[1] if len(ranked) > 1 else math.inf
    if abs(ranked[0] - threshold) < 1e-5 or abs(lead - margin) < 2e-5:
        return  # either answer is right within rounding
    if ranked[0] < threshold:
        assert (found.person, found.reason) == (None, "below_threshold")
    elif lead < margin:
        assert (found.person, found.reason) == (None, "ambiguous")
    else:
        assert found.reason is None
        assert cosines[int(found.person)] == pytest.approx(ranked[0], abs=1e-5)


@given(vectors)
def test_a_template_is_the_direction_of_the_mean_of_its_samples(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = [math.fsum(float(row[i]) for row in rows) / len(rows) for i in range(rows.shape[1])]
    length = math.sqrt(math.fsum(value**2 for value in mean))
    made = template(rows)
    assert made.dtype == np.float32
    assert made.shape == rows.shape[1:]
    if length > 1e-3:
        np.testing.assert_allclose(made, [value / length for value in mean], atol=1e-4)


def test_samples_that_cancel_out_make_a_template_that_nobody_matches():
    made = template(np.stack([ADA, -ADA]))
    assert np.isfinite(made).all()
    assert match(ADA, snapshot(Ada=made), 0.5, 0.0).person is None
