"""What the lamp says, to somebody who has nothing else to look at."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.guidance import ADVICE, CALM, POSES, PROMPTS
from agent.led import DONE_S, Sign, is_dark, lit


def runs(sign: Sign | None, seconds: float, start: float = 100.0) -> list[tuple[bool, float]]:
    """The lamp's states with their lengths in seconds, as somebody sees who looks every hundredth of one."""
    levels = [lit(sign, start + i / 100) for i in range(round(seconds * 100))]
    return [(level, len([*same]) / 100) for level, same in groupby(levels)]


def recording(pose: str, hint: str) -> Sign:
    return Sign("recording", 100.0, pose, hint)


@pytest.mark.parametrize(("pose", "flashes"), [("straight", 1), ("left", 2), ("right", 3), ("up", 4)])
def test_the_wanted_pose_is_counted_out(pose, flashes):
    seen = runs(recording(pose, PROMPTS[pose]), 5.0)
    assert [level for level, _ in seen[: 2 * flashes]] == [True, False] * flashes
    pauses = [seconds for level, seconds in seen[:-1] if not level and seconds > 0.5]
    assert len([level for level, _ in seen[: 2 * flashes] if level]) == flashes
    assert pauses


def test_good_is_shown_as_the_pose_is():
    assert runs(recording("left", "good"), 3.0) == runs(recording("left", "turn_left"), 3.0)


@pytest.mark.parametrize("hint", [*{*ADVICE} - CALM])
def test_whatever_is_to_be_corrected_blinks_fast(hint):
    seen = runs(recording("left", hint), 2.0)
    assert len(seen) >= 19
    assert max(seconds for _, seconds in seen) <= 0.12


def test_done_is_steady_for_two_seconds():
    assert runs(Sign("done", 100.0), 5.0) == [
        (True, pytest.approx(DONE_S, abs=0.02)),
        (False, pytest.approx(3, abs=0.02)),
    ]


def test_refused_is_three_long_flashes():
    seen = runs(Sign("refused", 100.0), 6.0)
    assert [level for level, _ in seen] == [True, False] * 3
    assert all(seconds >= 0.45 for _, seconds in seen)


def test_without_a_recording_it_is_dark():
    assert not lit(None, 5.0)
    assert is_dark(None, 5.0)


@given(
    st.sampled_from(["recording", "done", "refused"]),
    st.sampled_from(POSES),
    st.sampled_from([*ADVICE]),
    st.floats(-1, 100),
    st.floats(0, 100),
)
def test_who_is_told_that_it_stays_dark_sees_it_dark(state, pose, hint, age, later):
    sign = Sign(state, 100.0, pose, hint)
    if is_dark(sign, 100.0 + age):
        assert not lit(sign, 100.0 + age + later)
    assert not (state == "recording" and is_dark(sign, 100.0 + age))
