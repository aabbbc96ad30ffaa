"""The gallery from the command line: enrol from photographs, list, show, delete, with and without a daemon."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.cli import main
from agent.config import Camera, Config, Control
from agent.config import Gallery as GalleryConfig
from agent.control import daemon_listens
from agent.events import Event
from agent.gallery.store import Gallery
from agent.gallery.types import Sample, Snapshot
from agent.images import read_image
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Pose, Quality
from agent.stages.control import ControlStage

PACK = "a" * 64
QUALITY = Quality(40.0, 100.0, 120.0, 50.0, Pose(10.0, -5.0, 1.0))


@pytest.fixture
def settings(tmp_path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[gallery]\npath = "{tmp_path}/gallery.db"\n[control]\nendpoint = "ipc://{tmp_path}/run/c"\n'
        "[detector]\nwidth = 640\nheight = 512\n"
    )
    return file


@dataclass
class Done:
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(settings, monkeypatch, capsys) -> Callable[..., Done]:
    """Runs a command as its entry point does, with nobody at the terminal."""

    def command(*arguments: str | Path) -> Done:
        monkeypatch.setenv("CABINSENSE_CONFIG", str(settings))
        monkeypatch.setattr(sys, "argv", ["cabinsense", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return command


@pytest.fixture
def use_pack(settings, pack) -> None:
    settings.write_text(f'pack = "{pack.path}"\n' + settings.read_text())


def enrol(folder: Path, *names: str) -> None:
    with Gallery.open(folder / "gallery.db") as gallery:
        for seed, name in enumerate(names):
            vectors = np.random.default_rng(seed).normal(size=(2, 128)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            gallery.enrol(name, [Sample(vector, QUALITY) for vector in vectors], PACK, 50)


@pytest.fixture
def daemon(tmp_path) -> Iterator[Live]:
    """The running daemon's end of the gallery."""
    config = Config(
        cameras=(Camera(name="cabin", source="0"),),
        gallery=GalleryConfig(path=str(tmp_path / "gallery.db")),
        control=Control(endpoint=f"ipc://{tmp_path}/run/c"),
    )
    live = Live(Snapshot())
    stage = ControlStage(config, PACK, live, Mailbox[Event](100))
    stage.start()
    while not daemon_listens(config.control_endpoint):
        time.sleep(0.01)
    yield live
    stage.stop()
    assert stage.join(5)
    assert stage.failure is None


def refused(done: Done, *words: str) -> None:
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    for word in words:
        assert word in done.stderr


def test_an_empty_gallery_is_no_error_and_listing_makes_no_file(tmp_path, run):
    listed = run("gallery", "list")
    assert listed.returncode == 0
    assert "nobody is enrolled" in listed.stdout
    assert "cabinsense record" in listed.stdout
    assert json.loads(run("gallery", "list", "--json").stdout) == []
    assert not (tmp_path / "gallery.db").exists()


def test_list_and_show_tell_people_and_programs_but_never_embeddings(tmp_path, run):
    enrol(tmp_path, "Ada", "[red]Bob")
    listed = run("gallery", "list").stdout
    assert "Ada" in listed
    assert "[red]Bob" in listed
    ada, bob = json.loads(run("gallery", "list", "--json").stdout)
    assert (ada["name"], ada["samples"], ada["packs"]) == ("Ada", 2, [PACK])
    assert bob["name"] == "[red]Bob"
    shown = run("gallery", "show", "Ada").stdout
    assert "120.0" in shown
    as_json = run("gallery", "show", "Ada", "--json").stdout
    assert json.loads(as_json)["samples"][0]["yaw"] == 10.0
    assert "embedding" not in as_json


def test_asking_for_a_stranger_names_them(tmp_path, run):
    enrol(tmp_path, "Ada")
    for command in ("show", "delete"):
        refused(run("gallery", command, "Eve"), "nobody called Eve", "gallery list")


def test_a_person_is_deleted_only_when_that_is_meant(tmp_path, run):
    enrol(tmp_path, "Ada", "Bob")
    asked = run("gallery", "delete", "Ada")
    assert asked.returncode != 0
    assert "--yes" in asked.stderr
    done = run("gallery", "delete", "Ada", "--yes")
    assert done.returncode == 0
    assert "Ada is deleted" in done.stdout
    assert [each["name"] for each in json.loads(run("gallery", "list", "--json").stdout)] == ["Bob"]


