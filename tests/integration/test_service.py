"""The agent as a service: what the service manager hears, how it reloads, and how it ends."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

PATIENCE_S = 30.0  # for what must happen, however busy the machine


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


class Manager:
    """What a service manager has heard so far."""

    def __init__(self, ear) -> None:
        self._ear = ear
        self.words: list[str] = []

    def hears(self, word: str, begin: int = 0) -> int:
        """Wait for a word that starts so, from the ``begin``th on; returns the number of the one after it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for number, each in enumerate(self.words[begin:], begin):
                if each.startswith(word):
                    return number + 1
            assert time.monotonic() < deadline, f"no {word} in {self.words[begin:]}"
            self.words += self._ear.heard(0.2)

    def hears_for(self, seconds: float) -> list[str]:
        """The words that come in so many seconds."""
        begin, deadline = len(self.words), time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.words += self._ear.heard(0.05)
        return self.words[begin:]


@pytest.fixture
def manager(tmp_path, listen_as_manager) -> Manager:
    return Manager(listen_as_manager(str(tmp_path / "notify")))


@pytest.fixture
def watched(tmp_path) -> dict[str, str]:
    """What systemd sets for a service that it watches over."""
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}


@pytest.fixture
def mute_camera() -> Iterator[tuple[str, Callable[[], int]]]:
    """The address of a network camera that takes every call and never says a word, and how many have called."""
    calls: list[socket.socket] = []
    door = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                calls.append(door.accept()[0])

    threading.Thread(target=answer, daemon=True).start()
    yield f"http://127.0.0.1:{door.getsockname()[1]}/cabin.mjpg", lambda: len(calls)
    door.close()
    for call in calls:
        call.close()


def test_systemd_hears_ready_with_the_first_reading_then_signs_of_life_and_the_end(daemon, manager, watched):
    process = daemon(**watched)
    ready = manager.hears("READY=1")
    assert "WATCHDOG=1" not in manager.words[:ready]
    assert any(word.startswith("EXTEND_TIMEOUT_USEC=") for word in manager.words[:ready])
    manager.hears("WATCHDOG=1", manager.hears("WATCHDOG=1", ready))
    status = manager.words[manager.hears("STATUS=rung ", ready) - 1]
    assert status.endswith("frames a second")
    process.send_signal(signal.SIGTERM)
    end = manager.hears("STOPPING=1", ready)
    process.wait(PATIENCE_S)
    assert "WATCHDOG=1" not in manager.words[end:]


def test_while_no_camera_delivers_it_is_not_ready_and_says_why(daemon, manager, watched, mute_camera):
    daemon(
        f'name = "cabin"\nsource = "{mute_camera[0]}"', 'name = "rear"\nsource = "/dev/video99"', **watched
    )
    manager.hears("EXTEND_TIMEOUT_USEC=", manager.hears("STATUS=/dev/video99"))
    assert "READY=1" not in manager.words


def test_a_process_that_is_stopped_gives_no_sign_of_life_and_goes_on_as_if_nothing_had_been(
    daemon, subscribe, manager, watched
):
    process = daemon(more="[supervision]\nstall_s = 1.0\ndisk_s = 1.0", **watched)
    manager.hears("WATCHDOG=1")
    process.send_signal(signal.SIGSTOP)
    manager.hears_for(0.2)  # what was on its way
    assert manager.hears_for(2.0) == []
    process.send_signal(signal.SIGCONT)
    manager.hears("WATCHDOG=1", len(manager.words))
    assert subscribe("health").wait_for(topic="health")["restarts"] == {}


def test_sighup_brings_in_what_may_change_and_names_what_may_not(
    agent, daemon, subscribe, manager, watched, looped_clip
):
    subscriber = subscribe("face", "health")
    process = daemon(**watched)
    subscriber.wait_for_face("unknown")
    ready = manager.hears("READY=1")

    agent.configure(looped_clip, more="[detector]\nthreshold = 1.0\nwidth = 640")
    process.send_signal(signal.SIGHUP)
    manager.hears("READY=1", manager.hears("MONOTONIC_USEC=", manager.hears("RELOADING=1", ready)))
    subscriber.wait_for(topic="face", faces=[])
    status = manager.words[manager.hears("STATUS=", manager.hears("STATUS=", len(manager.words))) - 1]
    assert status.endswith("waits for a restart")
    told = next(event for event in subscriber.events(PATIENCE_S) if event.get("problems"))
    assert "detector.width" in told["problems"][0]

    agent.config.write_text("[detector]\nthreshold = 2.0")
    process.send_signal(signal.SIGHUP)
    refused = next(
        event for event in subscriber.events(PATIENCE_S) if "refused" in str(event.get("problems"))
    )
    assert "detector.threshold" in refused["problems"][0]

    agent.configure(looped_clip)
    process.send_signal(signal.SIGHUP)
    subscriber.wait_for_face("unknown")
    assert process.poll() is None


