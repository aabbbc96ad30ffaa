"""Whatever is wrong, the agent names it, says what to do, and exits with a status other than 0."""

import shutil
import sqlite3

import cv2
import numpy as np
import pytest

from agent.samples import clip


def refused(done, *words: str) -> None:
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    assert "error: " in done.stderr
    for word in words:
        assert word in done.stderr


def test_without_a_camera_it_says_how_to_name_one(agent):
    refused(agent.run("run"), "no camera", "[[cameras]]")


def test_an_unknown_key_is_named(agent):
    agent.config.write_text("[detector]\ntreshold = 0.5\n")
    refused(agent.run("run"), "config.toml", "treshold", "config reference")
    refused(agent.run("config", "check"), "treshold")


def test_bad_toml_is_named_with_its_line(agent):
    agent.config.write_text("[detector\n")
    refused(agent.run("run"), "config.toml", "line 1")


@pytest.mark.parametrize(
    ("name", "content"),
    [("missing.mp4", None), ("empty.mp4", b""), ("text.mp4", b"this is no video\n" * 100)],
)
def test_a_source_that_is_no_video_is_named(agent, name, content):
    path = agent.folder / name
    if content is not None:
        path.write_bytes(content)
    refused(agent.run("run", "--no-table", "--source", str(path)), name)


def test_a_truncated_video_plays_as_far_as_it_goes(agent, samples):
    """What is whole is read and summed up; that the rest is missing is an error."""
    whole = agent.folder / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 30, (176, 144))
    video = cv2.VideoCapture(str(clip()))
    while (frame := video.read()[1]) is not None:
        writer.write(frame)
    writer.release()
    cut = agent.folder / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = agent.run("run", "--no-table", "--source", str(cut))
    assert "frames," in done.stdout
    refused(done, "cut.avi", "of 120 frames")


def test_a_model_with_another_digest_is_never_loaded(agent, pack, samples):
    copy = agent.folder / "pack"
    shutil.copytree(pack.path, copy)
    model = copy / pack.manifest.face.file
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    agent.pack = copy
    agent.configure(f'name = "cabin"\nsource = "{clip()}"')
    refused(agent.run("run"), str(model), "SHA-256", "models fetch")


def test_a_corrupt_gallery_is_refused_and_left_as_it_is(agent, looped_clip):
    gallery = agent.folder / "gallery.db"
    gallery.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    before = gallery.read_bytes()
    agent.configure(looped_clip)
    refused(agent.run("run"), str(gallery))
    assert gallery.read_bytes() == before


def test_a_locked_gallery_is_named(agent, samples):
    assert agent.run("record", "Ada", "--image", str(samples / "obama.jpg")).returncode == 0
    holder = sqlite3.connect(agent.folder / "gallery.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    refused(agent.run("record", "Bob", "--image", str(samples / "biden.jpg")), "gallery.db")
    holder.execute("ROLLBACK")
    assert agent.run("record", "Bob", "--image", str(samples / "biden.jpg")).returncode == 0


def test_a_second_agent_on_the_same_gallery_is_refused_and_the_first_goes_on(
    agent, daemon, subscribe, looped_clip
):
    first = daemon(
        looped_clip, more='[gallery]\npath = "shared.db"'.replace("shared.db", f"{agent.folder}/shared.db")
    )
    subscribe("health").wait_for()
    other = agent.folder / "other.toml"
    other.write_text(agent.config.read_text().replace("/run/", "/run/other-"))
    refused(
        agent.run("run", "--no-table", "--config", str(other)),
        "shared.db",
        f"process {first.pid}",
        "gallery.path",
    )
    assert first.poll() is None
    first.kill()
    first.wait()
    second = agent.start("run", "--no-table", "--config", str(other))
    try:
        assert second.stdout.readline() is not None
        subscriber = subscribe("health")
        subscriber._socket.connect(f"ipc://{agent.folder}/run/other-e")
        subscriber.wait_for()
    finally:
        second.terminate()
        second.communicate()


def test_a_renamed_key_stops_the_agent_with_a_word_and_loses_nobody(agent, looped_clip, samples):
    assert agent.run("record", "Ada", "--image", str(samples / "obama.jpg")).returncode == 0
    key = agent.folder / "gallery.key"
    key.rename(agent.folder / "renamed")
    agent.configure(looped_clip)
    for command in (("run", "--no-table"), ("gallery", "list"), ("gallery", "delete", "Ada", "--yes")):
        refused(agent.run(*command), str(key), "missing", "put it back")
    assert not key.exists()
    (agent.folder / "renamed").rename(key)
    assert "Ada" in agent.run("gallery", "list").stdout


def test_an_enrolment_photograph_that_will_not_do_is_refused_with_its_reason(agent, samples):
    blank = agent.folder / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 200, 3), 128, np.uint8))
    refused(agent.run("record", "Ada", "--image", str(blank)), "blank.png")
    refused(agent.run("record", "Ada", "--image", str(samples / "no.jpg")), "no.jpg")
    assert "Ada" not in agent.run("gallery", "list").stdout


def test_recording_without_a_daemon_says_how_to_start_one(agent):
    refused(agent.run("record", "Ada", "--seconds", "1"), "cabinsense run")
