"""The time stamps of a driver are believed when they can be what they are taken for, and never otherwise."""

from hypothesis import given
from hypothesis import strategies as st

from agent.driver_clock import DriverClock

UPTIME = 5000.0


def stamped(*frames: tuple[float, float]) -> list[float | None]:
    """What comes of frames with these stamps and reading times, both in seconds."""
    clock = DriverClock()
    return [clock.captured(stamp * 1e3, now) for stamp, now in frames]


def test_a_frame_was_captured_before_it_was_read():
    assert stamped((UPTIME - 0.04, UPTIME), (UPTIME - 0.007, UPTIME + 0.03)) == [
        UPTIME - 0.04,
        UPTIME - 0.007,
    ]


def test_a_frame_that_waited_in_the_driver_is_as_old_as_it_is():
    assert stamped((UPTIME - 0.04, UPTIME), (UPTIME + 0.03, UPTIME + 20))[1] == UPTIME + 0.03


def test_a_driver_that_does_not_stamp_is_not_believed():
    assert stamped((0, UPTIME), (0, UPTIME + 0.03)) == [None, None]
    assert stamped((-0.001, UPTIME)) == [None]


def test_a_driver_on_the_clock_on_the_wall_is_not_believed():
    assert stamped((1.7e9, UPTIME), (1.7e9 + 0.03, UPTIME + 0.03)) == [None, None]


def test_a_driver_that_counts_from_its_own_start_is_not_believed_even_if_it_comes_near_later():
    assert stamped((0.03, UPTIME), (UPTIME, UPTIME + 0.06)) == [None, None]


def test_a_driver_that_goes_back_or_stands_still_is_not_believed_any_more():
    stamps = stamped((UPTIME, UPTIME), (UPTIME, UPTIME + 0.03), (UPTIME + 0.05, UPTIME + 0.06))
    assert stamps == [UPTIME, None, None]


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.floats(0, 1e7)), max_size=20))
def test_what_is_believed_never_lies_in_the_future_nor_goes_back(frames):
    clock, last = DriverClock(), float("-inf")
    for stamp_ms, now in frames:
        captured = clock.captured(stamp_ms, now)
        if captured is not None:
            assert last < captured <= now
            last = captured
