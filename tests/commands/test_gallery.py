"""The gallery from the command line: enrol from photographs, list, show, delete, with and without a daemon."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.cli import main
from agent.config import Camera, Config, Control
from agent.config import Gallery as GalleryConfig
from agent.events import Event
from agent.gallery.owner import owned
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
    stage = ControlStage(config, PACK, live, Mailbox[Event](100), threshold=0.93)
    stage.start()
    while stage.beaten is None:  # it listens a moment before it has read the gallery
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


def test_a_person_gets_another_name(tmp_path, run):
    enrol(tmp_path, "Driver 1", "Bob")
    assert "Driver 1 is called Ada now" in run("gallery", "rename", "Driver 1", "Ada").stdout
    refused(run("gallery", "rename", "Ada", "Bob"), "Bob is enrolled already", "choose another name")
    refused(run("gallery", "rename", "Eve", "Zoe"), "nobody called Eve")
    assert [each["name"] for each in json.loads(run("gallery", "list", "--json").stdout)] == ["Ada", "Bob"]


def test_a_running_daemon_calls_a_person_by_the_new_name_at_once(tmp_path, daemon, run):
    enrol(tmp_path, "Driver 1")
    assert run("gallery", "rename", "Driver 1", "Ada").returncode == 0
    assert daemon.snapshot.names == ("Ada",)
    assert [each["name"] for each in json.loads(run("gallery", "list", "--json").stdout)] == ["Ada"]
    refused(run("gallery", "rename", "Eve", "Zoe"), "nobody called Eve")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/x", "a/b", "..", "-rf", "C:\\x", "$(id)", "x;y", "%s"]
)
def test_a_name_is_never_a_path_an_option_or_a_command(tmp_path, run, name):
    enrol(tmp_path / "data", name)
    (tmp_path / "config.toml").write_text(
        (tmp_path / "config.toml")
        .read_text()
        .replace(f"{tmp_path}/gallery.db", f"{tmp_path}/data/gallery.db")
    )
    assert run("gallery", "show", "--json", "--", name).returncode == 0
    assert run("gallery", "rename", "--", name, name + "2").returncode == 0
    assert run("gallery", "delete", "--yes", "--", name + "2").returncode == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.toml", "data"]
    assert {file.name for file in (tmp_path / "data").iterdir()} == {
        "gallery.db",
        "gallery.key",
        "gallery.db.lock",
    }


def test_a_name_of_10_000_characters_is_refused_in_one_short_line(tmp_path, run, samples):
    enrol(tmp_path, "Ada")
    for command in (
        ("gallery", "rename", "Ada", "x" * 10_000),
        ("gallery", "delete", "x" * 10_000, "--yes"),
        ("gallery", "show", "x" * 10_000),
        ("record", "x" * 10_000, "--image", samples / "obama.jpg"),
    ):
        done = run(*command)
        refused(done, "a name of 10000 characters is too long; use at most 64")
        assert len(done.stderr) < 200
    assert [each["name"] for each in json.loads(run("gallery", "list", "--json").stdout)] == ["Ada"]


def test_the_audit_says_what_was_done_and_names_nobody(tmp_path, run):
    enrol(tmp_path, "Ada", "Bob")
    run("gallery", "rename", "Ada", "Countess")
    refused(run("gallery", "rename", "Eve", "Zoe"), "nobody")
    run("gallery", "delete", "Countess", "--yes")
    told = run("gallery", "audit", "--json").stdout
    notes = json.loads(told)
    assert [note["action"] for note in notes] == ["enrol", "enrol", "rename", "delete"]
    assert [note["count"] for note in notes] == [2, 2, None, 2]
    assert notes[0]["person"] == notes[2]["person"] == notes[3]["person"] != notes[1]["person"]
    assert not {"Ada", "Bob", "Countess"} & set(told.replace('"', " ").split())
    assert "rename" in run("gallery", "audit").stdout


def test_rejecting_needs_a_daemon(tmp_path, run):
    enrol(tmp_path, "Ada")
    refused(run("gallery", "reject", "Ada"), "cabinsense run")


def test_rejecting_asks_the_daemon(tmp_path, daemon, run):
    enrol(tmp_path, "Ada")
    refused(run("gallery", "reject", "Eve"), "nobody called Eve")
    refused(run("gallery", "reject", "Ada"), "nobody before a camera is taken for Ada")


def test_a_gallery_that_an_agent_uses_elsewhere_is_not_changed_behind_its_back(tmp_path, run):
    """It would go on to recognise whoever is deleted."""
    enrol(tmp_path, "Ada")
    with owned(tmp_path / "gallery.db"):
        refused(run("gallery", "delete", "Ada", "--yes"), "in use by another agent", "configuration")
        refused(run("gallery", "rename", "Ada", "Bob"), "in use by another agent")
        assert [each["name"] for each in json.loads(run("gallery", "list", "--json").stdout)] == ["Ada"]
    assert run("gallery", "delete", "Ada", "--yes").returncode == 0


# Backups and keys


@pytest.fixture
def passphrase(tmp_path) -> tuple[str, Path]:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery\n")
    return "--passphrase-file", file


def test_everybody_comes_back_from_a_backup(tmp_path, run, passphrase):
    enrol(tmp_path, "Ada", "Bob")
    done = run("gallery", "export", tmp_path / "backup", *passphrase)
    assert "2 people" in done.stdout
    (tmp_path / "gallery.db").unlink()
    (tmp_path / "gallery.key").unlink()
    assert "2 people restored" in run("gallery", "import", tmp_path / "backup", *passphrase).stdout
    assert [each["name"] for each in json.loads(run("gallery", "list", "--json").stdout)] == ["Ada", "Bob"]
    refused(run("gallery", "import", tmp_path / "backup", *passphrase), "already: Ada, Bob", "--replace")
    again = run("gallery", "import", tmp_path / "backup", "--replace", *passphrase)
    assert "2 of them replaced" in again.stdout


def test_a_running_daemon_recognises_whoever_is_restored(tmp_path, daemon, run, passphrase):
    enrol(tmp_path, "Ada")
    assert run("gallery", "export", tmp_path / "backup", *passphrase).returncode == 0
    assert run("gallery", "delete", "Ada", "--yes").returncode == 0
    enrol(tmp_path / "old", "Bob")
    with Gallery.open(tmp_path / "old" / "gallery.db") as gallery:
        gallery.export(tmp_path / "other", "correct horse battery")
    assert run("gallery", "import", tmp_path / "other", *passphrase).returncode == 0
    assert daemon.snapshot.names == ("Bob",)
    assert "2 embeddings are sealed with a new key" in run("gallery", "rotate-key").stdout
    assert run("gallery", "rename", "Bob", "Rob").returncode == 0
    assert daemon.snapshot.names == ("Rob",)


def test_a_deletion_names_the_backups_that_it_cannot_reach(tmp_path, run, passphrase):
    enrol(tmp_path, "Ada")
    run("gallery", "export", tmp_path / "backup", *passphrase)
    (tmp_path / "backup").unlink()
    done = run("gallery", "delete", "Ada", "--yes")
    assert done.returncode == 0
    assert f"may still be in a backup: {tmp_path}/backup: there is no such file" in done.stderr
    (listed,) = json.loads(run("gallery", "backups", "--json").stdout)
    assert (listed["path"], listed["people"], listed["gone"]) == (f"{tmp_path}/backup", 1, 1)
    assert "deleted" in run("gallery", "backups").stdout
    assert run("gallery", "backups", "--forget", tmp_path / "backup").returncode == 0
    assert json.loads(run("gallery", "backups", "--json").stdout) == []


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "first line is empty"), (b"\xff\xfe\n", "no text"), (b"short\n", "too short")]
)
def test_a_passphrase_that_is_none_is_refused(tmp_path, run, passphrase, content, word):
    enrol(tmp_path, "Ada")
    passphrase[1].write_bytes(content)
    refused(run("gallery", "export", tmp_path / "backup", *passphrase), word)
    assert not (tmp_path / "backup").exists()


def asked_for_a_passphrase(settings: Path, *arguments: str) -> tuple[int, int]:
    """The exit status of a command that asks at a terminal of its own, and how often it asked. Nothing is echoed."""
    number, terminal = pty.fork()
    if not number:
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", "agent", *arguments],
            os.environ | {"CABINSENSE_CONFIG": str(settings)},
        )
    said, asked = b"", 0
    with suppress(OSError):  # which is how a terminal ends
        while more := os.read(terminal, 1000):
            said += more
            if said.count(b"passphrase: ") + said.count(b"confirmation: ") > asked:  # the space comes last
                asked += 1
                os.write(terminal, b"correct horse battery\n")
    os.close(terminal)
    assert b"correct" not in said
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), asked


def test_a_passphrase_comes_from_a_file_or_a_terminal(tmp_path, settings, run, passphrase):
    enrol(tmp_path, "Ada")
    refused(run("gallery", "export", tmp_path / "b", "--passphrase-file", tmp_path / "none"), "No such file")
    assert run("gallery", "export", tmp_path / "b").returncode == 2
    assert asked_for_a_passphrase(settings, "gallery", "export", str(tmp_path / "b")) == (0, 2)
    assert run("gallery", "import", tmp_path / "b", "--replace", *passphrase).returncode == 0


# Another pack


@pytest.fixture
def from_another_pack(tmp_path, use_pack, samples) -> Path:
    """Two people of a pack that runs no more, one of whom was enrolled from photographs; and folders of pictures."""
    photos = tmp_path / "photos"
    for name, files in {"Barack": ("obama.jpg", "obama2.jpg"), "Joe": ("biden.jpg",)}.items():
        (photos / name).mkdir(parents=True)
        for file in files:
            shutil.copy(samples / file, photos / name)
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        vectors = np.eye(3, 128, dtype=np.float32)
        sources = [str(photos / "Barack" / name) for name in ("obama.jpg", "obama2.jpg")]
        taken = [Sample(vector, QUALITY, source) for vector, source in zip(vectors, sources, strict=False)]
        gallery.enrol("Barack", taken, PACK, 50)
        gallery.reject("Barack", vectors[2], PACK)
        gallery.enrol("Joe", [Sample(vectors[2], QUALITY)], PACK, 50)
    return photos


def people(run) -> dict[str, tuple[int, list[str]]]:
    listed = json.loads(run("gallery", "list", "--json").stdout)
    return {each["name"]: (each["samples"], each["packs"]) for each in listed}


def test_whoever_left_photographs_is_enrolled_anew_for_the_running_pack(from_another_pack, run, pack):
    done = run("gallery", "re-enrol")
    refused(
        done, "1 of 2 people could not be enrolled anew", "Joe: not enrolled anew: recorded before a camera"
    )
    assert "Barack is enrolled anew: 2 samples taken, 2 in the gallery" in done.stdout
    assert people(run) == {"Barack": (2, [pack.manifest.digest]), "Joe": (1, [PACK])}
    assert run("gallery", "re-enrol", "--images", from_another_pack).returncode == 0
    assert people(run) == {"Barack": (2, [pack.manifest.digest]), "Joe": (1, [pack.manifest.digest])}
    assert "nothing to do" in run("gallery", "re-enrol").stdout
    notes = json.loads(run("gallery", "audit", "--json").stdout)
    assert [note["action"] for note in notes][-2:] == ["re-enrol", "re-enrol"]


def test_of_a_person_all_photographs_are_used_or_none(from_another_pack, run, samples, pack):
    (from_another_pack / "Barack" / "obama2.jpg").unlink()
    refused(run("gallery", "re-enrol"), "Barack: not enrolled anew", "obama2.jpg", "No such file")
    shutil.copy(samples / "biden.jpg", from_another_pack / "Barack" / "obama2.jpg")
    shutil.copy(samples / "obama3.jpg", from_another_pack / "Barack" / "obama3.jpg")
    refused(run("gallery", "re-enrol"), "not the same person")
    assert people(run) == {"Barack": (2, [PACK]), "Joe": (1, [PACK])}


def test_no_name_leads_out_of_the_folder_of_images(from_another_pack, run, tmp_path):
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        gallery.rename("Joe", "../photos/Joe")
        gallery.rename("Barack", "Barack/../Barack")
    refused(
        run("gallery", "re-enrol", "--images", from_another_pack),
        "2 of 2",
        "no images in a folder of that name",
    )
    refused(run("gallery", "re-enrol", "--images", tmp_path / "none"), "No such file", "folder")


def test_a_running_daemon_recognises_whoever_is_enrolled_anew(from_another_pack, daemon, run):
    assert daemon.snapshot.names == ("Barack", "Joe")  # for the daemon of this test runs the older pack
    assert run("gallery", "re-enrol", "--images", from_another_pack).returncode == 0
    assert (daemon.snapshot.names, daemon.snapshot.skipped) == ((), 3)


# From photographs


def test_photographs_enrol_a_person(tmp_path, use_pack, run, samples, pack):
    done = run("record", "Barack", "--image", samples / "obama.jpg", "--image", samples / "obama2.jpg")
    assert done.returncode == 0, done.stderr
    assert f"{samples / 'obama.jpg'}: taken" in done.stdout
    assert "Barack is enrolled: 2 samples taken, 2 in the gallery" in done.stdout
    with Gallery.open(tmp_path / "gallery.db", readonly=True) as gallery:
        assert gallery.person("Barack").packs == (pack.manifest.digest,)
        assert gallery.samples("Barack")[0].size > 20
        assert gallery.samples("Barack")[1].source == str((samples / "obama2.jpg").resolve())

    refused(run("record", "Barack", "--image", samples / "obama3.jpg"), "Barack is enrolled already", "--add")
    added = run("record", "Barack", "--add", "--image", samples / "obama3.jpg")
    assert "1 sample taken, 3 in the gallery" in added.stdout
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
    refused(run("record", "Joe", "--skip-bad", "--image", empty), "1 of 1 image ", "Joe was not enrolled")


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
    end = time.monotonic() + 20
    while daemon.recording.is_set():  # the daemon notices within a second or so that the client has gone
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--image", "a.jpg", "--seconds", "3"),
        ("--image", "a.jpg", "--camera", "cabin"),
        ("--image", "a.jpg", "--json"),
        ("--skip-bad",),
        ("--seconds", "0"),
        ("--seconds", "1e9"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_together_are_a_usage_error(run, arguments):
    done = run("record", "Ada", *arguments)
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [("--image", "a.jpg"), ("--add",)], ids=" ".join)
def test_where_a_name_is_needed_it_is_asked_for(run, arguments):
    done = run("record", *arguments)
    assert done.returncode == 2
    assert "name the person" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
