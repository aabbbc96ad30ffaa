"""The whole agent, as its users run it: a process, sockets, files, the real models and a man in a car."""

import itertools
import re
import signal
import sqlite3
import time

from agent.samples import clip


def stop(process, number=signal.SIGTERM) -> tuple[str, float]:
    """Ask a process to end; what it said, and how long it took."""
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    return output, time.monotonic() - began


def test_the_sample_clip_runs_to_its_end_and_is_summed_up(agent, samples):
    done = agent.run("run", "--sample", "--no-table")
    assert done.returncode == 0, done.stderr
    assert "track 1: unknown" in done.stdout
    summary = re.search(
        r"(\d+) frames, (\d+) faces, ([\d.]+) frames a second, (\d+) frames dropped", done.stdout
    )
    frames, faces, _, dropped = (float(each) for each in summary.groups())
    assert frames + dropped == 120
    assert faces >= 0.95 * frames
    assert "p99" in done.stdout


def test_every_frame_of_a_file_is_read_when_the_configuration_says_so(agent, samples):
    agent.configure(f'name = "cabin"\nsource = "{clip()}"\nevery_frame = true')
    done = agent.run("run", "--no-table")
    assert "120 frames" in done.stdout
    assert " 0 frames dropped" in done.stdout


def test_a_subscriber_learns_what_the_agent_sees_in_order_and_without_gaps(daemon, subscribe):
    subscriber = subscribe()
    daemon()
    subscriber.wait_for(topic="face")
    events = list(itertools.islice(subscriber.events(20), 120))
    assert len(events) == 120
    for topic in ("face", "health"):
        numbers = [event["seq"] for event in events if event["topic"] == topic]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    faces = [event for event in events if event["topic"] == "face"]
    assert all(event["schema"] == 1 and event["camera"] == "cabin" for event in faces)
    assert [event["frame"] for event in faces] == sorted(event["frame"] for event in faces)
    assert any(face["emotion"] for event in faces for face in event["faces"])


def test_a_person_recorded_from_the_camera_is_greeted_by_name(agent, daemon, subscribe):
    subscriber = subscribe("identity", "enrollment", "face")
    process = daemon()
    subscriber.wait_for_face("unknown")  # the one event that told of it may have come before we had connected
    recorded = agent.run("record", "Ada", "--seconds", "2")
    assert recorded.returncode == 0, recorded.stderr
    done, greeted = subscriber.wait_for_all(
        {"topic": "enrollment", "state": "done"}, {"topic": "identity", "change": "confirmed"}
    )
    assert done["samples"] >= 3
    assert greeted["person"] == "Ada"
    assert greeted["score"] >= greeted["threshold"]
    listed = agent.run("gallery", "list", "--json")
    assert "Ada" in listed.stdout

    assert agent.run("gallery", "delete", "Ada", "--yes").returncode == 0
    forgotten = subscriber.wait_for(topic="identity", change="unknown")
    assert forgotten["person"] is None
    output, _ = stop(process)
    assert process.returncode == 0, output


def test_a_face_enrolled_from_a_photograph_is_known_to_the_next_daemon(agent, samples):
    taken = agent.run("record", "Obama", "--image", str(samples / "obama.jpg"))
    assert taken.returncode == 0, taken.stderr
    folder = agent.folder / "pictures"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes((samples / "obama2.jpg").read_bytes())
    agent.configure(f'name = "stills"\nsource = "{folder}"\nfps = 10\nevery_frame = true')
    assert "track 1: Obama" in agent.run("run", "--no-table").stdout


def test_sigterm_and_ctrl_c_end_it_within_two_seconds_with_status_0(daemon, subscribe):
    for number in (signal.SIGTERM, signal.SIGINT):
        subscriber = subscribe("face")
        process = daemon()
        subscriber.wait_for(topic="face")
        output, seconds = stop(process, number)
        assert process.returncode == 0, output
        assert seconds < 2.5  # two of its own, and some for the interpreter to end on a busy machine


def test_a_stop_in_the_middle_of_a_recording_leaves_nobody_half_enrolled(agent, daemon, subscribe):
    subscriber = subscribe("enrollment", "face")
    process = daemon()
    subscriber.wait_for(topic="face")
    recording = agent.start("record", "Half", "--seconds", "20")
    subscriber.wait_for(topic="enrollment", state="sample")
    stop(process)
    recording.communicate(timeout=30)
    assert recording.returncode != 0
    with sqlite3.connect(agent.folder / "gallery.db") as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM people").fetchone() == (0,)


def test_one_camera_that_fails_does_not_stop_the_other(daemon, subscribe, looped_clip):
    subscriber = subscribe("health", "face")
    daemon(looped_clip, 'name = "gone"\nsource = "http://127.0.0.1:9/none.mjpg"\nretry_s = 0.5')
    subscriber.wait_for(topic="face", camera="cabin")
    for event in subscriber.events(30):
        if event["topic"] == "health" and any(camera["error"] for camera in event["cameras"]):
            break
    else:
        raise AssertionError("the failing camera was never reported")
    states = {camera["name"]: camera["state"] for camera in event["cameras"]}
    assert states["cabin"] == "open"
    assert states["gone"] in ("failed", "opening")
    assert any("gone" in problem for problem in event["problems"])


def test_a_second_daemon_on_the_same_sockets_is_refused(agent, daemon, subscribe):
    subscriber = subscribe("face")
    daemon()
    subscriber.wait_for(topic="face")
    agent.configure('name = "cabin"\nsource = "0"', more=f'[gallery]\npath = "{agent.folder}/another.db"')
    second = agent.run("run", "--no-table")
    assert second.returncode == 1
    assert "error:" in second.stderr
    assert "run/e" in second.stderr or "run/c" in second.stderr
    subscriber.wait_for(topic="face")
