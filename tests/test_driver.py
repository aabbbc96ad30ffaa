"""Stories of drivers: what is said of each, and that nobody is warned of what was not seen."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ConfigError, parse
from agent.config import Driver as Settings
from agent.driver import STEPS_S, Driver, Watch, advance
from agent.events import DriverEvent
from agent.perception.quality import _MODEL
from agent.perception.types import Detection, Emotion, Face, Match, Pose, Quality, Reading, Stamp
from agent.publishing import DriverNarrator

FPS = 20
SIZE = (640, 480)
GOOD = Quality(80.0, 200.0, 120.0, 40.0, Pose(0.0, 0.0, 0.0))
ADA = Match("Ada", 0.96, 0.93)


def landmarks(yaw: float, pitch: float, scale: float = 1.2) -> np.ndarray:
    """The model face after a turn to the right and a nod up, degrees; ``scale`` in pixels a millimetre."""
    y, p = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    return (_MODEL @ (about_y @ about_x).T)[:, :2].astype(np.float32) * scale


def face(yaw: float = 0.0, pitch: float = 0.0, track: int = 1, x: float = 0.5, **more: object) -> Face:
    """A face whose middle is at ``x`` of the picture's width, and half its height."""
    width = more.pop("width", 100.0)
    scale = more.pop("scale", 1.2)
    centre = np.array([x * SIZE[0], SIZE[1] / 2])
    box = (*(centre - width / 2), *(centre + width / 2))
    points = landmarks(yaw, pitch, scale)
    found = Detection(box, 0.9, (points - points.mean(axis=0) + centre).astype(np.float32))
    values = {"coasting": False, "quality": GOOD, "state": "seen", "match": None, "emotion": None} | more
    return Face(track, found, **values)


AHEAD, AWAY, DOWN = face(), face(yaw=45.0), face(pitch=-20.0)


