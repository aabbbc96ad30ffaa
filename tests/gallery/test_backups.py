"""What owners rely on: a backup brings everybody back, is of no use to strangers, and forgets whom they forget."""

import os
import random
import stat
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agent.gallery import archive
from agent.gallery.keys import new_key
from agent.gallery.store import Gallery
from agent.gallery.types import Calibration, GalleryError

PACK = "a" * 64
OTHER_PACK = "b" * 64
PASSPHRASE = "correct horse battery"  # noqa: S105
MEASURED = Calibration(PACK, 0.83, 1e-3, 9e-4, 0.97, (0.96, 0.98), "LFW", steps=((1, 0.8), (5, 0.83)))


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """A passphrase that costs as little as is allowed; that the real one costs more has a test of its own."""
    monkeypatch.setattr(archive, "_COST", (14, 8, 1))


@pytest.fixture
def filled(gallery, taken):
    for seed, name in enumerate(["Ada", "Bob", "Zoë"]):
        gallery.enrol(name, taken(seed, 3), PACK, 50)
    gallery.enrol("Bob", taken(7, 2), OTHER_PACK, 50, add=True)
    gallery.reject("Ada", taken(9, 1)[0].embedding, PACK)
    gallery.store_calibration(MEASURED)
    return gallery


@pytest.fixture
def file(tmp_path):
    return tmp_path / "media" / "backup"


@pytest.fixture
def backup(filled, file):
    file.parent.mkdir()
    assert filled.export(file, PASSPHRASE) == 3
    return file


@pytest.fixture
def board(tmp_path):
    """Another gallery, with a key of its own."""
    with Gallery.open(tmp_path / "board" / "gallery.db") as opened:
        yield opened


def names(gallery: Gallery) -> list[str]:
    return [person.name for person in gallery.people()]


def inside(file, passphrase: str = PASSPHRASE) -> list[str]:
    return [person.name for person in archive.open_with_passphrase(file.read_bytes(), passphrase).people]


def test_a_backup_brings_everybody_back_on_another_board(filled, backup, board, content):
    done = board.restore(backup, PASSPHRASE, 50)
    assert (done.names, done.replaced, done.missed) == (("Ada", "Bob", "Zoë"), (), ())
    assert content(board, PACK) == content(filled, PACK)
    assert [note.action for note in board.audit()] == ["import"] * 3
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_trying_a_passphrase_costs_an_attacker_what_is_usual(monkeypatch, taken, gallery, tmp_path):
    monkeypatch.undo()
    gallery.enrol("Ada", taken(1), PACK, 50)
    gallery.export(tmp_path / "backup", PASSPHRASE)
    data = (tmp_path / "backup").read_bytes()
    header = msgspec.msgpack.decode(data[12 : 12 + struct.unpack_from(">I", data, 8)[0]])
    cost, block, parallel = header[2:5]
    assert 128 * block * 2**cost == 64 * 2**20  # bytes of memory, RFC 7914, section 2
    assert parallel == 2
    assert inside(tmp_path / "backup") == ["Ada"]


def test_a_passphrase_is_the_same_however_a_keyboard_writes_it(filled, tmp_path, board):
    filled.export(tmp_path / "backup", "Zoe\N{COMBINING DIAERESIS} and the rest")
    board.restore(tmp_path / "backup", "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} and the rest", 50)
    assert len(names(board)) == 3


def test_two_backups_of_the_same_people_have_nothing_in_common(filled, backup, tmp_path):
    filled.export(tmp_path / "second", PASSPHRASE)
    first, second = backup.read_bytes(), (tmp_path / "second").read_bytes()
    shared = [at for at in range(64, len(first) - 16, 16) if first[at : at + 16] in second]
    assert shared == []


def test_nobody_is_restored_over_somebody_else_unless_that_is_meant(backup, board, taken, content):
    board.enrol("Bob", taken(42), PACK, 50)
    board.enrol("Eve", taken(43), PACK, 50)
    before = content(board, PACK)
    with pytest.raises(GalleryError, match=r"in the gallery already: Bob; nobody was restored; --replace"):
        board.restore(backup, PASSPHRASE, 50)
    assert content(board, PACK) == before
    done = board.restore(backup, PASSPHRASE, 50, replace=True)
    assert done.replaced == ("Bob",)
    assert names(board) == ["Ada", "Bob", "Eve", "Zoë"]
    assert len(board.samples("Bob")) == 5


def test_who_is_replaced_by_somebody_else_of_that_name_is_deleted_in_the_audit_too(backup, board, taken):
    board.enrol("Bob", taken(42), PACK, 50)
    gone = board.audit()[-1].person
    board.restore(backup, PASSPHRASE, 50, replace=True)
    assert [note.person for note in board.audit() if note.action == "delete"] == [gone]
    board.restore(backup, PASSPHRASE, 50, replace=True)
    assert [note.person for note in board.audit() if note.action == "delete"] == [gone]


