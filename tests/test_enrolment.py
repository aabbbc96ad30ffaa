"""What happens between pressing record and being enrolled, told as sequences of readings."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Enrolment as Settings
from agent.enrolment import SILENCE_S, Judgement, Refusal, Session, agreement_floor, conflict, strangers
from agent.gallery.types import Snapshot
from agent.guidance import ADVICE, POSES
from agent.perception.types import Detection, Face, Pose, Quality, Reading, Stamp

AHEAD = Pose(0.0, 0.0, 0.0)
POSED = {
    "straight": AHEAD,
    "left": Pose(20.0, 0.0, 0.0),
    "right": Pose(-20.0, 0.0, 0.0),
    "up": Pose(0.0, 8.0, 0.0),
}
THRESHOLD = 0.9258
FLOOR = agreement_floor(THRESHOLD)
JUDGEMENT = Judgement(THRESHOLD, FLOOR)


def good(pose: Pose = AHEAD, *reasons: str) -> Quality:
    return Quality(40.0, 100.0, 120.0, 50.0, pose, reasons)


def like(number: int, person: int = 0) -> np.ndarray:
    """One of many looks at one of two people: cosines are as the default pack's, 0.96 and 0.84."""
    look = np.zeros(2000, np.float32)
    look[[0, 1 + person, 3 + number]] = 0.84**0.5, 0.12**0.5, 0.04**0.5
    return look


_frame = itertools.count()


def face(
    side: float = 100.0,
    quality: Quality | None = None,
    *,
    coasting: bool = False,
    looked: bool = True,
    track: int = 1,
    embedding: np.ndarray | None = None,
    at: float = 0.0,
) -> Face:
    """A face that looks a little different each time; ``at`` is where in the frame, in distances between the eyes."""
    landmarks = np.array([[0, 0], [40, 0], [20, 22], [3, 42], [37, 42]], np.float32) + 40 * at
    place = Detection((0.0, 0.0, side, side), 0.9, landmarks)
    if embedding is None:
        embedding = like(next(_frame) % 1900)
    return Face(
        track, place, coasting, quality or good(), "seen", None, None, embedding if looked and not coasting else None
    )  # fmt: skip


def poor(*reasons: str) -> Face:
    return face(quality=good(AHEAD, *reasons))


def reading(at: float, *faces: Face, camera: str = "cabin", valid: bool = True) -> Reading:
    return Reading(Stamp(camera, round(at * 30), at, at), faces, valid=valid)


def session(seconds: float = 20.0, most: int = 50, **settings: int) -> Session:
    return Session("cabin", 10.0, seconds, Settings(**settings), most, THRESHOLD)


def record(*faces_of: tuple[Face, ...], seconds: float = 2.0, fps: float = 30.0) -> Session:
    """A session from second 10 on, of readings at an even rate; it is over when they end."""
    made = session(seconds)
    for i, faces in enumerate(faces_of):
        made.add(reading(10.0 + i / fps, *faces))
    made.over(10.0 + len(faces_of) / fps)
    return made


def follow(
    made: Session, obeys=lambda wanted: wanted, seconds: float = 20.0, fps: float = 30.0
) -> list[tuple]:
    """Somebody does as the session says, as far as ``obeys`` lets them; what was told and taken, in order."""
    told: list[tuple] = [(made.hint,)]
    for i in range(round(seconds * fps)):
        at = 10.0 + i / fps
        if made.over(at):
            break
        wanted = made.wanted
        if made.add(reading(at, face(quality=good(POSED[obeys(wanted)])))):
            told.append(("sample", wanted, round(at, 3)))
        if told[-1] != (made.hint,) and [each for each in told if len(each) == 1][-1] != (made.hint,):
            told.append((made.hint,))
    return told


# The way through a session


def test_the_poses_are_asked_for_in_turn_and_it_ends_when_all_are_done():
    made = session()
    told = follow(made)
    prompts = ["look_straight", "turn_left", "turn_right", "look_up"]
    assert [hint for (hint, *rest) in told if not rest] == [
        each for prompt in prompts for each in (prompt, "good")
    ]
    assert [pose for (_, pose, *_) in (each for each in told if len(each) > 1)] == [
        p for p in POSES for _ in range(3)
    ]
    assert made.poses == {"straight": 3, "left": 3, "right": 3, "up": 3}
    assert (made.wanted, made.missing, made.refusal()) == (None, (), None)
    assert made.complete == len(made.samples) == 12
    last = [each for each in told if len(each) > 1][-1][2]
    assert last < 10 + 6  # of 20 seconds