class Story:
    """What is known of a driver from frame to frame, at 20 frames a second."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.watch: Watch | None = None
        self.now = 100.0
        self.frame = 0

    def see(self, *faces: Face, seconds: float = 1 / FPS, every: float = 1 / FPS, **about: object) -> Driver:
        """Show these faces for so long; what is known at the end."""
        for known in self.frames(faces, seconds, every, **about):
            last = known
        return last

    def frames(
        self, faces: Iterable[Face], seconds: float, every: float = 1 / FPS, **about: object
    ) -> Iterator[Driver]:
        """The same, and what is known after each frame."""
        valid, view = about.get("valid", True), about.get("view", "clear")
        for _ in range(max(1, round(seconds / every))):
            self.now += every
            self.frame += 1
            stamp = Stamp("cabin", self.frame, self.now, 0.0, view=view, size=SIZE)
            self.watch = advance(self.watch, Reading(stamp, tuple(faces), valid=valid), self.settings)
            yield self.watch.driver

    def begin(self, *faces: Face) -> "Story":
        """Somebody is known to drive, and to look at the road."""
        assert self.see(*(faces or (AHEAD,)), seconds=4).attention == "attentive"
        return self

    def until_warned(self, *faces: Face, level: int, most: float = 15.0) -> float:
        """Seconds until a warning of that level."""
        begun = self.now
        for known in self.frames(faces, most):
            if known.warning >= level:
                return self.now - begun
        raise AssertionError(f"no warning {level} within {most} s")


# Looking away


def test_who_looks_ahead_is_attentive_and_is_not_warned():
    story = Story().begin()
    assert all(
        (known.attention, known.warning, known.away_s) == ("attentive", 0, 0.0)
        for known in story.frames([AHEAD], 60)
    )


@pytest.mark.parametrize("elsewhere", [AWAY, DOWN, face(yaw=-45.0), face(yaw=65.0)])
def test_a_long_look_away_is_warned_of_after_3_5_and_11_seconds(elsewhere):
    story = Story().begin()
    begun = story.now
    for level, step in enumerate(STEPS_S, 1):
        story.until_warned(elsewhere, level=level)
        assert story.now - begun == pytest.approx(step, abs=0.2)
    known = story.watch.driver
    assert (known.attention, known.reason, known.warning) == ("distracted", "long_look", 3)


def test_a_look_into_a_mirror_is_a_look_away_but_no_warning():
    story = Story().begin()
    seen = [known for _ in range(3) for known in (*story.frames([AWAY], 1.5), *story.frames([AHEAD], 3))]
    assert {known.attention for known in seen} == {"attentive", "distracted"}
    assert not any(known.warning for known in seen)


def test_a_glance_too_short_to_be_one_changes_nothing_either_way():
    story = Story().begin()
    assert all(known.attention == "attentive" for _ in range(9) for known in (
        *story.frames([AWAY], 0.3), *story.frames([AHEAD], 0.7)))  # fmt: skip
    story.see(AHEAD, seconds=3)
    story.until_warned(AWAY, level=1)
    assert story.see(AHEAD, seconds=0.3).warning == 1
    assert story.until_warned(AWAY, level=2) == pytest.approx(2.0, abs=0.3)


def test_looking_back_ends_the_warning():
    story = Story().begin()
    story.until_warned(AWAY, level=2)
    known = story.see(AHEAD, seconds=1)
    assert (known.attention, known.warning, known.reason, known.away_s) == ("attentive", 0, None, 0.0)
    assert story.until_warned(AWAY, level=1) == pytest.approx(3.0, abs=0.2)


def test_looking_away_again_and_again_is_warned_of_until_the_driver_has_looked_ahead_for_2_seconds():
    story = Story().begin()
    warned = None
    for number in range(1, 12):
        story.see(AWAY, seconds=2)
        if story.see(AHEAD, seconds=1).warning:
            warned = number
            break
    assert warned == 6  # of each look the first frame is not counted: 9.75 s had been seen of five
    known = story.watch.driver
    assert (known.attention, known.warning, known.reason) == ("attentive", 1, "repeated_looks")
    assert story.see(AHEAD, seconds=0.8).warning == 1
    assert story.see(AHEAD, seconds=0.4).warning == 0
    assert story.see(AWAY, seconds=2).warning == 0


def test_the_same_looks_over_a_longer_time_are_not():
    story = Story().begin()
    for _ in range(12):
        assert story.see(AWAY, seconds=0.9).warning == 0
        assert story.see(AHEAD, seconds=1.9).warning == 0


def test_an_open_mouth_or_a_lifted_chin_is_not_a_look_away():
    assert Story().begin().see(face(pitch=30.0), seconds=5).attention == "attentive"


def test_at_the_limit_nothing_flickers():
    story = Story().begin()
    jitter = [face(yaw=30.0 + (-1) ** i) for i in range(400)]
    said = [known.attention for each in jitter for known in story.frames([each], 1 / FPS)]
    assert sum(a != b for a, b in pairwise(said)) <= 1


def test_a_camera_at_the_side_is_told_where_ahead_is():
    story = Story(Settings(yaw=35.0, pitch=-10.0)).begin(face(yaw=35.0, pitch=-10.0))
    assert story.see(face(yaw=35.0, pitch=-18.0), seconds=2).attention == "attentive"
    assert story.see(face(yaw=0.0, pitch=-10.0), seconds=2).attention == "distracted"


# What cannot be seen

UNCLEAR = {
    "blurred": replace(AWAY, quality=replace(GOOD, reasons=("blurred",))),
    "not looked at yet": replace(AWAY, quality=None),
    "coasting": replace(AWAY, coasting=True),
    "far away": face(yaw=45.0, scale=0.15),
    "in profile, with the landmarks of a narrow face": replace(
        AHEAD,
        detection=replace(AHEAD.detection, landmarks=landmarks(0, 0) * np.array([0.55, 1], np.float32)),
    ),
    "not a number": replace(
        AHEAD, detection=replace(AHEAD.detection, landmarks=np.full((5, 2), np.nan, np.float32))
    ),
    "on one point": replace(
        AHEAD, detection=replace(AHEAD.detection, landmarks=np.zeros((5, 2), np.float32))
    ),
}


@pytest.mark.parametrize("unclear", UNCLEAR.values(), ids=UNCLEAR.keys())
def test_a_face_that_is_not_well_seen_is_uncertain_and_never_warned_of(unclear):
    story = Story().begin()
    seen = list(story.frames([unclear], 20))
    assert seen[-1].attention == "uncertain"
    assert seen[-1].present
    assert seen[-1].pose is None
    assert not any(known.warning for known in seen)
    assert seen[FPS].attention == "attentive"  # after a second nothing has been forgotten yet


def test_a_turned_head_is_seen_although_it_is_not_fit_for_recognition():
    turned = replace(face(yaw=60.0), quality=replace(GOOD, reasons=("too_small", "turned_away")))
    assert Story().begin().until_warned(turned, level=1) == pytest.approx(3.0, abs=0.2)


def test_what_is_not_seen_for_a_moment_stops_the_clock():
    story = Story().begin()
    story.see(AWAY, seconds=2)
    story.see(UNCLEAR["blurred"], seconds=1.5)
    assert story.until_warned(AWAY, level=1) == pytest.approx(1.0, abs=0.2)


def test_what_is_not_seen_for_long_starts_it_anew():
    story = Story().begin()
    story.until_warned(AWAY, level=2)
    assert story.see(UNCLEAR["blurred"], seconds=2.5).warning == 0
    assert story.until_warned(AWAY, level=1) == pytest.approx(3.0, abs=0.2)


def test_under_a_cover_nothing_is_known_of_anybody_and_nobody_is_said_to_be_gone():
    story = Story().begin(face(state="confirmed", match=ADA))
    story.until_warned(AWAY, level=1)
    seen = list(story.frames([], 10, valid=False, view="covered"))
    assert {known.present for known in seen} == {True, None}
    known = seen[-1]
    assert known == Driver(known.since)
    assert seen[2 * FPS + 5].attention == "uncertain"
    assert story.see(AHEAD, seconds=2).attention == "attentive"


def test_a_frozen_picture_of_a_driver_who_looks_ahead_says_nothing():
    story = Story().begin()
    known = story.see(AHEAD, seconds=3, valid=False, view="frozen")
    assert (known.present, known.attention) == (None, "uncertain")


def test_a_camera_that_falls_silent_knows_nothing_at_once():
    story = Story().begin()
    story.until_warned(AWAY, level=1)
    silent = Reading(Stamp("cabin", -1, story.now + 1.1, 0.0), ())
    assert advance(story.watch, silent, story.settings).driver == Driver(story.now + 1.1)


def test_in_the_dark_no_face_does_not_mean_that_nobody_drives():
    story = Story().begin()
    assert story.see(seconds=5, view="dark").present is None
    assert story.see(seconds=5, view="clear").present is False


def test_frames_that_are_dropped_do_not_hide_a_look_away():
    story = Story().begin()
    begun = story.now
    for known in story.frames([AWAY], 10, every=0.5):
        if known.warning:
            break
    assert story.now - begun == pytest.approx(3.5, abs=0.6)


def test_frames_that_are_too_far_apart_tell_of_no_look():
    story = Story().begin()
    assert story.see(AWAY, seconds=60, every=1.5).warning == 0


def test_what_was_seen_ahead_before_a_gap_does_not_count_as_away_after_it():
    story = Story()
    story.see(AHEAD, seconds=0.9)  # half a second to be the driver, and too little to be a look
    story.see(UNCLEAR["blurred"], seconds=1.0)
    assert story.until_warned(AWAY, level=1) == pytest.approx(3.05, abs=0.06)


def test_a_sleeping_computer_counts_as_nothing_seen():
    story = Story().begin()
    story.see(AWAY, seconds=2)
    story.now += 3600
    assert not any(known.warning for known in story.frames([AWAY], 2.8))


def test_a_clock_that_runs_backwards_begins_anew():
    story = Story().begin()
    story.until_warned(AWAY, level=2)
    story.now -= 50
    known = story.see(AWAY)
    assert (known.attention, known.warning) == ("uncertain", 0)
    assert story.until_warned(AWAY, level=1) == pytest.approx(
        3.5, abs=0.2
    )  # half of one to be taken for the driver


# Who it is


def test_the_driver_has_a_name_an_expression_and_a_pose():
    known = Story().see(
        face(
            yaw=5.0,
            state="confirmed",
            match=ADA,
            emotion=Emotion("happy", (1.0,)),
        ),
        seconds=2,
    )
    assert (known.present, known.track, known.state, known.person) == (True, 1, "confirmed", "Ada")
    assert known.emotion == "happy"
    assert known.pose.yaw == pytest.approx(5, abs=0.5)


def test_nobody_is_named_before_the_vote_has_decided():
    known = Story().see(face(match=ADA), seconds=2)
    assert (known.state, known.person) == ("seen", None)


def test_an_empty_seat_is_told_after_a_while():
    story = Story()
    assert story.see(seconds=1).present is None
    assert story.see(seconds=2).present is False


def test_a_driver_who_is_not_found_for_a_second_has_not_gone():
    story = Story().begin()
    assert all(known.present for known in story.frames([], 1.5))
    assert story.see(seconds=1).present is False


def test_when_another_one_takes_the_wheel_the_clock_starts_anew():
    story = Story().begin()
    story.until_warned(AWAY, level=2)
    other = replace(AWAY, track=2)
    known = story.see(other, seconds=0.6)
    assert (known.track, known.warning, known.attention) == (2, 0, "uncertain")
    assert story.until_warned(other, level=1) == pytest.approx(2.9, abs=0.2)


def test_who_leans_in_for_a_moment_is_not_the_driver():
    story = Story().begin()
    near = face(yaw=45.0, track=2, width=200.0)
    assert all(known.track == 1 for known in story.frames([near, AHEAD], 0.4))


@pytest.mark.parametrize(("side", "track"), [("left", 1), ("right", 2), ("either", 2)])
def test_of_two_in_front_the_driver_sits_on_the_side_that_is_configured(side, track):
    story = Story(Settings(side=side))
    left, right = face(track=1, x=0.3), face(track=2, x=0.7, width=120.0)
    assert story.see(right, left, seconds=2).track == track


def test_two_faces_of_about_the_same_size_do_not_take_turns():
    story = Story().begin()
    beside = replace(AHEAD, track=2)
    seen = [known.track for _ in range(50) for pair in ((AHEAD, beside), (beside, AHEAD))
            for known in story.frames(pair, 1 / FPS)]  # fmt: skip
    assert set(seen) == {1}


def test_a_face_outside_the_zone_is_not_the_driver_but_a_driver_may_lean_out_a_little():
    story = Story(Settings(zone=(0.4, 0.0, 1.0, 1.0)))
    assert story.see(face(x=0.35), seconds=4).present is False
    assert story.see(face(x=0.45), seconds=2).track == 1
    assert story.see(face(x=0.35), seconds=4).track == 1
    assert story.see(face(x=0.2), seconds=4).present is False


# Whatever happens

UNSEEN_S = 0.8  # more than what is bridged between two sights that agree
MOMENTS = st.one_of(
    st.tuples(st.just(AHEAD), st.floats(0.05, 8.0)),
    st.tuples(st.sampled_from([AWAY, DOWN]), st.floats(0.05, 6.0)),
    st.tuples(st.sampled_from([*UNCLEAR.values(), None]), st.floats(UNSEEN_S, 4.0)),
)


@given(st.lists(MOMENTS, max_size=15), st.sampled_from([0.02, 0.05, 0.2, 0.6, 1.0]))
def test_nobody_is_warned_before_the_looks_away_have_been_seen_for_long_enough(moments, every):
    """Reckoned apart from the policy: a frame that shows a look away speaks for the time since the one before."""
    story, look_s, looks_s = Story(), 0.0, 0.0
    for shown, seconds in moments:
        away = shown is AWAY or shown is DOWN
        ahead_s = 0.0
        for known in story.frames([shown] if shown else [], seconds, every):
            ahead_s += every if shown is AHEAD else 0.0
            look_s, looks_s = (look_s + every, looks_s + every) if away else (look_s, looks_s)
            if known.reason == "long_look":
                assert look_s > {1: 3, 2: 5, 3: 11}[known.warning] - 1e-6
                assert known.attention == "distracted"
            elif known.reason == "repeated_looks":
                assert looks_s > 10 - 1e-6
                assert known.warning == 1
            else:
                assert known.warning == 0
            if every < 0.7 and ahead_s > 0.5 + 4 * every:
                look_s = 0.0
                assert known.attention in ("attentive", "uncertain")
            if every < 0.7 and ahead_s > 2.5 + 4 * every:
                looks_s = 0.0
                assert (known.attention, known.warning) == ("attentive", 0)


@given(st.lists(MOMENTS, max_size=10), st.sampled_from([0.05, 0.2]))
def test_what_is_said_changes_at_most_twice_a_second(moments, every):
    story, last, changed = Story(), None, []
    for shown, seconds in moments:
        for known in story.frames([shown] if shown else [], seconds, every):
            if last is not None and known.attention != last and "uncertain" not in (known.attention, last):
                changed.append(story.now)
            last = known.attention
    assert all(b - a >= 0.5 - 1e-9 for a, b in pairwise(changed))


# What is told


def told(readings: Iterable[Reading], narrator: DriverNarrator | None = None) -> list[DriverEvent]:
    narrator = narrator or DriverNarrator()
    return [event for each in readings if (event := narrator.event(each, Settings()))]


def readings(shown: Face | None, seconds: float, start: float = 0.0, **about: object) -> list[Reading]:
    about = {"valid": True, "view": "clear"} | about
    return [
        Reading(
            Stamp("cabin", round(start * FPS) + i, start + i / FPS, 0.0, view=about["view"], size=SIZE),
            (shown,) if shown else (),
            valid=about["valid"],
        )
        for i in range(round(seconds * FPS))
    ]


def test_changes_are_told_at_once_and_the_rest_once_a_second():
    events = told([*readings(AHEAD, 10), *readings(AWAY, 4, start=10)])
    kinds = [(event.present, event.attention, event.warning) for event in events]
    assert list(dict.fromkeys(kinds)) == [
        (None, "uncertain", 0), (True, "uncertain", 0), (True, "attentive", 0), (True, "distracted", 0),
        (True, "distracted", 1),
    ]  # fmt: skip
    assert 14 <= len(events) <= 20
    warned = next(event for event in events if event.warning)
    assert warned.monotonic == pytest.approx(13.0, abs=0.2)
    assert warned.away_s == pytest.approx(3.0, abs=0.1)
    assert warned.pose.yaw == pytest.approx(45, abs=1)


def test_everything_told_may_be_believed_also_of_a_covered_camera():
    events = told([*readings(AHEAD, 5), *readings(None, 10, start=5, valid=False, view="covered")])
    assert all(event.valid for event in events)
    before, after = ([e for e in events if (e.monotonic >= 5) == late] for late in (False, True))
    assert before[-1].attention == "attentive"
    assert all((e.attention, e.present) != ("attentive", True) for e in after)
    assert len(after) >= 8  # it goes on saying that nothing is known


def test_a_publisher_in_the_place_of_another_goes_on_with_the_clock_and_says_all_again():
    first = DriverNarrator()
    told([*readings(AHEAD, 5), *readings(AWAY, 2, start=5)], first)
    second = DriverNarrator(first)
    events = told(readings(AWAY, 2, start=7), second)
    assert (events[0].monotonic, events[0].attention) == (7.0, "distracted")
    assert next(e.monotonic for e in events if e.warning) == pytest.approx(8.0, abs=0.2)


# Configuration


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('camera = "rear"', "no camera is called rear; the cameras are: cabin"),
        ("zone = [0.5, 0, 0.4, 1]", "left must be below right"),
        ("zone = [0, 0, 1]", "length 4"),
        ("max_yaw = 0", "driver.max_yaw"),
    ],
)
def test_a_driver_who_cannot_be_found_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse(f'[[cameras]]\nname = "cabin"\nsource = "0"\n[driver]\n{text}'.encode(), "x")


def test_the_driver_s_camera_is_the_first_unless_another_is_named_or_none_is_wanted():
    cameras = '[[cameras]]\nname = "a"\nsource = "0"\n[[cameras]]\nname = "b"\nsource = "1"\n[driver]\n'
    for text, name in (("", "a"), ('camera = "b"', "b"), ("enabled = false", "")):
        assert parse((cameras + text).encode(), "x").driver_camera == name
