import dataclasses
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import TemplateMethod
from agent.gallery.templates import templates, weight
from agent.gallery.types import Sample
from agent.perception.types import Pose, Quality

GOOD = Quality(60, 100, 120, 60, Pose(0, 0, 0))
METHODS = get_args(TemplateMethod)


def looks_at(centre: np.ndarray, count: int, spread: float, seed: int) -> list[np.ndarray]:
    """Embeddings around a direction; a spread of 0.2 makes cosines of about 0.96 between them."""
    rng = np.random.default_rng(seed)
    rows = centre + rng.normal(0, spread / np.sqrt(len(centre)), (count, len(centre)))
    return list(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def direction(seed: int, dim: int = 64) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=dim)
    return vector / np.linalg.norm(vector)


def samples(rows, quality: Quality = GOOD) -> list[Sample]:
    return [Sample(np.asarray(row, np.float32), quality) for row in rows]


ADA, BOB = direction(1), direction(2)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_sample_is_its_own_template(method):
    (one,) = samples([ADA])
    assert templates([one], method) == pytest.approx(one.embedding[None], abs=1e-6)


@given(
    st.sampled_from(METHODS),
    st.integers(1, 12),
    st.integers(1, 4),
    st.floats(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_whatever_the_samples_there_are_few_templates_of_length_one_and_always_the_same(
    method, count, most, spread, seed
):
    taken = samples(looks_at(ADA, count, spread, seed))
    made = templates(taken, method, most)
    assert made.dtype == np.float32
    assert 1 <= len(made) <= (most if method == "clusters" else 1)
    assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
    assert (templates(taken, method, most) == made).all()


@pytest.mark.parametrize("method", METHODS)
def test_frames_that_are_all_alike_make_one_template(method):
    made = templates(samples([ADA] * 6), method)
    assert made == pytest.approx(ADA[None].astype(np.float32), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_samples_that_cancel_each_other_out_match_nobody_instead_of_failing(method):
    made = templates(samples([ADA, -ADA]), method, most=1)
    assert np.isfinite(made).all()
    assert np.abs(made @ ADA.astype(np.float32)).max() < 0.1


def test_the_template_of_several_looks_is_nearer_to_a_new_look_than_any_single_one():
    *taken, new = looks_at(ADA, 6, 0.3, seed=3)
    (mean,) = templates(samples(taken), "mean")
    assert mean @ new > max(row @ new for row in taken)


def test_a_sample_of_somebody_else_is_left_out_of_the_trimmed_mean():
    right = looks_at(ADA, 4, 0.2, seed=4)
    spoiled = samples([*right, BOB])
    (trimmed,) = templates(spoiled, "trimmed")
    (clean,) = templates(samples(right), "mean")
    assert trimmed == pytest.approx(clean, abs=1e-6)
    (mean,) = templates(spoiled, "mean")
    assert mean @ BOB.astype(np.float32) > trimmed @ BOB.astype(np.float32) + 0.1


def test_of_three_samples_none_is_an_outlier_for_nobody_can_say_which():
    rows = [*looks_at(ADA, 2, 0.2, seed=5), BOB]
    assert (templates(samples(rows), "trimmed") == templates(samples(rows), "mean")).all()


def test_looks_that_differ_evenly_are_all_kept():
    rows = looks_at(ADA, 10, 0.3, seed=6)
    assert (templates(samples(rows), "trimmed") == templates(samples(rows), "mean")).all()


def test_a_person_with_and_without_glasses_has_a_template_for_each():
    plain = looks_at(ADA, 4, 0.15, seed=7)
    glasses = looks_at(ADA + 0.9 * BOB, 3, 0.15, seed=8)
    made = templates(samples([plain[0], glasses[0], *plain[1:], *glasses[1:]]), "clusters")
    assert len(made) == 2
    for look in (*plain, *glasses):
        assert (made @ look).max() > 0.97
    # Fewer are made where fewer are allowed.
    assert len(templates(samples([*plain, *glasses]), "clusters", most=1)) == 1


def test_an_ordinary_person_has_one_cluster():
    assert len(templates(samples(looks_at(ADA, 8, 0.2, seed=9)), "clusters")) == 1


def test_a_good_sample_weighs_more_than_a_poor_one():
    poor = {
        "turned away": dataclasses.replace(GOOD, pose=Pose(50, 0, 0)),
        "nodding": dataclasses.replace(GOOD, pose=Pose(0, 40, 0)),
        "far away": dataclasses.replace(GOOD, size=20),
        "blurred": dataclasses.replace(GOOD, sharpness=15),
        "flat": dataclasses.replace(GOOD, contrast=20),
    }
    assert weight(GOOD) == 1
    for quality in poor.values():
        assert 0.3 < weight(quality) < 0.8
    worst = Quality(1, 0, 0, 0, Pose(90, 90, 0))
    assert weight(worst) == 0.01
    near, far = ADA, looks_at(ADA, 1, 0.5, seed=10)[0]
    mixed = [*samples([near]), *samples([far], poor["blurred"])]
    (weighted,), (mean,) = templates(mixed, "weighted"), templates(mixed, "mean")
    assert weighted @ near.astype(np.float32) > mean @ near.astype(np.float32)
    # A person of whom there are only poor samples has a template all the same.
    assert np.linalg.norm(templates(samples([near], worst), "weighted")) == pytest.approx(1)
