"""Faces of a stream: clean, spoiled, or one face that hardly moves; always the same for the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.corruptions import KINDS
from calibration.fer2013 import LABELS, to_chip
from calibration.lfw import Pair
from calibration.streams.faces import Expressions, People, evenly, moved, rendered, some_pairs
from calibration.streams.orders import CLEAN, Frame


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(60, 200, (12, 48, 48), np.uint8)


@pytest.fixture
def faces(images, tmp_path):
    path = tmp_path / "fer2013.npz"
    np.savez(path, test_x=images, test_y=np.arange(12) % 7)
    return Expressions(path, "test", 0, LABELS)


def test_a_clean_face_is_what_the_network_was_made_for(faces, images):
    shown = rendered(faces, [Frame(3, 0, 0, 0.0), Frame(4, 0, 0, 0.2)], CLEAN, 0)
    assert (shown == [to_chip(images[3]), to_chip(images[4])]).all()
    assert (faces.clean()[3] == shown[0]).all()


@pytest.mark.parametrize("shift", KINDS)
def test_a_spoiled_face_is_the_same_for_the_same_seed(faces, shift):
    frame = Frame(3, 3, 0, 0.0)
    (shown,), (again,) = rendered(faces, [frame], shift, 5), rendered(faces, [frame], shift, 5)
    assert (shown == again).all()
    assert (shown != rendered(faces, [replace(frame, severity=0)], shift, 5)[0]).any()


def test_noise_is_another_for_another_seed_or_face_shown_again(faces):
    frame = Frame(3, 3, 0, 0.0)
    (shown,) = rendered(faces, [frame], "sensor_noise", 0)
    for other, seed in ((frame, 1), (replace(frame, version=2), 0), (replace(frame, part="after"), 0)):
        assert (rendered(faces, [other], "sensor_noise", seed)[0] != shown).any()


def test_one_face_moves_a_little_from_frame_to_frame(faces):
    chip = faces.chip(0, CLEAN, 0, 0, "")
    shown = [moved(chip, 0, str(version)) for version in range(20)]
    off = [np.abs(each.astype(float) - chip).mean() for each in shown]
    assert 1 < np.mean(off) < 30
    assert len({each.tobytes() for each in shown}) == 20


def test_labels_are_numbered_as_the_pack_does(images, tmp_path):
    path = tmp_path / "fer2013.npz"
    np.savez(path, test_x=images, test_y=np.arange(12) % 7)
    backwards = Expressions(path, "test", 0, LABELS[::-1])
    assert backwards.labels.tolist() == [6 - n % 7 for n in range(12)]


def test_few_faces_are_drawn_evenly(faces, images, tmp_path):
    assert evenly(10, 0).tolist() == list(range(10))
    assert evenly(10, 20).tolist() == list(range(10))
    assert evenly(9, 3).tolist() == [0, 4, 8]
    path = tmp_path / "fer2013.npz"
    assert len(Expressions(path, "test", 5, LABELS).labels) == 5


def test_pairs_are_drawn_from_both_kinds_in_the_named_folds():
    pairs = [Pair(f"a/{n}", f"b/{n}", n % 2 == 0, n % 10) for n in range(200)]
    found = some_pairs(pairs, [0, 1, 2, 3], 20)
    assert len(found) == 20
    assert sum(pair.genuine for pair in found) == 10
    assert {pair.fold for pair in found} <= {0, 1, 2, 3}
    assert len(some_pairs(pairs, [0, 1], 0)) == 40


def test_a_pair_without_a_face_is_left_out_and_counted(samples):
    landmarks = np.array([[78, 95], [123, 95], [100, 120], [80, 145], [120, 145]], np.float32)
    pairs = [Pair("obama.jpg", "obama2.jpg", True, 0), Pair("obama.jpg", "biden.jpg", False, 0)]
    found = dict.fromkeys(["obama.jpg", "obama2.jpg"], landmarks)
    people = People(samples, pairs, landmarks, 150, found)
    assert (people.pairs, people.undetected) == (pairs[:1], 1)
    assert people.genuine.tolist() == [True]
    clean = people.chip(0, "mask", 0, 0, "")
    assert clean.shape == (150, 150, 3)
    assert (people.chip(0, "mask", 3, 0, "") != clean).any()
    assert (people.enrolled(0) != clean).any()