def test_samples_are_a_fifth_of_a_second_apart():
    times = [each[2] for each in follow(session()) if len(each) > 1]
    assert min(np.diff(times)) >= 0.2 - 1e-9


def test_who_cannot_turn_to_one_side_is_enrolled_without_it_and_the_others_are_not_held_up():
    made = session()
    follow(made, lambda wanted: "straight" if wanted == "left" else wanted)
    assert made.missing == ("left",)
    assert made.poses == {"straight": 3, "left": 0, "right": 3, "up": 3}
    assert made.refusal() is None


def test_who_never_turns_is_enrolled_from_straight_looks_when_the_time_is_up():
    made = session()
    told = follow(made, lambda wanted: "straight")
    assert made.missing == ("left", "right", "up")
    assert made.refusal() is None
    assert made.over(30.0)
    assert [each for each in told if len(each) == 1][-1] == (
        "look_up",
    )  # each pose had its share of the time


def test_who_never_looks_straight_is_not_enrolled_and_told_why():
    made = session()
    follow(made, lambda wanted: "left")
    assert made.samples == []
    assert made.refusal() == Refusal("poor_quality", "look_straight")
    assert made.refusal().advice == ADVICE["look_straight"]


def test_one_straight_look_is_too_few():
    made = record((face(),), (face(),), *[(poor("blurred"),)] * 40)
    assert len(made.samples) == 1
    assert made.refusal() == Refusal("poor_quality", "blurred")


def test_a_turn_is_measured_from_the_persons_own_straight_look():
    """Of one face the straight look measures 10 degrees of yaw: 25 is a turn by 15 then, and -20 one by 30."""
    made = session(samples=2)
    for i in range(40):
        made.add(reading(10 + i / 30, face(quality=good(Pose(10.0, 0.0, 0.0)))))
    assert made.wanted == "left"
    assert not made.add(reading(12.0, face(quality=good(Pose(22.0, 0.0, 0.0)))))
    assert made.add(reading(12.2, face(quality=good(Pose(26.0, 0.0, 0.0)))))


def test_who_turns_too_far_is_told():
    made = session()
    follow(made, lambda wanted: "straight", seconds=2.0)
    assert made.wanted == "left"
    for i in range(12):
        too_far = face(quality=good(Pose(45.0, 0.0, 0.0), "turned_away"))
        assert not made.add(reading(12 + i / 30, too_far))
    assert made.hint == "turn_less"


def test_a_picture_that_stands_still_gives_one_sample():
    """As a photograph held before the camera does, or a camera that repeats its last frame."""
    still = like(0)
    made = session()
    taken = [made.add(reading(10 + i / 30, face(embedding=still))) for i in range(300)]
    assert sum(taken) == 1
    assert made.hint == "move_a_little"
    assert made.refusal() == Refusal("poor_quality", "move_a_little")


def test_a_head_that_moves_gives_no_sample_until_it_holds_still():
    made = session()
    for i in range(30):  # two distances between the eyes a second
        assert not made.add(reading(10 + i / 30, face(at=2 * i / 30)))
    assert made.hint == "hold_still"
    assert any(made.add(reading(11 + i / 30, face(at=2.0))) for i in range(10))


def test_a_hint_does_not_flicker():
    made = session()
    for i in range(60):
        made.add(reading(10 + i / 30, poor("blurred") if i % 4 else poor("too_dark")))
        assert made.hint == "look_straight"


def test_it_is_over_when_the_time_is_up_and_not_before():
    made = session(2.0)
    made.add(reading(11.9, face()))
    assert not made.over(11.99)
    assert made.over(12.0)


