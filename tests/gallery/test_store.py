"""What owners of a car rely on: people are kept through power cuts, kept private, and forgotten without a trace."""

import json
import multiprocessing
import os
import random
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gallery.store import MOST_ANCHORS, Gallery
from agent.gallery.types import Calibration, GalleryError, Sample, person_name
from agent.perception.types import Pose, Quality

PACK = "a" * 64
OTHER_PACK = "b" * 64
FORK = multiprocessing.get_context("fork")
NOBODY = 65534


def samples(seed: int, count: int = 3, dim: int = 128) -> list[Sample]:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        Sample(vector, Quality(40.0, 100.0 + i, 120.0, 50.0, Pose(1.0, 2.0, 3.0)))
        for i, vector in enumerate(vectors)
    ]


def seals(path: Path, name: str) -> list[bytes]:
    """What stands in the file for a person's embeddings, as any program can read it."""
    with closing(sqlite3.connect(path)) as raw:
        query = "SELECT sealed FROM samples JOIN people ON people.id = person_id WHERE name = ?"
        return [sealed for (sealed,) in raw.execute(query, [name])]


def traces(folder: Path, secrets: list[bytes], *words: str) -> list[str]:
    """Files in which a word, or any 16 bytes in a row of a secret, can be found."""
    needles = [word.encode() for word in words]
    for secret in secrets:
        needles += [secret[at : at + 16] for at in range(0, len(secret) - 15, 16)]
    return [file.name for file in folder.iterdir() if any(needle in file.read_bytes() for needle in needles)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data" / "gallery.db"


@pytest.fixture
def gallery(path) -> Iterator[Gallery]:
    with Gallery.open(path) as opened:
        yield opened


def test_people_are_there_again_after_reopening(path):
    with Gallery.open(path) as gallery:
        assert gallery.people() == []
        assert gallery.enrol("Ada", samples(1), PACK, 50) == 3
    with Gallery.open(path) as gallery:
        (ada,) = gallery.people()
        assert (ada.name, ada.samples, ada.packs) == ("Ada", 3, (PACK,))
        assert [sample.sharpness for sample in gallery.samples("Ada")] == [100.0, 101.0, 102.0]
        assert gallery.samples("Ada")[0].pitch == 2.0
        assert gallery.person("Ada") == ada


def test_its_owner_alone_may_read_it(path):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1), PACK, 50)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes["gallery.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_may_read_is_closed_to_them(path):
    Gallery.open(path).close()
    path.chmod(0o644)
    Gallery.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_commit_waits_for_the_disk(gallery):
    file = gallery._vault.file
    assert file.value("PRAGMA synchronous") == 2
    assert file.value("PRAGMA journal_mode") == "wal"
    assert file.value("PRAGMA secure_delete") == 1


def test_more_samples_for_a_known_person_must_be_asked_for(gallery):
    gallery.enrol("Ada", samples(1), PACK, 50)
    with pytest.raises(GalleryError, match="Ada is enrolled already; --add"):
        gallery.enrol("Ada", samples(2), PACK, 50)
    assert gallery.enrol("Ada", samples(2), PACK, 50, add=True) == 6
    with pytest.raises(GalleryError, match="nobody called Bob"):
        gallery.enrol("Bob", samples(3), PACK, 50, add=True)
    assert [person.name for person in gallery.people()] == ["Ada"]


def test_the_oldest_samples_make_room_for_new_ones(gallery):
    gallery.enrol("Bob", samples(9), PACK, 50)
    gallery.enrol("Ada", samples(1, 4), PACK, 5)
    newest = samples(2, 4)
    assert gallery.enrol("Ada", newest, PACK, 5, add=True) == 5
    kept = [s.sharpness for s in gallery.samples("Ada")]
    assert kept == [103.0, 100.0, 101.0, 102.0, 103.0]
    assert len(gallery.samples("Bob")) == 3


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [Sample(np.zeros(8, np.float32), samples(0)[0].quality)],
        [Sample(np.full(8, np.nan, np.float32), samples(0)[0].quality)],
        [*samples(1, dim=8), Sample(np.ones(8, np.float32), samples(0)[0].quality)],
    ],
    ids=["none", "zero", "nan", "one-too-long"],
)
def test_samples_that_are_no_embeddings_enrol_nobody(gallery, bad):
    with pytest.raises(ValueError, match="length 1"):
        gallery.enrol("Ada", bad, PACK, 50)
    assert gallery.people() == []