def on_a_terminal(settings: Path, answer: str, *arguments: str) -> int:
    """The exit status of a command whose questions are answered at a terminal."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", *arguments],
        env=os.environ | {"CABINSENSE_CONFIG": str(settings)},
        stdin=there,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.write(here, answer.encode() + b"\n")
    status = process.wait(30)
    os.close(here)
    os.close(there)
    return status


def test_at_a_terminal_it_asks(tmp_path, settings, run):
    enrol(tmp_path, "Ada")
    assert on_a_terminal(settings, "n", "gallery", "delete", "Ada") != 0
    assert len(json.loads(run("gallery", "list", "--json").stdout)) == 1
    assert on_a_terminal(settings, "y", "gallery", "delete", "Ada") == 0
    assert json.loads(run("gallery", "list", "--json").stdout) == []


def test_a_running_daemon_forgets_a_deleted_person_at_once(tmp_path, daemon, run):
    enrol(tmp_path, "Ada", "Bob")
    assert run("gallery", "delete", "Ada", "--yes").returncode == 0
    assert daemon.snapshot.names == ("Bob",)


def test_a_damaged_gallery_is_named(tmp_path, run):
    (tmp_path / "gallery.db").write_bytes(b"garbage" * 1000)
    for command in (("gallery", "list"), ("gallery", "show", "Ada"), ("gallery", "delete", "Ada", "--yes")):
        refused(run(*command), f"{tmp_path}/gallery.db", "move")


# From photographs


def test_photographs_enrol_a_person(tmp_path, use_pack, run, samples, pack):
    done = run("record", "Barack", "--image", samples / "obama.jpg", "--image", samples / "obama2.jpg")
    assert done.returncode == 0, done.stderr
    assert f"{samples / 'obama.jpg'}: taken" in done.stdout
    assert "Barack is enrolled: 2 samples taken, 2 in the gallery" in done.stdout
    with Gallery.open(tmp_path / "gallery.db", readonly=True) as gallery:
        assert gallery.person("Barack").packs == (pack.manifest.digest,)
        assert gallery.samples("Barack")[0].size > 20

    refused(run("record", "Barack", "--image", samples / "obama3.jpg"), "Barack is enrolled already", "--add")
    added = run("record", "Barack", "--add", "--image", samples / "obama3.jpg")
    assert "1 samples taken, 3 in the gallery" in added.stdout
    refused(run("record", "Joe", "--add", "--image", samples / "biden.jpg"), "nobody called Joe")


@pytest.fixture
def two_people(tmp_path, samples) -> Path:
    """A picture of two people side by side, equally large."""
    pictures = [read_image(samples / name) for name in ("obama.jpg", "biden.jpg")]
    file = tmp_path / "two.png"
    cv2.imwrite(str(file), np.hstack([cv2.resize(picture, (600, 800)) for picture in pictures]))
    return file


def test_all_images_are_checked_and_one_bad_one_enrols_nobody(tmp_path, use_pack, run, samples, two_people):
    blurred = tmp_path / "blurred.png"
    cv2.imwrite(str(blurred), cv2.GaussianBlur(read_image(samples / "obama.jpg"), (0, 0), 12))
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((300, 300, 3), 90, np.uint8))
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    files = [two_people, empty, text, tmp_path / "missing.jpg", blurred, samples / "obama.jpg"]
    images = [part for file in files for part in ("--image", file)]
    done = run("record", "Barack", *images)
    refused(done, "5 of 6 images cannot be used, so Barack was not enrolled", "--skip-bad")
    for file, word in zip(
        files, ("2 faces", "no face", "not an image", "No such file", "blurred"), strict=False
    ):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(str(file))]
        assert word in line
    assert json.loads(run("gallery", "list", "--json").stdout) == []

    assert run("record", "Barack", "--skip-bad", *images).returncode == 0
    (barack,) = json.loads(run("gallery", "list", "--json").stdout)
    assert barack["samples"] == 1
    refused(run("record", "Joe", "--skip-bad", "--image", empty), "1 of 1 images", "Joe was not enrolled")


def test_a_running_daemon_knows_a_person_enrolled_from_a_photograph_at_once(use_pack, daemon, run, samples):
    done = run("record", "Joe", "--image", samples / "biden.jpg")
    assert done.returncode == 0, done.stderr
    assert daemon.snapshot.skipped == 1  # the daemon of this test runs another pack, and yet has noticed


def test_a_name_that_cannot_be_is_refused_before_any_work(use_pack, run, samples):
    refused(run("record", "  ", "--image", samples / "biden.jpg"), "must not be empty")


# From the camera


def test_files_may_follow_one_flag_as_a_shell_writes_them(run, samples):
    done = run("record", "Barack", "--image", samples / "obama.jpg", samples / "obama2.jpg")
    assert done.returncode == 0, done.stderr
    assert "2 samples taken" in done.stdout
    assert run("record", "Joe", samples / "biden.jpg").returncode == 2


def test_without_a_daemon_recording_says_how_to_start_one(run):
    refused(run("record", "Ada"), "is it running? `cabinsense run` starts it")


def test_a_refused_recording_ends_with_its_reason(daemon, run):
    refused(run("record", "Ada", "--seconds", "0.5"), "the camera delivers no pictures")
    refused(run("record", "Ada", "--camera", "boot"), "no camera is called 'boot'", "cabin")


def test_ctrl_c_ends_the_recording_of_the_daemon_too(settings, daemon):
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "record", "Ada", "--seconds", "30"],
        env=os.environ | {"CABINSENSE_CONFIG": str(settings)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert daemon.recording.wait(20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode not in (0, None)
    assert "Traceback" not in said
    assert not daemon.recording.is_set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--image", "a.jpg", "--seconds", "3"),
        ("--image", "a.jpg", "--camera", "cabin"),
        ("--skip-bad",),
        ("--seconds", "0"),
        ("--seconds", "1e9"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_together_are_a_usage_error(run, arguments):
    done = run("record", "Ada", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
