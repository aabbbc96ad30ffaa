"""Who presses record gets one person under one name, or is told why not."""

import os
import pty
import signal
import subprocess

import pytest


def people(agent) -> str:
    return agent.run("gallery", "list").stdout


def record(agent, samples, *names: str, more: tuple[str, ...] = ()):
    return agent.run("record", "Obama", *more, "--image", *[str(samples / name) for name in names])


def test_photographs_of_one_person_are_enrolled_together(agent, samples):
    done = record(agent, samples, "obama.jpg", "obama2.jpg", "obama.jpg")
    assert (done.returncode, "3 samples taken" in done.stdout) == (0, True), done.stderr


def test_a_photograph_of_somebody_else_is_named_and_nobody_is_enrolled(agent, samples):
    done = record(agent, samples, "obama.jpg", "biden.jpg", "obama2.jpg")
    assert done.returncode == 1
    assert "biden.jpg: not the same person" in done.stderr
    assert "--skip-bad" in done.stderr
    assert "Obama" not in people(agent)


def test_skip_bad_leaves_out_the_odd_one(agent, samples):
    done = record(agent, samples, "biden.jpg", "obama.jpg", "obama2.jpg", more=("--skip-bad",))
    assert (done.returncode, "2 samples taken" in done.stdout) == (0, True), done.stderr
    assert "biden.jpg: left out" in done.stderr


def test_of_two_photographs_of_two_people_it_does_not_guess_who_is_meant(agent, samples):
    done = record(agent, samples, "biden.jpg", "obama.jpg", more=("--skip-bad",))
    assert done.returncode == 1
    assert "it cannot be told who is Obama" in done.stderr
    assert "Obama" not in people(agent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_command_ends_the_recording(agent, daemon, subscribe, number):
    events = subscribe("enrollment", "health")
    daemon()
    events.wait_for(topic="health")
    recording = agent.start("record", "Half", "--seconds", "20")
    events.wait_for(state="sample")
    recording.send_signal(number)
    assert events.wait_for(5, state="refused")["reason"] == "cancelled"
    recording.communicate(timeout=20)
    assert recording.returncode != 0
    assert "Half" not in people(agent)


def test_a_terminal_that_is_closed_ends_the_recording(agent, daemon, subscribe):
    events = subscribe("enrollment", "health")
    daemon()
    events.wait_for(topic="health")
    master, terminal = pty.openpty()
    recording = subprocess.Popen(
        # setsid makes the terminal its own, so that the kernel tells the command when it is closed.
        ["setsid", "--ctty", "--wait", *agent.command("record", "Half", "--seconds", "20")],
        env=agent.environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    events.wait_for(state="sample")
    os.close(master)
    assert events.wait_for(5, state="refused")["reason"] == "cancelled"
    assert recording.wait(20) != 0
