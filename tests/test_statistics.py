"""Figures about the newest frames, in memory that does not grow."""

import threading

import numpy as np
import pytest

from agent.perception.types import Reading, Stamp
from agent.statistics import _KEPT, FrameTimes, Growth, percentiles


def reading(total: float, **steps: float) -> Reading:
    return Reading(Stamp("cabin", 0, 0.0, 0.0), (), stage_ms=steps, total_ms=total, engine_ms=total / 2)


def test_nothing_is_known_before_the_first_frame():
    times = FrameTimes()
    assert times.frame_ms() == {}
    assert times.stage_ms() == {}
    assert times.fps == 0
    assert times.overhead == 0


def test_percentiles_are_those_of_the_frames():
    times = FrameTimes()
    for ms in range(1, 101):
        times.add(reading(ms, detect=ms / 2))
    assert times.frame_ms()["p50"] == pytest.approx(50.5)
    assert times.stage_ms()["detect"]["p99"] == pytest.approx(99.01 / 2)
    assert times.overhead == pytest.approx(2)


def test_a_step_that_runs_seldom_is_measured_over_the_frames_in_which_it_ran():
    times = FrameTimes()
    for i in range(10):
        times.add(reading(5, detect=1, **({"face": 4} if i % 5 == 0 else {})))
    assert times.stage_ms()["face"] == {"p50": 4, "p95": 4, "p99": 4}


def test_after_very_many_frames_only_the_newest_count():
    times = FrameTimes()
    for i in range(_KEPT + 500):
        times.add(reading(1 if i < 600 else 3))
    assert times.frames == _KEPT + 500
    assert times.frame_ms()["p50"] == 3
    assert times._frame_ms.values().size == _KEPT
    assert (times._frame_ms.values()[:100] == 1).all()
    assert (times._frame_ms.values()[100:] == 3).all()


def test_one_thread_may_read_while_another_adds():
    times = FrameTimes()
    done = threading.Event()

    def add() -> None:
        while not done.is_set():
            times.add(reading(2, detect=1))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for _ in range(200):
            assert set(times.frame_ms().values()) <= {2}
            assert set(times.stage_ms().get("detect", {}).values()) <= {1}
    finally:
        done.set()
        thread.join()


def test_percentiles_of_nothing_are_none():
    assert percentiles(np.empty(0)) == {}


def test_late_frames_and_those_without_detection_are_counted_over_the_newest_frames():
    times = FrameTimes()
    assert (times.late(60), times.blind(60)) == (0, 0)
    for i in range(8):
        steps = {} if i % 4 == 0 else {"detect": 5.0}
        times.add(
            Reading(Stamp("cabin", i, 0.0, 0.0), (), stage_ms=steps, rung=5 - len(steps) * 5, late=i == 5)
        )
    assert (times.late(60), times.blind(60), times.complete, times.rung) == (1, 0.25, 6, 0)


def test_the_growth_of_a_count_is_that_of_the_time_looked_back():
    growth = Growth(60)
    assert growth.of(7, 0.0) == 0
    assert growth.of(9, 30.0) == 2
    assert growth.of(9, 61.0) == 0
    assert growth.of(14, 80.0) == 5