def test_samples_of_another_length_than_those_of_their_pack_are_refused(gallery):
    gallery.enrol("Ada", samples(1, dim=8), PACK, 50)
    with pytest.raises(ValueError, match="8 numbers"):
        gallery.enrol("Bob", samples(2, dim=16), PACK, 50)
    gallery.enrol("Bob", samples(2, dim=16), OTHER_PACK, 50)


def test_a_snapshot_has_one_template_a_person_and_leaves_out_other_packs(gallery):
    ada, bob = samples(1, 4), samples(2, 1)
    gallery.enrol("Ada", ada, PACK, 50)
    gallery.enrol("Old", samples(3, 2), OTHER_PACK, 50)
    gallery.enrol("Bob", bob, PACK, 50)
    gallery.enrol("Ada", samples(4, 5), OTHER_PACK, 50, add=True)
    snapshot = gallery.snapshot(PACK)
    assert snapshot.names == ("Ada", "Bob")
    assert snapshot.skipped == 7
    assert snapshot.templates.dtype == np.float32
    assert snapshot.templates.flags.c_contiguous
    mean = np.mean([sample.embedding for sample in ada], axis=0)
    np.testing.assert_allclose(snapshot.templates[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(snapshot.templates[1], bob[0].embedding, atol=1e-6)
    assert gallery.snapshot("c" * 64).names == ()


def test_a_snapshot_never_changes(gallery):
    gallery.enrol("Ada", samples(1), PACK, 50)
    before = gallery.snapshot(PACK)
    gallery.delete("Ada")
    assert before.names == ("Ada",)
    with pytest.raises(ValueError, match="read-only"):
        before.templates[0, 0] = 0


def test_a_person_gets_another_name(gallery):
    gallery.enrol("Driver 1", samples(1), PACK, 50)
    gallery.enrol("Bob", samples(2), PACK, 50)
    assert gallery.rename("Driver 1", " Ada ") == "Ada"
    assert gallery.snapshot(PACK).names == ("Ada", "Bob")
    assert gallery.rename("Ada", "Ada") == "Ada"
    with pytest.raises(GalleryError, match="Bob is enrolled already; choose another name"):
        gallery.rename("Ada", "Bob")
    with pytest.raises(GalleryError, match="nobody called Eve"):
        gallery.rename("Eve", "Zoe")
    with pytest.raises(GalleryError, match="empty"):
        gallery.rename("Ada", " ")
    assert [person.name for person in gallery.people()] == ["Ada", "Bob"]


def test_who_has_no_name_yet_gets_the_lowest_number_that_is_free(gallery):
    assert gallery.next_driver_name() == "Driver 1"
    for number in (1, 2, 4):
        gallery.enrol(f"Driver {number}", samples(number), PACK, 50)
    assert gallery.next_driver_name() == "Driver 3"
    gallery.rename("Driver 1", "Ada")
    assert gallery.next_driver_name() == "Driver 1"


def test_faces_that_are_not_a_person_are_in_the_snapshot_and_go_with_the_person(gallery):
    for seed, name in enumerate(["Ada", "Bob"]):
        gallery.enrol(name, samples(seed), PACK, 50)
    gallery.enrol("Old", samples(5), OTHER_PACK, 50)
    strangers = [sample.embedding for sample in samples(9, MOST_ANCHORS + 2)]
    for number, stranger in enumerate(strangers, 1):
        assert gallery.reject("Bob", stranger, PACK) == min(number, MOST_ANCHORS)
    gallery.reject("Ada", strangers[0], PACK)
    gallery.reject("Ada", strangers[1], OTHER_PACK)
    gallery.reject("Old", strangers[1], PACK)  # not in the snapshot, so neither is this
    snapshot = gallery.snapshot(PACK)
    assert snapshot.anchor_owners.tolist() == [0] + [1] * MOST_ANCHORS
    np.testing.assert_array_equal(snapshot.anchors[0], strangers[0])
    np.testing.assert_array_equal(snapshot.anchors[1:], strangers[2:])
    assert snapshot.anchors.dtype == np.float32
    gallery.delete("Bob")
    assert gallery.snapshot(PACK).anchor_owners.tolist() == [0]
    with pytest.raises(GalleryError, match="nobody called Eve"):
        gallery.reject("Eve", strangers[0], PACK)
    with pytest.raises(ValueError, match="length 1"):
        gallery.reject("Ada", 2 * strangers[0], PACK)


def test_a_measured_threshold_stays_with_the_gallery_for_its_pack(path):
    pairs = "LFW view 2: 3,000 and 3,000 pairs"
    steps = ((1, 0.8), (5, 0.83), (20, 0.85))
    measured = Calibration(PACK, 0.83, 1e-3, 9e-4, 0.97, (0.96, 0.98), pairs, steps=steps)
    with Gallery.open(path) as gallery:
        assert gallery.calibration(PACK) is None
        gallery.store_calibration(replace(measured, threshold=0.5))
        gallery.store_calibration(measured)
    with Gallery.open(path, readonly=True) as gallery:
        stored = gallery.calibration(PACK)
        assert replace(stored, created="") == measured
        assert stored.created.endswith("Z")
        assert gallery.snapshot(PACK).calibrated == stored
        assert gallery.snapshot(OTHER_PACK).calibrated is None


def test_a_sample_remembers_the_photograph_that_it_came_from(gallery):
    taken = [replace(sample, source=f"/photos/{i}.jpg") for i, sample in enumerate(samples(1, 2))]
    gallery.enrol("Ada", [*taken, *samples(2, 1)], PACK, 50)
    assert [sample.source for sample in gallery.samples("Ada")] == ["/photos/0.jpg", "/photos/1.jpg", None]


def test_nothing_of_a_deleted_person_is_left_on_the_disk(gallery, path):
    kept = {name: samples(seed, 40) for seed, name in enumerate(["Ada", "Zoe", "Eve"], 10)}
    for name, taken in kept.items():
        gallery.enrol(name, taken, PACK, 50)
    gallery.enrol("Mallory Unlikely", samples(1, 50), PACK, 50)
    forgotten = seals(path, "Mallory Unlikely")
    assert len(forgotten) == 50
    assert traces(path.parent, forgotten)
    gallery.delete("Mallory Unlikely")
    assert traces(path.parent, forgotten, "Mallory") == []
    assert [person.name for person in gallery.people()] == ["Ada", "Eve", "Zoe"]
    assert traces(path.parent, seals(path, "Ada")), "the search itself works"


def test_deleting_a_stranger_names_them(gallery):
    with pytest.raises(GalleryError, match=r"nobody called Eve .*gallery list"):
        gallery.delete("Eve")


def test_an_erasure_that_a_reader_holds_up_is_told_and_finished_at_the_next_opening(path):
    reader = None
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1), PACK, 50)
        gone = seals(path, "Ada")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM people").fetchone() == (1,)
        with pytest.raises(GalleryError, match=r"Ada is deleted, but traces are left .* another process"):
            gallery.delete("Ada")
        assert gallery.people() == []
    assert traces(path.parent, gone)
    Gallery.open(path).close()  # the reader is still there: a daemon must start all the same
    reader.close()
    Gallery.open(path).close()
    assert traces(path.parent, gone, "Ada") == []


