"""When a worker is taken for dead, and when another one is started."""

import pytest

from agent.adaptation.watch import STARTS, WINDOW_S, WorkerWatch
from agent.config import AdaptationSettings

SETTINGS = AdaptationSettings(tier="statistics", hang_s=5.0, decide_s=30.0)


@pytest.fixture
def watch() -> WorkerWatch:
    made = WorkerWatch(SETTINGS)
    assert made.may_start(0.0)
    made.started(0.0)
    return made


def asked(watch: WorkerWatch, begin: float, end: float) -> str | None:
    """What is wrong at ``end``, when it was asked ten times a second since ``begin``."""
    for tenth in range(int(begin * 10), int(end * 10)):
        if trouble := watch.trouble(tenth / 10):
            return trouble
    return watch.trouble(end)


def test_a_worker_that_says_something_is_well(watch):
    for second in range(100):
        watch.heard(second, 0.0, ready=True)
        assert asked(watch, second, second + 1) is None
    assert watch.ready
    assert not watch.may_start(100.0)


def test_a_worker_that_is_silent_hangs(watch):
    assert asked(watch, 0, 5.0) is None
    assert asked(watch, 5.0, 5.2) == "silent"


def test_a_worker_that_decides_for_too_long_hangs_although_it_beats(watch):
    for second in range(31):
        watch.heard(second, float(second), ready=True)
        assert asked(watch, second, second + 1) is None
    watch.heard(31.0, 31.0, ready=True)
    assert watch.trouble(31.0) == "busy"


def test_nobody_is_blamed_for_time_in_which_nobody_listened(watch):
    watch.trouble(0.0)
    assert watch.trouble(3600.0) is None
    assert asked(watch, 3600.0, 3604.0) is None
    assert asked(watch, 3604.0, 3606.0) == "silent"


def test_one_that_worked_is_followed_soon_by_another_however_often(watch):
    now = 0.0
    for _ in range(20):
        watch.heard(now, 0.0, ready=True)
        watch.ended(now)
        assert not watch.may_start(now)
        now += 0.2
        assert watch.may_start(now)
        watch.started(now)
    assert watch.starts == 21


@pytest.mark.parametrize("ready", [True, False])
def test_those_that_come_to_nothing_follow_each_other_less_and_less_often(watch, ready):
    now, waits = 0.0, []
    for _ in range(12):
        if ready:
            watch.heard(now, 0.0, ready=True)
        watch.ended(now, in_vain=True)
        wait = next(each / 10 for each in range(1, 1000) if watch.may_start(now + each / 10))
        waits.append(wait)
        now += wait
        watch.started(now)
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == 30


def test_no_more_are_started_than_a_car_can_spare(watch):
    now = 0.0
    while watch.starts < STARTS:
        watch.heard(now, 0.0, ready=True)
        watch.ended(now)
        now += 0.5
        watch.started(now)
    watch.ended(now)
    assert not watch.may_start(now + 10)
    assert watch.may_start(WINDOW_S + 0.1)