def test_no_more_samples_are_taken_than_the_gallery_keeps():
    made = session(most=4)
    follow(made)
    assert made.complete == len(made.samples) == 4
    assert made.refusal() is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*POSED]),
            st.sampled_from([(), ("blurred",), ("turned_away",), ("too_dark", "blurred")]),
            st.integers(0, 3),
            st.floats(0, 0.2),
        ),
        max_size=60,
    )
)
def test_whatever_is_seen_nobody_is_enrolled_without_good_straight_looks(seen):
    made = session(5.0)
    at = 10.0
    for pose, reasons, tracks, moved in seen:
        at += 0.1
        faces = [face(quality=good(POSED[pose], *reasons), track=track, at=moved) for track in range(tracks)]
        made.add(reading(at, *faces))
        assert made.hint in ADVICE
    made.over(at)
    if made.refusal() is None:
        assert made.poses["straight"] >= 2
        assert all(sample.quality.good for sample in made.samples)
    assert sum(made.poses.values()) == len(made.samples) <= made.complete


# The camera


def test_a_camera_that_delivers_nothing_is_told_from_an_empty_seat_and_from_one_that_was_lost():
    silent = session()
    assert not silent.over(10 + SILENCE_S)
    assert silent.over(10.1 + SILENCE_S)
    assert silent.refusal() == Refusal("no_frames")
    assert record((), (), ()).refusal() == Refusal("no_face")
    lost = session()
    for i in range(20):
        lost.add(reading(10 + i / 30, face()))
    assert not lost.over(11.0)
    assert lost.over(11.0 + SILENCE_S)
    assert lost.refusal() == Refusal("camera_lost")


def test_other_cameras_stale_frames_and_frames_from_before_do_not_count():
    made = session(2.0)
    assert not made.add(reading(10.5, face(), camera="rear"))
    assert not made.add(reading(9.9, face()))
    assert not made.add(reading(10.5, face(), valid=False))
    assert made.refusal() == Refusal("no_frames")


# Whose samples they are


def test_a_face_that_is_only_predicted_is_nobody():
    assert record(*[(face(coasting=True),)] * 30).refusal() == Refusal("no_face")


def test_two_people_side_by_side_are_refused():
    made = record(*[(face(100), face(80))] * 60)
    assert made.hint == "several_faces"
    assert made.refusal() == Refusal("several_faces")
    assert made.samples == []


def test_somebody_on_the_back_seat_does_not_matter():
    made = record(*[(face(100), face(50)) for _ in range(60)])
    assert made.refusal() is None
    assert len(made.samples) == 3


def test_somebody_who_leans_in_for_a_moment_is_never_sampled_but_stops_nothing():
    made = record(*[(face(100), face(95))] * 20, *[(face(100),) for _ in range(40)])
    assert made.refusal() is None
    assert len(made.samples) == 3


def test_who_takes_the_seat_in_the_middle_of_a_recording_ends_it_and_is_not_mixed_in():
    other = face(track=2, embedding=like(7, person=1))
    made = record(*[(face(),) for _ in range(10)], (other,))
    assert made.over(10.5)
    assert made.refusal() == Refusal("person_changed")
    assert "record again" in made.refusal().advice
    assert not made.add(reading(10.5, face()))


def test_a_face_on_a_new_track_is_not_used_before_it_can_be_told_whose_it_is():
    made = session()
    follow(made, lambda wanted: "straight", seconds=1.0)
    taken = len(made.samples)
    hidden = face(quality=good(POSED["left"], "blurred"), track=2, embedding=like(7, person=1))
    assert not made.add(reading(11.5, hidden))
    assert not made.over(11.5)
    made.add(reading(11.6, face(quality=good(POSED["left"]), track=2, embedding=like(8, person=1))))
    assert made.refusal() == Refusal("person_changed")
    assert len(made.samples) == taken


def test_a_head_that_is_lost_while_it_turns_and_found_again_goes_on():
    made = session()
    follow(made, lambda wanted: "straight", seconds=1.0)
    for i in range(40):
        made.add(reading(11.5 + i / 30, face(quality=good(POSED["left"]), track=2)))
    assert made.poses["left"] == 3
    assert made.refusal() is None


def test_who_leaves_before_the_first_sample_changes_nothing():
    blurred = face(quality=good(AHEAD, "blurred"), track=7)
    made = record(*[(blurred,)] * 20, *[(face(track=8),) for _ in range(40)])
    assert made.refusal() is None


