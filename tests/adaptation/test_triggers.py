"""What ends an adaptation: another camera picture, another driver."""

import numpy as np
import pytest

from agent.adaptation.triggers import CameraWatch, DriverWatch, track_number
from agent.events import CameraHealth
from agent.perception.types import Detection, Face, Match, Reading, Stamp


def camera(name: str = "cabin", reopened: int = 0, view: str = "clear", frames: int = 0) -> CameraHealth:
    return CameraHealth(name=name, state="open", frames=frames, dropped=0, reopened=reopened, view=view)


def face(track: int, person: str | None = None, state: str = "") -> Face:
    state = state or ("confirmed" if person else "unknown")
    where = Detection((0, 0, 10, 10), 1.0, np.zeros((5, 2), np.float32))
    return Face(track, where, False, None, state, Match(person, 0.9, 0.8), None)


def told(*frames: list[Face], name: str = "cabin", watch: DriverWatch | None = None) -> list[str | None]:
    watch = watch or DriverWatch()
    return [watch.look(Reading(Stamp(name, i, i / 30, 0.0), tuple(faces))) for i, faces in enumerate(frames)]


def test_a_camera_that_goes_on_is_no_reason():
    watch = CameraWatch()
    assert [watch.look([camera(frames=i)]) for i in range(3)] == [None] * 3


@pytest.mark.parametrize(
    ("after", "trigger"),
    [
        (camera(reopened=1), "camera"),
        (camera(view="dark"), "scene"),
        (camera(view="glare"), "scene"),
        (camera(reopened=1, view="dark"), "camera"),
    ],
)
def test_a_camera_that_was_opened_again_or_sees_otherwise_is_one_once(after, trigger):
    watch = CameraWatch()
    watch.look([camera(), camera("back")])
    assert watch.look([after, camera("back")]) == trigger
    assert watch.look([after, camera("back")]) is None


def test_cameras_that_come_and_go_from_the_list_are_none():
    watch = CameraWatch()
    assert watch.look([camera()]) is None
    assert watch.look([camera(), camera("back", reopened=4)]) is None
    assert watch.look([]) is None
    assert watch.look([camera(reopened=9)]) is None


def test_the_same_driver_on_another_track_is_the_same_driver():
    assert told([face(1, "Ada")], [], [face(2, state="seen")], [face(2, "Ada")]) == [None] * 4


@pytest.mark.parametrize(
    ("before", "after"),
    [("Ada", "Ben"), ("Ada", None), (None, "Ada")],
    ids=["known", "stranger", "known at last"],
)
def test_another_driver_is_noticed_once_it_is_decided_who_it_is(before, after):
    frames = [face(1, before)], [], [face(2, state="seen")], [face(2, after)], [face(2, after)]
    assert told(*frames) == [None, None, None, "driver", None]


def test_a_passenger_is_not_the_driver_while_the_driver_is_there():
    both = [face(2, "Ben"), face(1, "Ada")]
    assert told([face(1, "Ada")], both, both) == [None] * 3
    assert told([face(1, "Ada")], both, [face(2, "Ben")]) == [None, None, "driver"]


def test_who_is_recognised_at_last_is_not_another():
    assert told([face(1)], [face(1, "Ada")], [face(1, state="seen")], [face(1)]) == [None] * 4


def test_two_people_who_change_seats_under_one_track_are_noticed():
    assert told([face(1, "Ada")], [face(1, "Ben")]) == [None, "driver"]


def test_each_camera_has_a_driver_of_its_own():
    watch = DriverWatch()
    assert told([face(1, "Ada")], watch=watch) == [None]
    assert told([face(1, "Ben")], name="back", watch=watch) == [None]


def test_no_two_tracks_share_a_number():
    cameras = ["cabin", "back", "roof"]
    numbers = {track_number(cameras, name, track) for name in cameras for track in range(1, 50)}
    assert len(numbers) == 3 * 49
