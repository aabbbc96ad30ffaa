"""The first gate names what is wrong with a face, and lets a good one through."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import Quality as Limits
from agent.perception.quality import _MODEL, QualityGate, apparent_width, head_pose

LANDMARKS = np.array([[100, 100], [160, 100], [130, 134], [104, 164], [156, 164]], np.float32)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The model face as the camera sees it after a turn to the right, a nod up and a clockwise tilt, in degrees."""
    y, p, r = np.radians([yaw, pitch, roll])
    # x right, y down, z away. The face looks along -z; a turn to the right moves that towards +x.
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (_MODEL @ (about_z @ about_y @ about_x).T)[:, :2].astype(np.float32) * 1.7 + 300


@given(st.floats(-50, 50), st.just(0.0), st.just(0.0))
def test_a_turn_is_read_as_yaw(yaw, pitch, roll):
    pose = head_pose(turned(yaw, pitch, roll))
    assert pose.yaw == pytest.approx(yaw, abs=0.5)
    assert pose.pitch == pytest.approx(0, abs=0.5)


@given(st.floats(-40, 40))
def test_a_nod_is_read_as_pitch_upwards(pitch):
    assert head_pose(turned(0, pitch, 0)).pitch == pytest.approx(pitch, abs=0.5)


@given(st.floats(-170, 170))
@example(90.0)
@example(-90.0)
def test_a_tilt_is_read_as_roll_clockwise(roll):
    pose = head_pose(turned(0, 0, roll))
    assert pose.roll == pytest.approx(roll, abs=0.5)
    assert abs(pose.yaw) < 1
    assert abs(pose.pitch) < 1


def test_landmarks_on_one_line_are_a_profile_not_a_crash():
    assert head_pose(np.stack([np.arange(5), np.zeros(5)], axis=1).astype(np.float32)).yaw == pytest.approx(
        90
    )


def textured(mean: float = 120, spread: float = 40) -> np.ndarray:
    rng = np.random.default_rng(3)
    grey = cv2.GaussianBlur(rng.normal(0, 1, (150, 150)).astype(np.float32), (0, 0), 1.5)
    grey = grey / grey.std() * spread + mean
    return cv2.cvtColor(grey.clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def reasons(chip: np.ndarray, landmarks: np.ndarray = LANDMARKS, longer: int = 640) -> tuple[str, ...]:
    return QualityGate(Limits(), 150).measure(chip, landmarks, longer).reasons


def test_a_sharp_well_lit_frontal_face_passes():
    assert reasons(textured()) == ()


@pytest.mark.parametrize(
    ("chip", "code"),
    [
        (textured(mean=10, spread=20), "too_dark"),
        (textured(mean=250, spread=20), "too_bright"),
        (textured(spread=4), "low_contrast"),
        (cv2.GaussianBlur(textured(spread=80), (0, 0), 6), "blurred"),
    ],
)
def test_a_bad_chip_is_named(chip, code):
    assert code in reasons(chip)


def test_a_far_face_is_too_small():
    assert reasons(textured(), LANDMARKS / 10) == ("too_small",)


def test_a_face_in_profile_is_turned_away():
    assert reasons(textured(), turned(65, 0, 0)) == ("turned_away",)


def test_a_face_that_is_a_small_share_of_a_large_picture_is_too_small():
    """What counts is what the detector is shown of it, which scales every picture to one size."""
    assert reasons(textured(), longer=1920) == ()
    assert reasons(textured(), longer=3840) == ("too_small",)


def test_a_face_that_is_narrow_for_its_height_is_turned_away_whatever_its_nose_says():
    """As the landmarks that the detector makes up for the half of a face that it does not see."""
    squeezed = LANDMARKS * [0.6, 1.0] + [50, 0]
    assert abs(head_pose(squeezed.astype(np.float32)).yaw) < 1
    assert reasons(textured(), squeezed.astype(np.float32)) == ("turned_away",)


@given(st.floats(-60, 60), st.just(0.0))
def test_a_turned_face_looks_narrow_by_the_cosine_of_the_turn(yaw, roll):
    assert apparent_width(turned(yaw, 0, roll)) == pytest.approx(np.cos(np.radians(yaw)), abs=0.02)
