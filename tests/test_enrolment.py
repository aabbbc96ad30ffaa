"""What happens between pressing record and being enrolled, told as sequences of readings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enrolment import ADVICE, Enrolment, Refusal, agreement_floor, strangers
from agent.perception.types import Detection, Face, Pose, Quality, Reading, Stamp

GOOD = Quality(40.0, 100.0, 120.0, 50.0, Pose(0.0, 0.0, 0.0))
EMBEDDING = np.eye(1, 8, dtype=np.float32)[0]
FLOOR = agreement_floor(0.9258)


def like(number: int, person: int = 0) -> np.ndarray:
    """One of many looks at one of two people: cosines are as the default pack's, 0.96 and 0.84."""
    axes = np.eye(24)
    look = 0.84**0.5 * axes[0] + 0.12**0.5 * axes[1 + person] + 0.04**0.5 * axes[3 + number]
    return look.astype(np.float32)


def face(
    side: float = 100.0,
    quality: Quality | None = GOOD,
    *,
    coasting: bool = False,
    looked: bool = True,
    track: int = 1,
    embedding: np.ndarray = EMBEDDING,
) -> Face:
    place = Detection((0.0, 0.0, side, side), 0.9, np.zeros((5, 2), np.float32))
    return Face(
        track, place, coasting, quality, "seen", None, None, embedding if looked and not coasting else None
    )


def poor(*reasons: str) -> Face:
    return face(quality=Quality(40.0, 1.0, 120.0, 50.0, Pose(0.0, 0.0, 0.0), reasons))


def reading(at: float, *faces: Face, camera: str = "cabin", valid: bool = True) -> Reading:
    return Reading(Stamp(camera, round(at * 30), at, at), faces, valid=valid)


def record(*faces_of: tuple[Face, ...], seconds: float = 2.0, most: int = 50, fps: float = 30.0) -> Enrolment:
    """A recording from second 10 on, of readings at an even rate."""
    enrolment = Enrolment("cabin", 10.0, seconds, most, FLOOR)
    for i, faces in enumerate(faces_of):
        enrolment.add(reading(10.0 + i / fps, *faces))
    return enrolment


def test_a_good_face_gives_samples_a_fifth_of_a_second_apart():
    enrolment = Enrolment("cabin", 10.0, 2.0, 50, FLOOR)
    taken = [i / 30 for i in range(60) if enrolment.add(reading(10.0 + i / 30, face()))]
    assert len(taken) == len(enrolment.samples) == 10
    assert min(np.diff(taken)) >= 0.2 - 1e-9
    assert enrolment.refusal() is None


def test_few_samples_are_spread_over_the_whole_time():
    enrolment = Enrolment("cabin", 0.0, 10.0, 4, FLOOR)
    taken = [i / 30 for i in range(300) if enrolment.add(reading(i / 30, face()))]
    assert taken == pytest.approx([0.0, 2.5, 5.0, 7.5], abs=0.1)


def test_no_more_samples_are_taken_than_asked_for():
    assert len(record(*[(face(),)] * 120, seconds=0.5, most=3).samples) == 3


def test_it_is_over_when_the_time_is_up_and_not_before():
    enrolment = Enrolment("cabin", 10.0, 2.0, 50, FLOOR)
    assert not enrolment.over(11.99)
    assert enrolment.over(12.0)


def test_a_camera_that_delivers_nothing_is_told_from_an_empty_seat():
    assert record().refusal() == Refusal("no_frames")
    assert record((), (), ()).refusal() == Refusal("no_face")


def test_a_face_that_is_only_predicted_is_nobody():
    assert record(*[(face(coasting=True),)] * 30).refusal() == Refusal("no_face")


def test_two_people_side_by_side_are_refused():
    enrolment = record(*[(face(100), face(80))] * 60)
    assert enrolment.refusal() == Refusal("several_faces")
    assert enrolment.samples == []