def test_who_was_renamed_since_is_the_same_person(filled, backup):
    filled.rename("Ada", "Countess")
    with pytest.raises(GalleryError, match="already: Bob, Countess, Zoë"):
        filled.restore(backup, PASSPHRASE, 50)
    assert filled.restore(backup, PASSPHRASE, 50, replace=True).replaced == ("Bob", "Countess", "Zoë")
    assert names(filled) == ["Ada", "Bob", "Zoë"]


def test_thresholds_come_along_but_go_before_none(backup, board):
    board.restore(backup, PASSPHRASE, 50)
    assert board.calibration(PACK).threshold == 0.83
    board.store_calibration(Calibration(PACK, 0.9, 1e-3, 9e-4, 0.97, (0.96, 0.98), "mine"))
    board.restore(backup, PASSPHRASE, 50, replace=True)
    assert board.calibration(PACK).threshold == 0.9


def test_the_newest_samples_are_kept_where_fewer_are_allowed(backup, board):
    board.restore(backup, PASSPHRASE, 2)
    assert {person.name: person.samples for person in board.people()} == {"Ada": 2, "Bob": 2, "Zoë": 2}
    assert {sample.pack for sample in board.samples("Bob")} == {OTHER_PACK}


def test_a_backup_that_does_not_fit_restores_nobody(backup, board, taken):
    board.enrol("Eve", taken(1, dim=64), OTHER_PACK, 50)
    with pytest.raises(GalleryError, match=r"does not fit the gallery.*64 numbers; nobody was restored"):
        board.restore(backup, PASSPHRASE, 50)
    assert names(board) == ["Eve"]


# What can be wrong with it


def refused(board: Gallery, file, word: str, passphrase: str = PASSPHRASE) -> None:
    with pytest.raises(GalleryError, match=word) as told:
        board.restore(file, passphrase, 50)
    assert str(file) in str(told.value)
    assert names(board) == []


def test_another_passphrase_opens_nothing(backup, board):
    refused(board, backup, "passphrase is wrong", "correct horse batterx")
    refused(board, backup, "passphrase is wrong", "")


@pytest.mark.parametrize("passphrase", ["", "short", "x" * 11])
def test_a_passphrase_that_can_be_guessed_is_refused(filled, file, passphrase):
    file.parent.mkdir()
    with pytest.raises(GalleryError, match="too short; use at least 12"):
        filled.export(file, passphrase)
    assert not file.exists()
    assert filled.backups() == []


