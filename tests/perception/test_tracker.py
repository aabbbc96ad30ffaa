"""One face keeps one number while it can be followed, and loses it when it cannot."""

import numpy as np
import pytest

from agent.config import Tracking
from agent.perception.tracker import Tracker
from agent.perception.types import Detection


def face(x: float, y: float = 100.0, side: float = 50.0) -> Detection:
    landmarks = np.array(
        [
            [x + side * a, y + side * b]
            for a, b in ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.35, 0.8), (0.65, 0.8))
        ]
    )
    return Detection((x, y, x + side, y + side), 0.9, landmarks.astype(np.float32))


def test_a_face_that_moves_steadily_keeps_its_number():
    tracker = Tracker(Tracking())
    for i in range(60):
        tracks, lost = tracker.update([face(10 + 8 * i)], i / 30)
        assert [t.number for t in tracks] == [1]
        assert not lost


def test_two_faces_that_pass_each_other_keep_their_numbers():
    tracker = Tracker(Tracking())
    for i in range(41):
        left, right = face(0 + 10 * i, y=100), face(400 - 10 * i, y=135)
        tracks, _ = tracker.update([left, right] if i % 2 else [right, left], i / 30)
    by_number = {t.number: t.detection.box[1] for t in tracks}
    assert len(by_number) == 2
    first = tracks[0].number
    assert by_number[first] in (100, 135)
    assert {t.number for t in tracks} == {1, 2}


def test_a_face_that_is_missed_for_a_moment_coasts_on_and_is_met_again():
    tracker = Tracker(Tracking())
    for i in range(10):
        tracker.update([face(10 + 6 * i)], i / 30)
    for i in range(10, 14):
        tracks, lost = tracker.update([], i / 30)
        assert tracks[0].coasting
        assert not lost
        assert tracks[0].detection.box[0] == pytest.approx(10 + 6 * i, abs=4)
    tracks, _ = tracker.update([face(10 + 6 * 14)], 14 / 30)
    assert [t.number for t in tracks] == [1]
    assert not tracks[0].coasting


def test_a_face_that_is_looked_for_seldom_is_not_thrown_off_by_the_jitter_of_its_box():
    tracker = Tracker(Tracking())
    for i in range(240):
        x = 100 + 3 * (-1) ** (i // 8)
        tracks, lost = tracker.update([face(x)] if i % 8 == 0 else [], i / 30)
        assert [t.number for t in tracks] == [1]
        assert not lost
        assert tracks[0].detection.box[0] == pytest.approx(100, abs=10)


def test_a_face_unseen_for_too_long_is_lost_and_comes_back_as_another():
    tracker = Tracker(Tracking(lost_s=0.5))
    tracker.update([face(10)], 0.0)
    assert tracker.update([], 0.4)[1] == []
    assert tracker.update([], 0.6) == ([], [1])
    tracks, _ = tracker.update([face(10)], 0.7)
    assert tracks[0].number == 2


def test_after_a_gap_in_the_frames_a_face_in_the_old_place_is_a_new_face():
    tracker = Tracker(Tracking())
    tracker.update([face(10)], 0.0)
    tracks, lost = tracker.update([face(10)], 600.0)
    assert [t.number for t in tracks] == [2]
    assert lost == [1]


def test_tracks_can_be_ended_without_a_frame():
    tracker = Tracker(Tracking())
    tracker.update([face(10)], 0.0)
    assert tracker.expire(0.5) == []
    assert tracker.expire(1.5) == [1]
    assert tracker.expire(9.0) == []


def test_a_jump_across_the_frame_is_another_face():
    tracker = Tracker(Tracking())
    tracker.update([face(10)], 0.0)
    tracks, _ = tracker.update([face(300)], 0.03)
    assert sorted(t.number for t in tracks) == [1, 2]


def test_the_largest_face_comes_first():
    tracks, _ = Tracker(Tracking()).update([face(0, side=20), face(200, side=80)], 0.0)
    assert tracks[0].detection.box[0] == 200