# What can be wrong with the file


def refused(path: Path, *words: str) -> None:
    """Whoever opens it is told which file and what to do, and the file stays as it is."""
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(GalleryError) as told:
            Gallery.open(path, readonly=readonly)
        assert str(path) in str(told.value)
        for word in words:
            assert word in str(told.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"\0" * 8192, b"not a database\n" * 1000, b"SQLite format 3\0" + bytes(range(256)) * 40, b"xy"],
    ids=["zeros", "text", "header-and-garbage", "two-bytes"],
)
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    path = tmp_path / "gallery.db"
    path.write_bytes(content)
    refused(path, "move")


def test_an_empty_file_becomes_a_gallery(tmp_path, caplog):
    """An empty file holds nobody who could be lost: a power cut while the file was made leaves one."""
    path = tmp_path / "gallery.db"
    path.touch()
    with pytest.raises(GalleryError, match="is empty"):
        Gallery.open(path, readonly=True)
    with Gallery.open(path) as gallery:
        assert gallery.people() == []
    assert "is empty" in caplog.text


def test_a_damaged_page_is_found_at_opening(path):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1, 50), PACK, 50)
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(data)
    refused(path, "is damaged", "restore a backup")


def test_a_file_cut_in_half_is_found_at_opening(path):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1, 50), PACK, 50)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 8192 * 4096])
    refused(path, "is damaged", "restore a backup")


def test_whatever_bytes_go_bad_the_answer_is_people_or_a_clear_error(path):
    with Gallery.open(path) as gallery:
        for seed, name in enumerate(["Ada", "Bob", "Zoë"]):
            gallery.enrol(name, samples(seed, 4), PACK, 50)
    good = path.read_bytes()
    chance = random.Random(7)  # noqa: S311 - the same damage each time
    clear = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.choice([1, 4, 64])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            with Gallery.open(path) as gallery:
                gallery.people()
                gallery.snapshot(PACK)
        except GalleryError as error:
            clear += str(path) in str(error)
        for left in ("-wal", "-shm"):
            path.with_name(path.name + left).unlink(missing_ok=True)
    assert clear > 30