def test_a_backup_that_was_cut_off_is_refused(backup, board):
    data = backup.read_bytes()
    for length in (0, 1, 7, 8, 11, 12, 100, len(data) // 2, len(data) - 1):
        backup.write_bytes(data[:length])
        refused(board, backup, "beginning|cut off")


def test_any_flipped_bit_is_noticed(filled, backup, board):
    data = backup.read_bytes()
    header = struct.unpack_from(">I", data, 8)[0] + 12
    chance = random.Random(5)  # noqa: S311 - the same flips each time
    for place in [*range(header), *(chance.randrange(header, len(data)) for _ in range(100))]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        with pytest.raises(GalleryError, match=r"use a copy|only its passphrase"):
            archive.open_with_key(bytes(flipped), [filled._vault.key()])
    for place in (*range(12, header, 5), header, header + 200, len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 1
        backup.write_bytes(flipped)
        refused(board, backup, "changed|not a backup")


def test_what_is_no_backup_is_refused_at_once(board, tmp_path):
    file = tmp_path / "backup"
    refused(board, file, "no such file")
    refused(board, tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe")
    refused(board, tmp_path / "pipe", "not a regular file")
    for data in (b"", b"hello", bytes(5000), b"CBNSBAK1" + b"\xff" * 4 + bytes(100), os.urandom(5000)):
        file.write_bytes(data)
        refused(board, file, "not a backup")


def test_a_file_that_is_far_too_large_is_refused_unread(board, tmp_path):
    file = tmp_path / "backup"
    with file.open("wb") as opened:
        opened.truncate(archive.MAX_BYTES + 1)  # a hole: it takes no room on the disk
    refused(board, file, "256 MiB are too large")


@pytest.mark.parametrize(
    ("field", "value"), [(2, 60), (2, 13), (3, 1 << 20), (4, 1 << 20), (1, bytes(3)), (6, "x")]
)
def test_a_header_that_asks_for_the_moon_is_refused_at_once(backup, board, field, value):
    data = backup.read_bytes()
    length = struct.unpack_from(">I", data, 8)[0]
    header = msgspec.msgpack.decode(data[12 : 12 + length])
    header[field] = value
    changed = msgspec.msgpack.encode(header)
    backup.write_bytes(data[:8] + struct.pack(">I", len(changed)) + changed + data[12 + length :])
    began = time.process_time()
    refused(board, backup, "not a backup")
    assert time.process_time() - began < 1


def test_what_no_gallery_exports_is_refused_even_under_the_right_passphrase(filled, board, tmp_path, backup):
    whole = archive.open_with_passphrase(backup.read_bytes(), PASSPHRASE)
    ada = whole.people[0]
    bad = {
        "twice": [ada, ada],
        "name": [archive.ArchivedPerson(ada.uid, "a\nb", ada.created, ada.samples, ada.anchors)],
        "length": [archive.ArchivedPerson(ada.uid, "Ada", ada.created, (), ada.anchors)],
        "time": [replace(ada, created="\x1b[2J2026-01-01T00:00:00Z")],
        "time of a sample": [replace(ada, samples=(replace(ada.samples[0], created="yesterday"),))],
        "pack": [replace(ada, samples=(replace(ada.samples[0], pack="\x1b[2J"),))],
    }
    for what, people in bad.items():
        file = tmp_path / what
        file.write_bytes(archive.make(people, (), PASSPHRASE, new_key()).packed())
        refused(board, file, "holds what no gallery exports")
    file = tmp_path / "threshold"
    worse = Calibration(PACK, float("nan"), 0.0, 0.0, 0.0, (0.0, 0.0), "")
    file.write_bytes(archive.make([ada], [worse], PASSPHRASE, new_key()).packed())
    refused(board, file, "a threshold is not a number")
    for pairs in ("\x1b]0;mine\x07", "x" * 5000):
        worse = Calibration(PACK, 0.5, 0.0, 0.0, 0.0, (0.0, 0.0), pairs, ada.created)
        file.write_bytes(archive.make([ada], [worse], PASSPHRASE, new_key()).packed())
        refused(board, file, "control characters, or is too long")


def test_the_path_of_a_photograph_does_nothing_to_the_terminal_that_shows_it(filled, board, tmp_path, backup):
    ada = archive.open_with_passphrase(backup.read_bytes(), PASSPHRASE).people[0]
    kept = replace(
        ada.samples[0], sample=replace(ada.samples[0].sample, source="/home/\u202fada\x1b[2J/\n.jpg")
    )
    file = tmp_path / "file"
    file.write_bytes(archive.make([replace(ada, samples=(kept,))], (), PASSPHRASE, new_key()).packed())
    board.restore(file, PASSPHRASE, 50)
    assert (
        board.samples(ada.name)[0].source
        == "/home/\u202fada\N{REPLACEMENT CHARACTER}[2J/\N{REPLACEMENT CHARACTER}.jpg"
    )


# Making one


def test_an_existing_file_is_never_overwritten(filled, file):
    file.parent.mkdir()
    file.write_text("my thesis")
    with pytest.raises(GalleryError, match="exists already"):
        filled.export(file, PASSPHRASE)
    assert file.read_text() == "my thesis"
    assert filled.backups() == []


def test_a_backup_that_cannot_be_written_leaves_no_trace(filled, tmp_path):
    with pytest.raises(GalleryError, match="No such file or directory; name a file elsewhere"):
        filled.export(tmp_path / "nowhere" / "backup", PASSPHRASE)
    assert filled.backups() == []
    assert "export" not in [note.action for note in filled.audit()]


FULL_DISK = """
import sys
from pathlib import Path
from agent.gallery.store import Gallery
from agent.gallery.types import GalleryError
with Gallery.open(Path(sys.argv[1])) as gallery:
    try:
        gallery.export(Path(sys.argv[2]) / "backup", "correct horse battery")
    except GalleryError as error:
        print(error)
    print(gallery.backups(), [note.action for note in gallery.audit()], list(Path(sys.argv[2]).iterdir()))
"""


def test_a_full_disk_leaves_no_half_backup(path, taken, tmp_path):
    """On a real disk of its own, of 16 KiB."""
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1, 50), PACK, 50)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=16k none "$0" && exec "$@"', str(disk)]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    done = subprocess.run(
        [*mount, sys.executable, "-c", FULL_DISK, str(path), str(disk)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    told, left = done.stdout.splitlines()
    assert f"{disk}/backup cannot be written: No space left on device" in told
    assert left == "[] ['enrol'] []"


def test_an_export_that_dies_at_any_step_leaves_a_whole_backup_or_none(path, taken, dying, tmp_path):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1, 1), PACK, 50)
    moment, whole = 1, 0
    file = tmp_path / "backup"
    while dying(lambda gallery: gallery.export(file, PASSPHRASE), moment):
        with Gallery.open(path) as gallery:
            (known,) = gallery.backups() or (None,)
            assert file.exists() == (known is not None)
            if known:
                whole += 1
                assert gallery.delete("Ada") == ()
                assert inside(file) == []
                gallery.enrol("Ada", taken(1, 1), PACK, 50)
                file.unlink()
                gallery.disown(file)
        moment += 2
    assert moment > 20


