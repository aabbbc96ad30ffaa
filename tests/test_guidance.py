"""What somebody who is being recorded is told."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Quality as Limits
from agent.guidance import ADVICE, CALM, MOVING, POSES, PROMPTS, Movement, face_hint, pose_hint
from agent.perception.quality import QualityGate
from agent.perception.types import Pose, Quality

AHEAD = Pose(0.0, 0.0, 0.0)
LANDMARKS = np.array([[100, 100], [160, 100], [130, 134], [104, 164], [156, 164]], np.float32)


def quality(pose: Pose = AHEAD, *reasons: str) -> Quality:
    return Quality(40.0, 100.0, 120.0, 50.0, pose, reasons)


def test_the_drivers_own_left_is_the_right_of_the_image():
    """The camera looks the driver in the face: a nose that moves to the right of the image turns to the left."""
    turned = LANDMARKS.copy()
    turned[2, 0] += 14  # the tip of the nose
    gate = QualityGate(Limits(), 150)
    chip = np.zeros((150, 150, 3), np.uint8)
    pose = gate.measure(chip, turned, 640).pose
    assert pose_hint("left", pose, AHEAD) is None
    assert pose_hint("right", pose, AHEAD) == "turn_right"


@pytest.mark.parametrize(
    ("wanted", "pose", "hint"),
    [
        ("straight", Pose(3, -4, 20), None),
        ("straight", Pose(-20, 0, 0), "look_straight"),
        ("straight", Pose(0, 25, 0), "look_straight"),
        ("left", Pose(20, 3, 0), None),
        ("left", Pose(5, 0, 0), "turn_left"),
        ("left", Pose(-20, 0, 0), "turn_left"),
        ("left", Pose(38, 0, 0), "turn_less"),
        ("right", Pose(-20, 0, 0), None),
        ("right", Pose(-38, 0, 0), "turn_less"),
        ("up", Pose(0, 8, 0), None),
        ("up", Pose(0, 2, 0), "look_up"),
        ("up", Pose(0, 20, 0), "turn_less"),
    ],
)
def test_each_pose_is_led_to(wanted, pose, hint):
    assert pose_hint(wanted, pose, AHEAD) == hint


@given(st.sampled_from(POSES), st.floats(-20, 20), st.floats(-10, 10), st.floats(-60, 60), st.floats(-40, 40))
def test_a_turn_counts_from_the_persons_own_straight_look(wanted, yaw, pitch, turn, nod):
    own = Pose(yaw, pitch, 0.0)
    if wanted != "straight":
        assert pose_hint(wanted, Pose(yaw + turn, pitch + nod, 0.0), own) == pose_hint(
            wanted, Pose(yaw + turn - yaw, pitch + nod - pitch, 0.0), AHEAD
        )


def test_what_is_wrong_with_the_picture_is_told_before_the_pose():
    assert face_hint("left", quality(AHEAD, "too_dark", "turned_away"), AHEAD, moving=False) == "too_dark"
    assert face_hint("left", quality(AHEAD), AHEAD, moving=True) == "turn_left"
    assert face_hint("straight", quality(), None, moving=True) == "hold_still"
    assert face_hint("straight", quality(AHEAD, "blurred"), None, moving=True) == "hold_still"
    assert face_hint("straight", quality(AHEAD, "blurred"), None, moving=False) == "blurred"
    assert face_hint("straight", quality(), None, moving=False) is None


def test_a_face_that_the_gate_finds_turned_away_is_never_a_sample():
    narrow = quality(AHEAD, "turned_away")
    assert face_hint("straight", narrow, None, moving=False) == "look_straight"
    assert face_hint("left", quality(Pose(20, 0, 0), "turned_away"), AHEAD, moving=False) == "turn_less"


@given(st.floats(0, 5), st.floats(5, 60), st.floats(10, 200))
def test_the_speed_is_that_of_the_head_whatever_the_frame_rate_and_its_size(speed, fps, eyes):
    movement = Movement()
    face = LANDMARKS * (eyes / 60)
    measured = [
        movement.add(5 + i / fps, (face + speed * eyes * i / fps).astype(np.float32) * [1, 0] + face * [0, 1])
        for i in range(20)
    ]
    assert measured[0] == float("inf")  # one frame tells nothing
    assert measured[-1] == pytest.approx(speed, abs=0.02)


def test_a_detector_that_jitters_by_a_pixel_is_no_movement():
    """A pixel, where the eyes are 22 apart as on the sample clip: between two frames it looks like a fast head."""
    rng = np.random.default_rng(4)
    movement = Movement()
    face = LANDMARKS * 22 / 60
    speeds = [
        movement.add(i / 30, (face + rng.uniform(-1, 1, (5, 2))).astype(np.float32)) for i in range(120)
    ]
    assert max(speeds[10:]) < MOVING


def test_a_lost_face_is_forgotten():
    movement = Movement()
    movement.add(0.0, LANDMARKS)
    movement.forget()
    assert movement.add(0.1, LANDMARKS) == float("inf")


def test_every_code_is_in_the_guide_and_the_guide_names_no_other():
    """docs/enrolment.md holds a table of hints and one of refusals, each with the words."""
    text = (Path(__file__).parent.parent / "docs" / "enrolment.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE))
    for code, advice in ADVICE.items():
        assert told.get(code) == advice.format("Ada", "Ada"), code
    assert {*PROMPTS.values()} < CALM < {*ADVICE}
