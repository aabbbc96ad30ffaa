"""What subscribers are told of faces, in which order, and when they are left in peace."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.events import EmotionEvent, FaceEvent, IdentityEvent
from agent.perception.types import Detection, Emotion, Face, Match, Pose, Quality, Reading, Stamp
from agent.publishing import Narrator, rfc3339

LABELS = ("angry", "happy", "neutral")
GOOD = Quality(80.0, 200.0, 120.0, 40.0, Pose(1.0, 2.0, 3.0))
BLURRED = replace(GOOD, reasons=("blurred",))
ADA = Match("Ada", 0.96, 0.93, 0.84)
BOB = Match("Bob", 0.95, 0.93, 0.83)
NOBODY = Match(None, 0.85, 0.93, 0.81, "below_threshold")


def face(track=1, state="seen", match=None, quality=GOOD, emotion=None) -> Face:
    detection = Detection((10.0, 20.0, 110.123, 150.0), 0.98, np.arange(10, dtype=np.float32).reshape(5, 2))
    mood = Emotion(emotion, (0.1, 0.2, 0.7)) if emotion else None
    return Face(track, detection, False, quality, state, match, mood, np.ones(128, np.float32))


def reading(index, *faces, camera="cabin", valid=True) -> Reading:
    stamp = Stamp(camera, index, 100.0 + index / 10, 1_700_000_000.25 + index)
    return Reading(stamp, faces, (), {"detect": 5.1234567}, 6.1234567, 5.0, valid=valid)


def story(*readings) -> list[str]:
    """What a narrator tells of identities and expressions, in words."""
    narrator = Narrator(LABELS)
    told = []
    for each in readings:
        first, *others = narrator.events(each)
        assert isinstance(first, FaceEvent)
        for event in others:
            what = event.label if isinstance(event, EmotionEvent) else f"{event.change} {event.person or ''}"
            told.append(f"{event.track} {what}".strip() + ("" if event.valid else "?"))
    return told


def test_a_driver_is_seen_confirmed_and_lost_and_each_is_told_once():
    assert story(
        reading(0),
        reading(1, face()),
        reading(2, face()),
        reading(3, face(state="confirmed", match=ADA)),
        reading(4, face(state="confirmed", match=replace(ADA, score=0.97))),
        reading(5),
        reading(6),
    ) == ["1 seen", "1 confirmed Ada", "1 lost Ada"]


def test_a_stranger_is_unknown_and_a_change_of_mind_is_told():
    assert story(
        reading(0, face(state="unknown", match=NOBODY)),
        reading(1, face(state="confirmed", match=ADA)),
        reading(2, face(state="confirmed", match=BOB)),
        reading(3, face()),
    ) == ["1 seen", "1 unknown", "1 confirmed Ada", "1 confirmed Bob", "1 seen"]


def test_expressions_are_told_when_they_change():
    assert story(
        reading(0, face()),
        reading(1, face(emotion="happy")),
        reading(2, face(emotion="happy")),
        reading(3, face(emotion="angry")),
    ) == ["1 seen", "1 happy", "1 angry"]


def test_cameras_and_tracks_are_told_apart():
    assert story(
        reading(0, face(1), face(2)),
        reading(0, face(1), camera="rear"),
        reading(1, face(2, state="confirmed", match=ADA)),
        reading(1, camera="rear"),
    ) == ["1 seen", "2 seen", "1 seen", "2 confirmed Ada", "1 lost", "1 lost"]


def test_what_was_told_while_not_valid_is_told_again_once_it_may_be_believed():
    known = face(state="confirmed", match=ADA, emotion="happy")
    assert story(
        reading(0, known, valid=False),
        reading(1, known, valid=False),
        reading(2, known),
        reading(3, known, valid=False),
        reading(4, known),
    ) == ["1 seen?", "1 confirmed Ada?", "1 happy?", "1 confirmed Ada", "1 happy"]


@pytest.mark.parametrize(
    ("match", "quality", "expected"),
    [
        (NOBODY, GOOD, ("below_threshold", 0.85, 0.81)),
        (Match(None, -1.0, 0.93, -1.0, "empty_gallery"), GOOD, ("empty_gallery", None, None)),
        (Match(None, 0.94, 0.93, 0.94, "ambiguous"), GOOD, ("ambiguous", 0.94, 0.94)),
        (None, BLURRED, ("poor_quality", None, None)),
    ],
)
def test_unknown_comes_with_its_reason(match, quality, expected):
    *_, event = Narrator(LABELS).events(reading(0, face(state="unknown", match=match, quality=quality)))
    assert (event.reason, event.score, event.second) == expected


def test_a_confirmation_comes_with_what_it_rests_on():
    *_, event = Narrator(LABELS).events(reading(7, face(state="confirmed", match=ADA)))
    assert event == IdentityEvent(
        monotonic=100.7,
        utc="2023-11-14T22:13:27.250000Z",
        camera="cabin",
        frame=7,
        track=1,
        change="confirmed",
        person="Ada",
        score=0.96,
        threshold=0.93,
        second=0.84,
    )


def test_a_face_event_holds_every_face_and_no_embedding():
    known = face(state="confirmed", match=ADA, emotion="happy")
    (event, *_) = Narrator(LABELS).events(reading(3, known, face(2, quality=None)))
    first, second = event.faces
    assert (first.person, first.emotion, first.pose.pitch) == ("Ada", "happy", 2.0)
    assert (second.person, second.emotion, second.quality, second.pose) == (None, None, None, None)
    assert first.box == (10.0, 20.0, 110.12, 150.0)
    assert first.landmarks[4] == (8.0, 9.0)
    assert event.stage_ms == {"detect": 5.123}
    assert b"embedding" not in msgspec.json.encode(event)


def test_an_emotion_event_names_every_probability():
    *_, event = Narrator(LABELS).events(reading(0, face(emotion="neutral")))
    assert event.probabilities == {"angry": 0.1, "happy": 0.2, "neutral": 0.7}


STATES = st.sampled_from([("seen", None), ("confirmed", ADA), ("confirmed", BOB), ("unknown", NOBODY)])


@given(
    st.lists(st.tuples(st.dictionaries(st.integers(1, 4), STATES, max_size=4), st.booleans()), max_size=30)
)
def test_who_listens_to_valid_changes_alone_knows_what_every_face_event_says(frames):
    """Whatever happens: the changes add up to the state in each valid face event."""
    narrator = Narrator(LABELS)
    known: dict[int, tuple[str, str | None]] = {}
    for index, (tracks, valid) in enumerate(frames):
        faces = (face(track, state, match) for track, (state, match) in tracks.items())
        first, *changes = narrator.events(reading(index, *faces, valid=valid))
        for event in changes:
            if event.change == "lost":
                known.pop(event.track, None)
            elif event.valid:
                known[event.track] = (event.change, event.person)
        if valid:
            assert known == {each.track: (each.state, each.person) for each in first.faces}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01T00:00:00.000000Z"), (1741936869.482113, "2025-03-14T07:21:09.482113Z")],
)
def test_time_is_told_in_utc_to_the_microsecond(seconds, text):
    assert rfc3339(seconds) == text