def test_the_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "music.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE people (title TEXT)")
    raw.close()
    refused(path, "not a gallery", "gallery.path")


def test_a_gallery_of_a_newer_version_is_left_alone(path):
    Gallery.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    refused(path, "newer version", "99", "update cabinsense")


def test_a_missing_file_is_not_made_by_reading(path):
    with pytest.raises(GalleryError, match="there is no gallery here; `cabinsense record NAME`"):
        Gallery.open(path, readonly=True)
    assert not path.exists()


def test_a_folder_in_its_place_is_named(tmp_path):
    with pytest.raises(GalleryError, match="is a folder"):
        Gallery.open(tmp_path)


def test_a_reader_cannot_write_and_leaves_no_files_behind(path):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1), PACK, 50)
    with Gallery.open(path, readonly=True) as reader:
        assert reader.person("Ada").samples == 3
        with pytest.raises(GalleryError, match="cannot be written"):
            reader.delete("Ada")
    assert sorted(file.name for file in path.parent.iterdir()) == ["gallery.db", "gallery.key"]


def test_a_reader_sees_what_a_running_writer_has_stored(path):
    with Gallery.open(path) as writer, Gallery.open(path, readonly=True) as reader:
        writer.enrol("Ada", samples(1), PACK, 50)
        assert [person.name for person in reader.people()] == ["Ada"]


def test_a_locked_file_is_told_after_a_short_wait(path):
    with Gallery.open(path) as gallery:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(GalleryError, match=r"in use by another process.*try again"):
            gallery.enrol("Ada", samples(1), PACK, 50)
        with (
            Gallery.open(path) as other,
            pytest.raises(GalleryError, match=r"gallery\.db is in use by another process"),
        ):
            other.delete("Ada")
        assert time.monotonic() - started < 4
        holder.close()
        assert gallery.enrol("Ada", samples(1), PACK, 50) == 3


def test_a_full_disk_enrols_nobody_and_loses_nobody(gallery):
    gallery.enrol("Ada", samples(1), PACK, 50)
    file = gallery._vault.file
    file.execute(f"PRAGMA max_page_count = {file.value('PRAGMA page_count') + 2}")
    with pytest.raises(GalleryError, match="the disk is full; free some space"):
        gallery.enrol("Bob", samples(2, 50), PACK, 50)
    assert [(person.name, person.samples) for person in gallery.people()] == [("Ada", 3)]
    file.execute("PRAGMA max_page_count = 100000")
    gallery.enrol("Bob", samples(2, 50), PACK, 50)


# Other processes


def in_child(what: Callable[[], object], *, as_nobody: bool = False) -> str:
    """Run a function in a process of its own, and give back its result, or the error that users would see."""
    receiver, sender = FORK.Pipe(duplex=False)

    def child() -> None:
        if as_nobody and os.geteuid() == 0:
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        try:
            sender.send(json.dumps(what()))
        except GalleryError as error:
            sender.send(f"error: {error}")

    process = FORK.Process(target=child)
    process.start()
    answer = receiver.recv() if receiver.poll(30) else "no answer"
    process.join(10)
    return answer


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that another user can get at, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o700)


def test_a_folder_that_cannot_be_written_is_named_but_can_be_read(public_folder):
    path = public_folder / "gallery.db"
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1), PACK, 50)
    if os.geteuid() == 0:
        for file in public_folder.iterdir():
            os.chown(file, NOBODY, NOBODY)
    public_folder.chmod(0o555)

    def read() -> list[str]:
        with Gallery.open(path, readonly=True) as gallery:
            return [person.name for person in gallery.people()]

    def write() -> None:
        with Gallery.open(path) as gallery:
            gallery.enrol("Bob", samples(2), PACK, 50)

    assert in_child(read, as_nobody=True) == '["Ada"]'
    told = in_child(write, as_nobody=True)
    assert told.startswith(f"error: {path} cannot be ")
    assert "its folder must belong to the user who runs this" in told


def test_a_folder_in_which_no_file_can_be_made_is_named(public_folder):
    public_folder.chmod(0o555)
    told = in_child(lambda: Gallery.open(public_folder / "gallery.db").close(), as_nobody=True)
    assert told.startswith(f"error: {public_folder}/gallery.db: Permission denied")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, so root")
def test_the_gallery_of_another_user_is_told_from_a_damaged_one(public_folder):
    path = public_folder / "gallery.db"
    Gallery.open(path).close()
    for readonly in (True, False):
        told = in_child(lambda: Gallery.open(path, readonly=readonly).close(), as_nobody=True)  # noqa: B023
        assert "must belong to the user who runs this" in told


