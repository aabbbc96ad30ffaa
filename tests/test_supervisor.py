"""The policy of supervision, fed with what is known of stages, moment by moment."""

from hypothesis import given
from hypothesis import strategies as st

from agent.config import Supervision
from agent.supervisor import Supervisor, Trouble, Vital

SETTINGS = Supervision(stall_s=2.0, start_s=10.0, restarts=5, window_s=60.0)


def vital(**differently) -> Vital:
    known = {"alive": True, "ended": False, "started": 0.0, "beaten": 0.0, "stall_s": 2.0}
    return Vital(**known | differently)


def watch(supervisor: Supervisor, state: Vital, begin: float, end: float) -> float | None:
    """When the supervisor, who looks ten times a second, first finds something wrong with one stage."""
    for tick in range(round(begin * 10), round(end * 10)):
        if supervisor.judge({"stage": state}, tick / 10):
            return tick / 10
    return None


def test_a_stage_that_beats_is_left_alone():
    supervisor = Supervisor(SETTINGS)
    for tick in range(1000):
        assert not supervisor.judge({"stage": vital(beaten=tick / 10 - 1.9)}, tick / 10)


def test_a_stage_that_falls_silent_is_found_within_its_limit():
    assert watch(Supervisor(SETTINGS), vital(beaten=0.0), 0, 10) == 2.1
    assert watch(Supervisor(SETTINGS), vital(beaten=0.0, stall_s=7.0), 0, 10) == 7.1


def test_a_dead_stage_is_found_at_once_and_one_that_has_ended_is_not_dead():
    supervisor = Supervisor(SETTINGS)
    assert supervisor.judge({"stage": vital(alive=False)}, 1.0) == {"stage": Trouble("died", hopeless=False)}
    assert supervisor.judge({"stage": vital(alive=False, ended=True)}, 1.1) == {}


def test_a_stage_that_begins_has_longer_and_is_not_tried_again_when_it_never_works():
    supervisor = Supervisor(SETTINGS)
    starting = vital(beaten=None)
    assert watch(supervisor, starting, 0, 9) is None
    assert watch(supervisor, starting, 9, 12) == 10.1
    assert supervisor.judge({"stage": starting}, 10.2)["stage"].hopeless
    assert supervisor.judge({"stage": vital(alive=False, beaten=None)}, 10.3)["stage"].hopeless


def test_a_successor_that_does_not_begin_is_tried_again():
    supervisor = Supervisor(SETTINGS)
    state = vital(alive=False, beaten=None, first=False)
    assert supervisor.judge({"stage": state}, 1.0) == {"stage": Trouble("died", hopeless=False)}


def test_after_the_whole_process_was_stopped_nobody_is_blamed_for_the_pause():
    supervisor = Supervisor(SETTINGS)
    assert watch(supervisor, vital(beaten=0.9), 0, 1) is None
    # Nobody judged for a minute: the stages were silent, as the supervisor himself was.
    assert supervisor.judge({"stage": vital(beaten=0.9)}, 61.0) == {}
    assert watch(supervisor, vital(beaten=0.9), 61.1, 70) == 63.1  # but this one does not wake up


def test_five_restarts_in_a_minute_and_no_more():
    supervisor = Supervisor(SETTINGS)
    assert [supervisor.may_restart("perception", 0, float(second)) for second in range(6)] == [True] * 5 + [
        False
    ]
    assert not supervisor.may_restart("control", 0, 59.9)  # the budget is that of the whole process
    assert supervisor.may_restart("control", 0, 60.0)
    assert supervisor.restarts == {"perception": 5, "control": 1}


def test_stages_that_were_given_up_may_not_pile_up():
    supervisor = Supervisor(SETTINGS)
    assert supervisor.may_restart("perception", hanging=4, now=0.0)
    assert not supervisor.may_restart("perception", hanging=5, now=1000.0)


@given(st.lists(st.floats(0, 500), max_size=60), st.integers(0, 7), st.floats(1, 100))
def test_no_window_ever_holds_more_restarts_than_allowed(times, most, window):
    supervisor = Supervisor(Supervision(restarts=most, window_s=window))
    granted = [now for now in sorted(times) if supervisor.may_restart("stage", 0, now)]
    for begin in granted:
        assert sum(begin <= now < begin + window for now in granted) <= most