def test_somebody_on_the_back_seat_does_not_matter():
    enrolment = record(*[(face(100), face(50))] * 60)
    assert enrolment.refusal() is None
    assert len(enrolment.samples) == 10


def test_somebody_who_leans_in_for_a_moment_is_never_sampled_but_stops_nothing():
    enrolment = record(*[(face(100), face(95))] * 20, *[(face(100),)] * 40)
    assert enrolment.refusal() is None
    assert len(enrolment.samples) == 7


def test_who_takes_the_seat_in_the_middle_of_a_recording_is_not_mixed_in():
    enrolment = record(*[(face(),)] * 30, *[(face(track=2),)] * 30)
    assert enrolment.refusal() == Refusal("person_changed")
    assert len(enrolment.samples) == 5
    assert "record again" in enrolment.refusal().advice


def test_who_leaves_before_the_first_sample_changes_nothing():
    blurred = Quality(40.0, 1.0, 120.0, 50.0, Pose(0.0, 0.0, 0.0), ("blurred",))
    enrolment = record(*[(face(quality=blurred, track=7),)] * 20, *[(face(track=8),)] * 40)
    assert enrolment.refusal() is None


def test_two_people_on_one_track_are_told_by_their_faces():
    """As when one head passes before another and the track goes over to it."""
    first = [(face(embedding=like(i // 6)),) for i in range(30)]
    second = [(face(embedding=like(i // 6, person=1)),) for i in range(30)]
    assert record(*first, *second).refusal() == Refusal("several_people")
    assert record(*first, *second[:6]).refusal() == Refusal("several_people")
    assert record(*first, *first).refusal() is None


@given(st.permutations(range(9)), st.integers(0, 4))
def test_the_fewer_are_the_strangers_in_whatever_order_they_come(order, others):
    looks = [like(i, person=int(i < others)) for i in order]
    assert strangers(looks, FLOOR) == [place for place, i in enumerate(order) if i < others]


def test_of_one_look_at_each_of_two_people_nobody_can_say_who_is_meant():
    assert len(strangers([like(0), like(1, person=1)], FLOOR)) == 1
    assert strangers([like(0)], FLOOR) == []


def test_only_poor_faces_are_refused_with_the_commonest_reason():
    enrolment = record(
        *[(poor("blurred"),)] * 10, *[(poor("too_dark", "blurred"),)] * 5, *[(poor("too_dark"),)] * 20
    )
    assert enrolment.refusal() == Refusal("poor_quality", "too_dark")
    assert "light" in enrolment.refusal().advice


def test_a_few_good_faces_among_poor_ones_suffice():
    enrolment = record(*[(poor("blurred"),)] * 50, *[(face(),)] * 10)
    assert enrolment.refusal() is None
    assert len(enrolment.samples) == 2


def test_a_face_that_nobody_looked_at_gives_no_sample():
    assert record(*[(face(looked=False),)] * 30).refusal() == Refusal("poor_quality")
    assert record(*[(face(quality=None),)] * 30).refusal() == Refusal("poor_quality")


def test_other_cameras_stale_frames_and_frames_from_before_do_not_count():
    enrolment = Enrolment("cabin", 10.0, 2.0, 50, FLOOR)
    assert not enrolment.add(reading(10.5, face(), camera="rear"))
    assert not enrolment.add(reading(9.9, face()))
    assert not enrolment.add(reading(10.5, face(), valid=False))
    assert enrolment.refusal() == Refusal("no_frames")


def test_there_is_advice_for_every_reason():
    reasons = ("too_small", "too_dark", "too_bright", "low_contrast", "blurred", "turned_away")
    for refusal in (
        Refusal("no_frames"),
        Refusal("no_face"),
        Refusal("several_faces"),
        Refusal("person_changed"),
        Refusal("several_people"),
        Refusal("poor_quality"),
    ):
        assert refusal.advice
    for reason in reasons:
        assert Refusal("poor_quality", reason).advice == ADVICE[reason]