def test_two_people_on_one_track_are_told_by_their_faces():
    """As when one head passes before another and the track goes over to it."""
    made = session()
    for i in range(300):
        at = 10 + i / 30
        other = int(made.poses["left"] > 0)
        made.add(reading(at, face(quality=good(POSED[made.wanted or "up"]), embedding=like(i, person=other))))
    assert made.refusal() == Refusal("several_people")


@given(st.permutations(range(9)), st.integers(0, 4))
def test_the_fewer_are_the_strangers_in_whatever_order_they_come(order, others):
    looks = [like(i, person=int(i < others)) for i in order]
    assert strangers(looks, FLOOR) == [place for place, i in enumerate(order) if i < others]


def test_of_one_look_at_each_of_two_people_nobody_can_say_who_is_meant():
    assert len(strangers([like(0), like(1, person=1)], FLOOR)) == 1
    assert strangers([like(0)], FLOOR) == []


# Poor faces


def test_only_poor_faces_are_refused_with_the_commonest_reason():
    made = record(
        *[(poor("blurred"),)] * 10, *[(poor("too_dark", "blurred"),)] * 5, *[(poor("too_dark"),)] * 20
    )
    assert made.refusal() == Refusal("poor_quality", "too_dark")
    assert "light" in made.refusal().advice


def test_a_few_good_faces_among_poor_ones_suffice():
    made = record(*[(poor("blurred"),)] * 45, *[(face(),) for _ in range(14)])
    assert made.refusal() is None
    assert len(made.samples) >= 2


def test_a_face_that_nobody_looked_at_gives_no_sample():
    assert record(*[(face(looked=False),)] * 30).refusal() == Refusal("poor_quality")


# What the gallery says to it


def gallery(*people: int) -> Snapshot:
    """A template of each of these people."""
    rows = np.stack([np.mean([like(i, person) for i in range(3)], axis=0) for person in people])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return Snapshot(tuple(f"P{person}" for person in people), rows, np.arange(len(people)))


def looks(person: int, count: int = 3) -> list[np.ndarray]:
    return [like(10 + i, person) for i in range(count)]


def test_who_is_known_is_not_enrolled_again_and_a_stranger_is():
    assert conflict(looks(0), gallery(0, 1), None, JUDGEMENT) == Refusal("already_enrolled", "P0")
    assert "P0" in conflict(looks(0), gallery(0), None, JUDGEMENT).advice
    assert conflict(looks(0), gallery(1), None, JUDGEMENT) is None
    assert conflict(looks(0), Snapshot(), None, JUDGEMENT) is None


def test_one_look_that_happens_to_fit_is_not_enough_to_be_known():
    assert conflict([*looks(1, 2), like(10, 0)], gallery(0), None, JUDGEMENT) is None


def test_samples_are_added_to_the_one_they_show_only():
    assert conflict(looks(0), gallery(0, 1), "P0", JUDGEMENT) is None
    assert conflict(looks(1), gallery(0), "P0", JUDGEMENT) == Refusal("another_person", "P0")
    assert conflict(looks(1), gallery(0, 1), "P0", JUDGEMENT) == Refusal("another_person", "P0")


def test_who_has_no_template_of_this_pack_can_get_one():
    assert conflict(looks(0), gallery(1), "P0", JUDGEMENT) is None


def test_a_person_of_several_templates_is_known_by_the_best_of_them():
    two = gallery(1, 0)
    snapshot = Snapshot(("Ada",), two.templates, np.zeros(2, np.intp))
    assert conflict(looks(0), snapshot, None, JUDGEMENT) == Refusal("already_enrolled", "Ada")


def test_there_is_advice_for_every_refusal():
    codes = "no_frames camera_lost no_face several_faces person_changed several_people poor_quality"
    for code in codes.split():
        assert Refusal(code).advice == ADVICE[code]
    assert "{" not in Refusal("already_enrolled", "a{0}").advice.replace("a{0}", "")


@pytest.mark.parametrize("code", [*ADVICE])
def test_advice_is_a_sentence_for_people(code):
    assert 8 < len(ADVICE[code].format("Ada", "Ada")) < 130
