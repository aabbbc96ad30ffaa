"""How far an engine's answers are from the reference's is measured so that the figure means what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.perception.types import Detection
from calibration import fidelity
from calibration.fidelity import Evidence, Gap, Outputs
from calibration.lfw import Pair
from calibration.material import MaterialError


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def face(x: float, y: float, size: float = 40) -> Detection:
    landmarks = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]], np.float32)
    return Detection((x, y, x + size, y + size), 0.9, landmarks * size + np.array([x, y], np.float32))


def test_faces_are_matched_by_place_whatever_their_order():
    first, second, third = face(0, 0), face(100, 0), face(0, 100)
    found = fidelity.detections(
        [([first, second], [second, first]), ([third], [face(4, 100), face(200, 200)])]
    )
    assert found.faces == 3
    assert found.missed == 0
    assert found.extra == pytest.approx(1 / 3)
    assert found.iou == pytest.approx((1 + 1 + 36 / 44) / 3)
    assert found.landmark_shift == pytest.approx((4 / 16) / 3)


@given(st.floats(0, 0.3), st.integers(0, 100))
def test_the_drift_is_the_lost_cosine_as_a_share_of_the_gap(angle, seed):
    rng = np.random.default_rng(seed)
    first = unit(rng.normal(size=(20, 8)))
    other = rng.normal(size=(20, 8))
    other = unit(other - (other * first).sum(1, keepdims=True) * first)
    second = (np.cos(angle) * first + np.sin(angle) * other).astype(np.float32)
    nothing = np.zeros((20, 7), np.float32)
    found = fidelity.drift(Outputs(first, nothing), Outputs(second, nothing), Gap(0.9, 0.8, known=True))
    assert found.mean == pytest.approx((1 - np.cos(angle)) / 0.1, abs=1e-5)


def people_and_pairs(seed: int) -> tuple[Evidence, np.ndarray]:
    """Twenty people of four photographs each, in two folds of pairs."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(20, 16)), 4, axis=0)
    photos = [f"p{k // 4}/p{k // 4}_{k % 4}.jpg" for k in range(80)]
    pairs = []
    for k in range(0, 80, 4):
        fold = int(k >= 40)
        pairs += [Pair(photos[k], photos[k + j], True, fold) for j in (1, 2, 3)]
        pairs += [Pair(photos[k], photos[(k + 4 * j) % 80], False, fold) for j in (1, 2, 3)]
    chips = np.zeros((80, 1, 1, 3), np.uint8)
    return Evidence(chips, photos, pairs), unit(centres + rng.normal(size=(80, 16)) * 0.5)


def test_what_is_lost_in_telling_people_apart_is_measured_with_its_chance():
    evidence, embeddings = people_and_pairs(0)
    rng = np.random.default_rng(1)
    same = fidelity.verification_loss(evidence, embeddings, embeddings)
    assert (same.tar_loss, same.mixed_tar_loss, same.accuracy_loss) == (0, 0, 0)
    assert same.tar_loss_interval == (0, 0)
    noisy = unit(embeddings + rng.normal(size=embeddings.shape) * 0.5)
    worse = fidelity.verification_loss(evidence, embeddings, noisy)
    low, high = worse.tar_loss_interval
    assert low <= worse.tar_loss <= high
    assert worse.tar_loss > 0.1
    assert low > 0
    assert worse == fidelity.verification_loss(evidence, embeddings, noisy)


def test_the_gap_is_between_people_where_they_are_known_and_smaller_where_not():
    evidence, embeddings = people_and_pairs(0)
    by_pairs = fidelity.gap(embeddings, evidence, 0.5)
    by_folder = fidelity.gap(embeddings, Evidence(evidence.chips, evidence.photos), 0.5)
    unknown = fidelity.gap(embeddings, Evidence(evidence.chips), 0.5)
    assert by_pairs.known
    assert by_folder.known
    assert by_folder.width == pytest.approx(by_pairs.width, rel=0.1)
    assert not unknown.known
    assert 0 < unknown.width < by_pairs.width


def test_faces_of_one_person_alone_cannot_tell_how_much_a_drift_matters():
    with pytest.raises(MaterialError, match="photographs of several people, a folder for each"):
        fidelity.gap(unit(np.ones((20, 16))), Evidence(np.zeros((20, 1, 1, 3), np.uint8)), 0.9)
