"""The chain over time, with the real models and real faces."""

import time
from functools import partial

import cv2
import numpy as np
import pytest

from agent import networks
from agent.config import Budget, Config, Quality
from agent.gallery.matcher import match
from agent.gallery.types import Snapshot
from agent.images import read_image
from agent.perception.chain import Chain, FaceReader
from agent.perception.types import Frame

NOBODY = partial(match, snapshot=Snapshot(), threshold=0.9, margin=0.0)


@pytest.fixture(scope="module")
def loaded(pack):
    models = networks.load(pack, Config())
    yield models
    models.close()


@pytest.fixture(scope="module")
def two_people(samples):
    """Two photographs in which the face lies at the same place."""
    return [cv2.resize(read_image(samples / name), (640, 480)) for name in ("obama.jpg", "biden.jpg")]


@pytest.fixture
def chain(loaded):
    unhurried = Config(budget=Budget(frame_ms=0))  # whatever else the machine does meanwhile
    return Chain(loaded, unhurried, time.monotonic)


def frame(image, index: int, at: float, camera: str = "cabin") -> Frame:
    return Frame(camera, index, at, 0.0, image)


def test_a_confirmed_person_is_not_passed_on_over_a_gap_in_the_frames(loaded, chain, two_people):
    first, second = two_people
    reader = FaceReader(loaded, Config(), time.monotonic)
    known = reader.look(first, reader.find(first)[0]).embedding
    ask = partial(
        match, snapshot=Snapshot(("Barack",), known[None], np.zeros(1, np.intp)), threshold=0.93, margin=0.0
    )
    for i in range(5):
        reading = chain.process(frame(first, i, i / 30), ask)
    assert reading.faces[0].state == "confirmed"
    reading = chain.process(frame(second, 5, 600.0), ask)
    assert reading.lost == (1,)
    assert [face.track for face in reading.faces] == [2]
    assert reading.faces[0].state == "seen"


def test_the_people_before_a_silent_camera_are_gone(chain, two_people):
    chain.process(frame(two_people[0], 0, 100.0, "front"), NOBODY)
    chain.process(frame(two_people[0], 0, 101.5, "rear"), NOBODY)
    (reading,) = chain.end_silent(102.0, 7.0, 1.0)
    assert (reading.frame.camera, reading.frame.index, reading.frame.utc) == ("front", -1, 7.0)
    assert reading.lost == (1,)
    assert chain.end_silent(102.0, 7.0, 1.0) == []
    assert [each.frame.camera for each in chain.end_silent(102.0, 7.0, 0)] == ["rear"]


def test_a_camera_that_saw_nobody_falls_silent_too_and_is_told_once_each_time(chain, two_people):
    nobody = np.full_like(two_people[0], 90)
    for start in (100.0, 200.0):
        chain.process(frame(nobody, 0, start), NOBODY)
        assert chain.end_silent(start + 0.9, 0.0, 1.0) == []
        (reading,) = chain.end_silent(start + 1.0, 0.0, 1.0)
        assert (reading.frame.index, reading.faces, reading.lost) == (-1, (), ())
        assert chain.end_silent(start + 5.0, 0.0, 1.0) == []


def test_a_reading_says_how_large_its_picture_is(chain, two_people):
    height, width = two_people[0].shape[:2]
    assert chain.process(frame(two_people[0], 0, 1.0), NOBODY).frame.size == (width, height)


def test_a_decided_face_is_looked_at_only_now_and_then(chain, two_people):
    looks = [chain.process(frame(two_people[0], i, i / 30), NOBODY).faces[0].embedding for i in range(30)]
    assert 6 <= sum(look is not None for look in looks) <= 9  # three votes, then five times a second
    always = chain.process(frame(two_people[0], 30, 1.0), NOBODY, look_always=True)
    assert always.faces[0].embedding is not None


def test_every_step_is_timed_and_engines_are_most_of_it(chain, two_people):
    reading = chain.process(frame(two_people[0], 0, 0.0), NOBODY)
    assert set(reading.stage_ms) == {
        "resize",
        "detect",
        "decode",
        "track",
        "align",
        "quality",
        "face",
        "decide",
    }
    assert sum(reading.stage_ms.values()) == pytest.approx(reading.total_ms, rel=0.01)
    assert reading.engine_ms == pytest.approx(reading.stage_ms["detect"] + reading.stage_ms["face"])


def test_a_frame_too_old_is_not_valid(chain, two_people):
    assert not chain.process(frame(two_people[0], 0, time.monotonic() - 5), NOBODY).valid
    assert chain.process(frame(two_people[0], 1, time.monotonic()), NOBODY).valid


def test_an_empty_picture_has_nobody_in_it(chain):
    reading = chain.process(frame(np.zeros((480, 640, 3), np.uint8), 0, 0.0), NOBODY)
    assert reading.faces == ()


def test_looks_are_kept_for_whoever_learns_from_them_only_while_somebody_does(loaded, chain, two_people):
    first, _ = two_people
    chain.process(frame(first, 0, 0.0), NOBODY)
    assert chain.looked is None
    chain.looked = []
    reading = chain.process(frame(first, 1, 1 / 30), NOBODY)
    (looked,) = chain.looked
    assert (looked.track, looked.captured) == (reading.faces[0].track, 1 / 30)
    outputs = loaded.face.run({"chip": looked.chip[None]})
    assert np.array_equal(outputs["emotion"][0], looked.logits)
    assert np.array_equal(outputs["embedding"][0], reading.faces[0].embedding)
    chain.process(frame(np.zeros_like(first), 2, 2 / 30), NOBODY)
    assert chain.looked == []


def test_a_poor_face_teaches_nothing(loaded, two_people):
    demanding = Config(budget=Budget(frame_ms=0), quality=Quality(min_sharpness=60_000))
    chain = Chain(loaded, demanding, time.monotonic)
    chain.looked = []
    reading = chain.process(frame(two_people[0], 0, 0.0), NOBODY)
    assert reading.faces[0].embedding is not None
    assert chain.looked == []
