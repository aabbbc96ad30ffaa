"""Who is it? The matcher says what a patient person with paper and pencil would say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.gallery.index import ProductIndex
from agent.gallery.matcher import Matcher, match
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


def test_people_with_one_template_are_ambiguous_even_without_a_margin():
    found = match(ADA, snapshot(Ada=ADA, Bob=BOB, Twin=ADA), 0.9, 0.0)
    assert (found.person, found.reason, found.score, found.second) == (None, "ambiguous", 1.0, 1.0)


def test_people_of_another_pack_are_not_taken_for_an_empty_gallery():
    found = match(ADA, Snapshot(skipped=4), 0.9, 0.0)
    assert (found.person, found.reason) == (None, "pack_mismatch")


INDEXES = [ProductIndex]
try:
    from agent.gallery.faiss_index import FaissIndex
except ImportError:
    pass
else:
    INDEXES.append(FaissIndex)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("people", [snapshot(Ada=ADA), TWO], ids=["one person", "two"])
@pytest.mark.parametrize(
    "broken",
    [
        np.full(3, np.nan, np.float32),
        np.float32([1, np.nan, 0]),
        np.full(3, np.inf, np.float32),
        np.float32([np.inf, 0, 0]),
        np.float32([-np.inf, 1, 0]),
        np.float32([3e38, 3e38, 0]),  # its length overflows
        np.zeros(3, np.float32),
        5 * ADA,
        np.float32([1, 0]),  # of another network
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_embedding_is_nobodys(index, people, broken):
    found = Matcher(people, index(people.templates, people.owners)).match(broken, -1.0, 0.0)
    assert (found.person, found.score, found.second, found.reason) == (None, -1.0, -1.0, "invalid")


def marked(people: Snapshot, *faces: tuple[int, np.ndarray]) -> Snapshot:
    """``people`` with faces that are marked as not being the person of that number."""
    faces = sorted(faces, key=lambda face: face[0])
    return replace(
        people,
        anchors=np.stack([face for _, face in faces]),
        anchor_owners=np.array([person for person, _ in faces], np.intp),
    )


LOOKALIKE = unit(1, 0, 0.3)  # a stranger who is close to Ada


def test_a_face_that_was_marked_as_not_adas_is_not_adas_any_more():
    assert match(LOOKALIKE, TWO, 0.9, 0.05).person == "Ada"
    found = match(LOOKALIKE, marked(TWO, (0, LOOKALIKE)), 0.9, 0.05)
    assert (found.person, found.reason) == (None, "rejected")
    assert found.score == pytest.approx(float(LOOKALIKE @ ADA))  # which would have been enough
    assert found.second == 0.0


def test_ada_herself_is_still_recognised():
    people = marked(TWO, (0, LOOKALIKE))
    assert match(ADA, people, 0.9, 0.05).person == "Ada"
    assert match(unit(1, 0, 0.1), people, 0.9, 0.05).person == "Ada"


def test_a_face_as_close_to_the_mark_as_to_the_template_is_not_that_persons():
    assert match(ADA, marked(TWO, (0, ADA)), 0.9, 0.0).reason == "rejected"


def test_a_mark_on_ada_does_not_touch_bob():
    people = marked(TWO, (0, LOOKALIKE), (0, BOB))
    assert match(BOB, people, 0.9, 0.05).person == "Bob"


def test_who_was_taken_for_ada_is_recognised_as_bob_if_he_is_near_enough_by_himself():
    # Bob's sister Ada looks so much like him that his face is nearer to her template than to his own.
    sister, brother = unit(1, 0, 0), unit(1, 0.3, 0)
    people, face = snapshot(Ada=sister, Bob=brother), unit(1, 0.1, 0)
    assert match(face, people, 0.9, 0.0).person == "Ada"
    found = match(face, marked(people, (0, face)), 0.9, 0.005)
    assert found.person == "Bob"
    assert found.score == pytest.approx(float(face @ brother))
    assert found.second == -1.0  # Ada is out, and there is nobody else


def test_who_was_taken_for_ada_is_nobody_if_bob_is_too_far():
    found = match(LOOKALIKE, marked(TWO, (0, LOOKALIKE)), 0.5, 0.0)
    assert (found.person, found.reason) == (None, "rejected")


def test_two_others_who_are_both_near_are_ambiguous_after_ada_is_ruled_out():
    people = snapshot(Ada=ADA, Bob=unit(1, 0.2, 0), Cid=unit(1, 0.21, 0))
    found = match(unit(1, 0.01, 0), marked(people, (0, unit(1, 0.01, 0))), 0.9, 0.05)
    assert (found.person, found.reason) == (None, "ambiguous")


def test_a_stranger_far_from_everybody_is_below_the_threshold_and_not_rejected():
    stranger = unit(0.5, 0, 1)
    found = match(stranger, marked(TWO, (0, stranger)), 0.9, 0.0)
    assert (found.person, found.reason) == (None, "below_threshold")
    assert found.score == pytest.approx(float(stranger @ ADA))


def test_everybody_can_be_ruled_out():
    people = marked(TWO, (0, ADA), (1, ADA))
    found = match(ADA, people, 0.9, 0.0)
    assert (found.person, found.reason, found.score, found.second) == (None, "rejected", 1.0, 0.0)
    assert match(ADA, marked(snapshot(Ada=ADA), (0, ADA)), -1.0, 0.0).person is None


vectors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-1, 1, width=16)
).filter(lambda rows: (np.linalg.norm(rows, axis=1) > 0.1).all())


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def judged(people: Snapshot, asked: np.ndarray, threshold: float, margin: float) -> tuple[set, float, float]:
    """What a patient person says: the answers that are right within rounding, and the two best cosines."""

    def best(rows: np.ndarray, owners: np.ndarray, person: int) -> float:
        mine = [row for row, owner in zip(rows, owners, strict=True) if owner == person]
        return max((cosine(row, asked) for row in mine), default=-1.0)

    everybody = range(len(people.names))
    scores = [best(people.templates, people.owners, person) for person in everybody]
    marks = [best(people.anchors, people.anchor_owners, person) for person in everybody]
    if any(abs(score - mark) < 3e-5 for score, mark in zip(scores, marks, strict=True)):
        return set(), 0, 0  # ruled out or not: either is right
    left = [person for person in everybody if marks[person] < scores[person]]
    ranked = [-1.0, -1.0, *sorted(scores[person] for person in left)]
    if left and abs(ranked[-1] - threshold) < 1e-5:
        return set(), 0, 0
    if not left or ranked[-1] < threshold:
        ranked = [-1.0, -1.0, *sorted(scores)]
        near = abs(ranked[-1] - threshold) < 1e-5
        reasons = (
            {"rejected", "below_threshold"}
            if near
            else {"rejected" if ranked[-1] >= threshold else "below_threshold"}
        )
        return {(None, reason) for reason in reasons}, ranked[-1], ranked[-2]
    names = {(people.names[person], None) for person in left if scores[person] > ranked[-1] - 2e-5}
    lead = ranked[-1] - ranked[-2] if len(left) > 1 else math.inf
    if abs(lead - margin) < 3e-5 or lead < 3e-5:
        return names | {(None, "ambiguous")}, ranked[-1], ranked[-2]
    return names if lead >= margin else {(None, "ambiguous")}, ranked[-1], ranked[-2]


@pytest.mark.parametrize("index", INDEXES)
@settings(max_examples=300)
@given(vectors, st.integers(0, 2**32), st.floats(-1, 1, width=32), st.floats(0, 1, width=32))
def test_it_agrees_with_a_patient_person(index, vectors, seed, threshold, margin):
    rng = np.random.default_rng(seed)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked, known = vectors[rng.integers(len(vectors))], vectors[: max(1, len(vectors) - 1)]
    owners = np.unique(np.sort(rng.integers(0, len(known), len(known))), return_inverse=True)[1].astype(
        np.intp
    )
    names = tuple(str(number) for number in range(owners.max() + 1))
    people = Snapshot(names, known, owners)
    if rng.random() < 0.5:
        people = marked(
            people,
            *((int(rng.integers(len(names))), row) for row in vectors[rng.integers(0, len(vectors), 2)]),
        )
    found = Matcher(people, index(people.templates, people.owners)).match(asked, threshold, margin)
    right, score, second = judged(people, asked, threshold, margin)
    if right:
        assert (found.person, found.reason) in right
        assert (found.score, found.second) == pytest.approx((score, second), abs=1e-5)


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
