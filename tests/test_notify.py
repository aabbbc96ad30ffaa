"""What the service manager hears: a real datagram socket in its place."""

import pytest

from agent.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, listen_as_manager):
    name = str(tmp_path / "notify")
    return listen_as_manager(name if request.param == "path" else f"@{name}")


def test_ready_is_said_once_and_only_when_the_service_works(manager):
    notifier = Notifier(manager.address)
    notifier.tell(0.0, ready=False, well=True, status="waiting")
    assert manager.heard() == ["STATUS=waiting", "EXTEND_TIMEOUT_USEC=20000000"]
    notifier.tell(0.1, ready=True, well=True, status="rung 0")
    assert manager.heard() == ["READY=1"]
    notifier.tell(0.2, ready=True, well=True, status="rung 0")
    assert manager.heard() == []


def test_a_start_in_which_something_hangs_is_given_no_more_time(manager):
    notifier = Notifier(manager.address, watchdog_s=3.0)
    notifier.tell(0.0, ready=False, well=False, status="starting")
    assert manager.heard() == ["STATUS=starting"]


def test_signs_of_life_are_sent_while_all_is_well_and_stop_when_it_is_not(manager):
    notifier = Notifier(manager.address, watchdog_s=3.0)
    heard = []
    for tick in range(100):
        notifier.tell(tick / 10, ready=True, well=tick < 50, status="")
        heard.append("WATCHDOG=1" in manager.heard())
    pulses = [tick for tick, pulsed in enumerate(heard) if pulsed]
    assert pulses == [0, 10, 20, 30, 40]


def test_no_sign_of_life_is_sent_before_ready_nor_where_nobody_watches(manager):
    watched, unwatched = Notifier(manager.address, watchdog_s=3.0), Notifier(manager.address)
    watched.tell(0.0, ready=False, well=True, status="")
    unwatched.tell(0.0, ready=True, well=True, status="")
    assert "WATCHDOG=1" not in manager.heard()


def test_a_reload_is_framed_by_reloading_and_ready(manager):
    notifier = Notifier(manager.address)
    notifier.reloading()
    notifier.reloaded()
    assert manager.heard() == []  # a start is not cut short by a reload
    notifier.tell(0.0, ready=True, well=True, status="")
    manager.heard()
    notifier.reloading()
    notifier.reloaded()
    begun, at, ended = manager.heard()
    assert (begun, ended) == ("RELOADING=1", "READY=1")
    assert at.startswith("MONOTONIC_USEC=")


def test_a_manager_that_is_gone_or_full_holds_up_nobody_and_hears_ready_later(tmp_path, listen_as_manager):
    name = str(tmp_path / "late")
    notifier = Notifier(name)
    notifier.tell(0.0, ready=True, well=True, status="")  # nobody is there
    manager = listen_as_manager(name)
    notifier.tell(0.1, ready=True, well=True, status="")
    assert manager.heard() == ["READY=1"]
    for tick in range(2000):  # far more than the socket's queue
        notifier.tell(float(tick), ready=True, well=True, status="x" * 200)


def test_the_state_in_words_is_one_line(manager):
    Notifier(manager.address).tell(0.0, ready=False, well=False, status="one\nREADY=1")
    assert manager.heard() == ["STATUS=one READY=1"]


def test_systemd_s_variables_are_taken_and_no_child_inherits_them(manager):
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000", "PATH": "/bin"}
    notifier = Notifier.from_environment(environment)
    assert notifier.watchdog_s == 3.0
    assert environment == {"PATH": "/bin"}
    notifier.stopping()
    assert manager.heard() == ["STOPPING=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},  # meant for another process
    ],
)
def test_what_is_not_meant_for_us_is_left_alone(environment):
    notifier = Notifier.from_environment(dict(environment))
    notifier.tell(0.0, ready=True, well=True, status="")
    assert notifier.watchdog_s == 0.0
