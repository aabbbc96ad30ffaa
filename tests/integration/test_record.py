"""Who presses record gets one person under one name, or is told why not."""

import json
import os
import pty
import random
import signal
import sqlite3
import subprocess
import time

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


def test_who_is_enrolled_already_is_not_enrolled_from_photographs_under_another_name(agent, samples):
    assert record(agent, samples, "obama.jpg").returncode == 0
    again = agent.run("record", "Barack", "--image", str(samples / "obama2.jpg"))
    assert again.returncode == 1
    assert "Barack was not enrolled: this looks like Obama, who is enrolled already" in again.stderr
    assert "Barack" not in people(agent)
    assert agent.run("record", "Barack", "--anyway", "--image", str(samples / "obama2.jpg")).returncode == 0
    joe = agent.run("record", "Joe", "--image", str(samples / "biden.jpg"))
    assert joe.returncode == 0, joe.stderr


def test_a_photograph_of_somebody_else_is_not_added(agent, samples):
    assert record(agent, samples, "obama.jpg").returncode == 0
    done = record(agent, samples, "biden.jpg", more=("--add",))
    assert (done.returncode, "this does not look like Obama" in done.stderr) == (1, True)
    assert record(agent, samples, "obama2.jpg", more=("--add",)).returncode == 0


def test_the_man_in_the_clip_becomes_driver_1_and_sees_what_to_do(agent, daemon, subscribe):
    """He hardly turns: he is enrolled from what there is, and it is said what is missing."""
    events = subscribe("health")
    daemon()
    events.wait_for(topic="health")
    done = agent.run("record", "--seconds", "5")
    assert done.returncode == 0, done.stderr
    assert "Driver 1 is enrolled" in done.stdout
    assert "not seen: " in done.stdout
    lines = done.stderr.splitlines()
    assert lines[0] == "look straight into the camera"
    assert "sample 1: straight" in lines
    assert "turn your head slowly to your left" in lines
    again = agent.run("record", "Ada", "--json")
    said = [json.loads(line) for line in again.stdout.splitlines()]
    assert again.returncode == 1
    assert (said[0]["state"], said[0]["hint"]) == ("started", "look_straight")
    assert (said[-1]["reply"], said[-1]["code"]) == ("refused", "already_enrolled")
    assert "Driver 1" in said[-1]["message"]


def test_a_daemon_that_is_killed_in_a_recording_leaves_the_whole_person_or_nothing(agent, daemon, subscribe):
    """At four moments of recordings of a second, some of them just when the samples are written."""
    chance = random.Random(9)  # noqa: S311 - the same moments each time
    for _ in range(4):
        events = subscribe("enrollment", "health")
        process = daemon()
        events.wait_for(topic="health")
        recording = agent.start("record", "--seconds", "1", "--anyway")
        events.wait_for(state="started")
        time.sleep(chance.uniform(0.2, 1.3))
        process.kill()
        process.communicate(timeout=10)
        recording.communicate(timeout=30)
        with sqlite3.connect(agent.folder / "gallery.db") as database:
            assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
            whole = database.execute(
                "SELECT count(samples.id) FROM people LEFT JOIN samples ON person_id = people.id GROUP BY people.id"
            ).fetchall()
        assert all(count >= 2 for (count,) in whole), whole


def test_a_button_that_is_not_there_is_told_and_everybody_is_still_recognised(daemon, subscribe):
    pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    events = subscribe("health", "face")
    daemon(more='[button]\nline = "gpiochip99:3"')
    events.wait_for_face("unknown")
    for event in events.events(30):
        if event["topic"] == "health" and event["problems"]:
            break
    assert "button.line = 'gpiochip99:3'" in event["problems"][0]
    assert "gpioinfo" in event["problems"][0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_command_ends_the_recording(agent, daemon, subscribe, number):
    events = subscribe("enrollment", "health")
    daemon()
    events.wait_for(topic="health")
    recording = agent.start("record", "Half", "--seconds", "20")
    events.wait_for(state="sample")
    recording.send_signal(number)
    assert events.wait_for(5, state="refused")["reason"] == "client_gone"
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
    assert events.wait_for(5, state="refused")["reason"] == "client_gone"
    assert recording.wait(20) != 0