def test_the_reload_command_says_what_is_in_force_and_what_waits(agent, daemon, subscribe, looped_clip):
    subscriber = subscribe("face")
    daemon()
    subscriber.wait_for_face("unknown")
    agent.configure(looped_clip, more="[detector]\nthreshold = 1.0\nwidth = 640")
    told = agent.run("reload")
    assert told.stdout.splitlines() == [
        "in force: detector.threshold",
        "waiting for a restart: detector.width",
    ]
    subscriber.wait_for(topic="face", faces=[])
    agent.configure(looped_clip)
    changed = json.loads(agent.run("reload", "--json").stdout)
    assert (changed["changed"], changed["waiting"]) == (["detector.threshold"], [])
    assert agent.run("reload").stdout == "in force: nothing new\n"
    # What cannot be used does not even say where the agent is, so the command is given one that can.
    good = agent.folder / "good.toml"
    good.write_text(agent.config.read_text())
    agent.config.write_text("[detector]\nthreshold = 2.0")
    refused = agent.run("reload", "--config", str(good))
    assert refused.returncode == 1
    assert "detector.threshold" in refused.stderr


def test_without_an_agent_there_is_nothing_to_reload(agent):
    told = agent.run("reload")
    assert (told.returncode, told.stdout) == (1, "")
    assert "no daemon" in told.stderr


def test_a_second_daemon_is_refused_before_it_calls_a_camera(agent, daemon, subscribe, mute_camera):
    address, calls = mute_camera
    daemon(f'name = "cabin"\nsource = "{address}"')
    subscribe("health").wait_for(topic="health")
    wait_until(lambda: calls() == 1)
    second = agent.run("run", "--no-table")
    assert second.returncode == 1
    assert "another" in second.stderr
    assert calls() == 1


def test_a_camera_that_hangs_does_not_hold_up_the_end(daemon, subscribe, mute_camera):
    process = daemon(f'name = "cabin"\nsource = "{mute_camera[0]}"')
    subscribe("health").wait_for(topic="health")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert time.monotonic() - began < 2.5  # two of its own, and some for the interpreter on a busy machine
    assert process.returncode == 0, output


def test_nobody_s_name_gets_into_the_journal(agent, daemon, subscribe, looped_clip):
    agent.configure(looped_clip, more='[log]\nlevel = "debug"')
    subscriber = subscribe("face", "identity")
    code = "import sys; sys.modules['systemd.journal'] = None; from agent.cli import main; main()"
    with (agent.folder / "journal").open("w") as journal:
        found = os.fstat(journal.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", code, "run"],
            env=agent.environment() | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stdout=journal,
            stderr=journal,
        )
        try:
            subscriber.wait_for_face("unknown")
            assert agent.run("record", "Zenobia", "--seconds", "1").returncode == 0
            subscriber.wait_for(change="confirmed", person="Zenobia")
            assert agent.run("gallery", "delete", "Zenobia", "--yes").returncode == 0
            subscriber.wait_for(change="unknown")
            process.send_signal(signal.SIGHUP)
            wait_until(
                lambda: "<6>the configuration was read again" in (agent.folder / "journal").read_text()
            )
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    assert "Zenobia" not in (agent.folder / "journal").read_text()


def test_nobody_s_name_gets_into_the_journal_when_the_gallery_is_damaged(agent, samples):
    picture = str(samples / "obama.jpg")
    assert agent.run("record", "Zenobia", "--image", picture).returncode == 0
    with sqlite3.connect(agent.folder / "gallery.db") as other:
        other.execute("UPDATE people SET created = 'long ago'")
    assert "Zenobia" in agent.run("gallery", "show", "Zenobia").stderr
    with (agent.folder / "journal").open("w") as journal:
        found = os.fstat(journal.fileno())
        process = subprocess.run(
            agent.command("run", "--sample"),
            env=agent.environment() | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stdout=journal,
            stderr=journal,
            timeout=60,
            check=False,
        )
    assert process.returncode == 1
    said = (agent.folder / "journal").read_text()
    assert "the entry of a person (row 1) was changed" in said
    assert "Zenobia" not in said


_FREEZE = """
import threading, time
from tests.integration.faults import Faults
faults = Faults()

def strike():
    while not (found := [each for each in threading.enumerate() if each.name == "perception"]):
        time.sleep(0.05)
    faults.freeze(found[0], "process")

threading.Thread(target=strike, daemon=True).start()
from agent.cli import main
main()
"""


def test_when_nothing_helps_it_ends_with_status_1_whatever_still_hangs_in_it(agent, looped_clip):
    agent.configure(looped_clip, more="[supervision]\nstall_s = 1.0\nrestarts = 0")
    ended = subprocess.run(
        [sys.executable, "-c", _FREEZE, "run", "--no-table"],
        env=agent.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "error: stage perception has shown no sign of life" in ended.stderr