# Forgetting


def test_who_is_deleted_is_deleted_from_every_backup(filled, backup, tmp_path):
    second = tmp_path / "second"
    filled.export(second, PASSPHRASE)
    assert filled.delete("Ada") == ()
    assert inside(backup) == inside(second) == ["Bob", "Zoë"]
    assert [(each.people, each.gone) for each in filled.backups()] == [(2, 0), (2, 0)]
    assert sorted(file.name for file in backup.parent.iterdir()) == ["backup"]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_the_bytes_of_the_old_backup_are_overwritten(filled, backup):
    size = backup.stat().st_size
    with backup.open("rb") as old:
        filled.delete("Ada")
        assert old.read() == bytes(size)


def test_a_backup_without_the_person_stays_as_it_is(filled, backup, taken):
    before = backup.read_bytes()
    filled.enrol("Eve", taken(5), PACK, 50)
    assert filled.delete("Eve") == ()
    assert backup.read_bytes() == before


def test_a_backup_out_of_reach_is_named_and_seen_to_when_it_is_back(filled, backup, path):
    backup.rename(backup.with_name("away"))
    (told,) = filled.delete("Ada")
    assert told == f"{backup.resolve()}: there is no such file"
    assert [(each.people, each.gone) for each in filled.backups()] == [(3, 1)]
    (told,) = filled.delete("Bob")
    assert str(backup) in told
    backup.with_name("away").rename(backup)
    assert inside(backup) == ["Ada", "Bob", "Zoë"]
    Gallery.open(path).close()
    assert inside(backup) == ["Zoë"]


def test_a_file_that_has_taken_its_place_is_left_alone(filled, backup, tmp_path):
    other = tmp_path / "other"
    filled.export(other, PASSPHRASE)
    for content in (b"my thesis", other.read_bytes()):
        backup.write_bytes(content)
        told = filled.delete(names(filled)[0])
        assert any(str(backup) in each for each in told)
        assert backup.read_bytes() == content


def test_a_second_name_of_a_backup_is_told(filled, backup):
    os.link(backup, backup.with_name("second"))
    (told,) = filled.delete("Ada")
    assert "a second name" in told
    assert inside(backup) == ["Bob", "Zoë"]
    assert inside(backup.with_name("second")) == ["Ada", "Bob", "Zoë"]


def test_a_backup_that_exists_no_more_can_be_given_up(filled, backup):
    with pytest.raises(GalleryError, match="remove it first"):
        filled.disown(backup)
    backup.unlink()
    filled.disown(backup)
    assert filled.backups() == []
    assert filled.delete("Ada") == ()
    with pytest.raises(GalleryError, match="not among the backups"):
        filled.disown(backup)


def test_who_is_restored_from_a_backup_stays_in_it(filled, backup):
    backup.rename(backup.with_name("away"))
    filled.delete("Ada")
    backup.with_name("away").rename(backup)
    filled.delete("Zoë")
    assert inside(backup) == ["Bob"]
    filled.export(backup.with_name("again"), PASSPHRASE)
    filled.delete("Bob")
    assert inside(backup.with_name("again")) == []


def test_a_deletion_that_dies_at_any_step_is_finished_at_the_next_opening(path, taken, dying, tmp_path):
    """Either the whole person is there, in the gallery and in the backup, or nothing of them in either."""
    file = tmp_path / "backup"
    moment, gone = 1, 0

    def enrol() -> None:
        with Gallery.open(path) as gallery:
            gallery.enrol("Ada", taken(1, 1), PACK, 50)
            gallery.export(file, PASSPHRASE)

    enrol()
    while dying(lambda gallery: gallery.delete("Ada"), moment):
        with Gallery.open(path) as gallery:
            assert gallery._vault.file.value("PRAGMA quick_check") == "ok"
            assert inside(file) == names(gallery)
            assert [each.name for each in tmp_path.iterdir() if each.suffix == ".new"] == []
            forgotten = not names(gallery)
        if forgotten:
            gone += 1
            file.unlink()
            enrol()
        moment += 2
    assert gone > 5
    assert moment > 20