def test_two_processes_may_enrol_at_once_and_everybody_is_kept(path):
    Gallery.open(path).close()

    def enrol(first: int) -> None:
        with Gallery.open(path) as gallery:
            for number in range(first, first + 12):
                gallery.enrol(f"Person {number}", samples(number), PACK, 50)

    writers = [FORK.Process(target=enrol, args=[first]) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    with Gallery.open(path, readonly=True) as gallery:
        assert len(gallery.people()) == 24
        assert {person.samples for person in gallery.people()} == {3}


def test_a_disk_that_fails_while_writing_enrols_nobody(path):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", samples(1), PACK, 50)

    def write() -> None:
        with Gallery.open(path) as gallery:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
            gallery.enrol("Bob", samples(2, 50), PACK, 50)

    assert f"{path}: disk I/O error; check the disk" in in_child(write)
    with Gallery.open(path) as gallery:
        assert [(person.name, person.samples) for person in gallery.people()] == [("Ada", 3)]


FULL_DISK = """
import os, sys
from pathlib import Path
from agent.gallery.store import MOST_ANCHORS, Gallery
from agent.gallery.types import Calibration, GalleryError
from tests.gallery.test_store import PACK, samples
folder = Path(sys.argv[1])
path = folder / "gallery.db"
def fill():
    with open(folder / "film", "ab", buffering=0) as film:
        try:
            while film.write(bytes(4096)):
                pass
        except OSError:
            pass
def told(what):
    try:
        what()
    except GalleryError as error:
        print(error)
def enrol():
    with Gallery.open(path) as gallery:
        fill()
        gallery.enrol("Bob", samples(2, 50), PACK, 50)
def make():
    Gallery.open(folder / "new.db").close()
def export():
    with Gallery.open(path) as gallery:
        gallery.export(folder / "backup", "correct horse battery")
def rotate():
    with Gallery.open(path) as gallery:
        gallery.rotate_key()
with Gallery.open(path) as gallery:
    gallery.enrol("Ada", samples(1), PACK, 50)
told(enrol)
fill()  # what the log of the first had
told(lambda: Gallery.open(path).close())
fill()
told(lambda: Gallery.open(path, readonly=True).close())
told(make)
told(export)
told(rotate)
os.unlink(folder / "film")
with Gallery.open(path) as gallery:
    print([person.name for person in gallery.people()], gallery.snapshot(PACK).names)
"""


def test_a_full_disk_is_called_full_and_costs_nobody(tmp_path):
    """On a real disk of its own, of 600 KiB, that is full to the last byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=600k none "$0" && exec "$@"', str(disk)]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    done = subprocess.run(
        [*mount, sys.executable, "-c", FULL_DISK, str(disk)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    *told, people = done.stdout.splitlines()
    assert people == "['Ada'] ('Ada',)", done.stderr
    assert len(told) == 6
    for line in told:
        assert "the disk is full; free some space and try again" in line


# Names


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("  Ada ", "Ada"),
        ("Ada Lovelace", "Ada Lovelace"),
        ("Zoe\N{COMBINING DIAERESIS}", "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}"),
        ("王伟", "王伟"),
        ("'; DROP TABLE people; --", "'; DROP TABLE people; --"),
        ("x" * 64, "x" * 64),
        ("\tAda\n", "Ada"),
    ],
)
def test_a_name_is_kept_as_people_would_write_it(gallery, typed, stored):
    gallery.enrol(typed, samples(1), PACK, 50)
    assert [person.name for person in gallery.people()] == [stored]
    with pytest.raises(GalleryError, match="already"):
        gallery.enrol(stored, samples(2), PACK, 50)
    gallery.delete(typed)
    assert gallery.people() == []


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 65, "too long"),
        ("Ada\nBob", "U+000A"),
        ("Ada\0", "U+0000"),
        ("A\x1b[31mda", "U+001B"),
        ("Ada\N{RIGHT-TO-LEFT OVERRIDE}", "U+202E"),
        ("\udcff", "U+DCFF"),
    ],
)
def test_a_name_that_cannot_be_read_back_is_refused(gallery, typed, word):
    with pytest.raises(GalleryError) as told:
        gallery.enrol(typed, samples(1), PACK, 50)
    assert word in str(told.value)
    assert str(told.value).isprintable()
    assert gallery.people() == []


@given(st.text(max_size=80))
def test_a_name_that_is_taken_stays_the_same_when_written_again(text):
    try:
        name = person_name(text)
    except GalleryError:
        return
    assert person_name(name) == name
    assert 1 <= len(name) <= 64
    assert name.isprintable()
