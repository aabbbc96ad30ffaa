"""A new key: everything is sealed with it, the old one opens nothing, and no moment of a power cut loses anybody."""

import sqlite3

import pytest

from agent.gallery import archive
from agent.gallery.keys import KeyFile, new_key
from agent.gallery.store import Gallery
from agent.gallery.types import Calibration, GalleryError

PACK = "a" * 64
PASSPHRASE = "correct horse battery"  # noqa: S105


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(archive, "_COST", (14, 8, 1))


@pytest.fixture
def key(path):
    return path.parent / "gallery.key"


@pytest.fixture
def filled(path, taken):
    with Gallery.open(path) as gallery:
        for seed, name in enumerate(["Ada", "Bob"]):
            gallery.enrol(name, taken(seed, 2), PACK, 50)
        gallery.reject("Ada", taken(9, 1)[0].embedding, PACK)
        gallery.store_calibration(Calibration(PACK, 0.83, 1e-3, 9e-4, 0.97, (0.96, 0.98), "LFW"))
    return path


def test_everything_is_there_under_a_new_key_and_the_old_one_opens_nothing(filled, key, content):
    old = key.read_bytes()
    with Gallery.open(filled) as gallery:
        before, opened = content(gallery, PACK), key.open("rb")
        assert gallery.rotate_key() == (5, ())
        assert content(gallery, PACK) == before
        assert not any(opened.read())  # what the old file held is overwritten
        opened.close()
    new = key.read_bytes()
    assert new != old
    assert len(KeyFile(key).load()) == 1
    with Gallery.open(filled) as gallery:
        assert content(gallery, PACK) == before
        assert gallery.audit()[-1].action == "rotate-key"
    key.write_bytes(old)
    with pytest.raises(GalleryError, match="put that one back"):
        Gallery.open(filled)


def test_a_key_behind_a_link_is_rotated_where_it_lies(filled, key, tmp_path):
    elsewhere = tmp_path / "elsewhere.key"
    key.rename(elsewhere)
    key.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with Gallery.open(filled) as gallery:
        assert gallery.rotate_key() == (5, ())
    assert key.is_symlink()
    assert elsewhere.read_bytes() != before


def test_a_second_name_under_which_the_old_key_stays_is_told(filled, key, tmp_path):
    (tmp_path / "second").hardlink_to(key)
    with Gallery.open(filled) as gallery:
        _, (told,) = gallery.rotate_key()
    assert told.startswith(f"{key}: it has a second name")


def test_no_seal_of_the_old_key_is_left_in_the_file(filled, path):
    raw = sqlite3.connect(path)
    old = [seal for table in ("samples", "anchors") for (seal,) in raw.execute(f"SELECT sealed FROM {table}")]  # noqa: S608
    raw.close()
    with Gallery.open(filled) as gallery:
        gallery.rotate_key()
        files = [file.read_bytes() for file in path.parent.iterdir()]
    assert len(old) == 5
    assert not any(seal[at : at + 32] in data for data in files for seal in old for at in range(0, 480, 32))


def test_whoever_has_the_gallery_open_goes_on_with_the_new_key(filled, taken):
    with (
        Gallery.open(filled) as daemon,
        Gallery.open(filled, readonly=True) as reader,
        Gallery.open(filled) as command,
    ):
        command.rotate_key()
        assert daemon.snapshot(PACK).names == reader.snapshot(PACK).names == ("Ada", "Bob")
        daemon.enrol("Eve", taken(5), PACK, 50)
        assert command.snapshot(PACK).names == ("Ada", "Bob", "Eve")


def test_backups_are_opened_by_the_new_key_and_the_same_passphrase(filled, tmp_path, taken):
    near, far = tmp_path / "near", tmp_path / "far"
    with Gallery.open(filled) as gallery:
        gallery.export(near, PASSPHRASE)
        gallery.export(far, PASSPHRASE)
        far.rename(tmp_path / "away")
        _, missed = gallery.rotate_key()
        (told,) = missed
        assert str(far) in told
        assert "no such file" in told
        (tmp_path / "away").rename(far)
        (told,) = gallery.delete("Ada")  # the old key is gone, and with it the way into that one
        assert str(far) in told
        assert "only its passphrase" in told
    with Gallery.open(tmp_path / "new" / "gallery.db") as board:
        assert board.restore(near, PASSPHRASE, 50).names == ("Bob",)
        assert board.restore(far, PASSPHRASE, 50, replace=True).names == ("Ada", "Bob")


def test_a_damaged_gallery_is_not_sealed_anew(filled, key, change):
    before = key.read_bytes()
    change("UPDATE samples SET size = 1 WHERE id = 2")
    with Gallery.open(filled) as gallery, pytest.raises(GalleryError, match="Ada"):
        gallery.rotate_key()
    with Gallery.open(filled) as gallery:
        assert gallery.people()
    assert key.read_bytes() == before, "the key that was never used is forgotten"


def test_a_rotation_that_dies_at_any_step_loses_nobody_and_is_finished(
    path, key, taken, content, dying, tmp_path
):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1, 1), PACK, 50)
        gallery.enrol("Bob", taken(2, 1), PACK, 50)
        gallery.export(tmp_path / "backup", PASSPHRASE)
        before = content(gallery, PACK)
    moment, halves, ids = 1, 0, {key.read_text()[:16]}
    while dying(Gallery.rotate_key, moment):
        halves += len(key.read_bytes().split()) == 4
        with Gallery.open(path, readonly=True) as reader:
            assert content(reader, PACK) == before
        with Gallery.open(path) as gallery:
            assert content(gallery, PACK) == before
            assert gallery._vault.file.value("PRAGMA quick_check") == "ok"
        (left,) = KeyFile(key).load()
        ids.add(left.id)
        moment += 2
    assert moment > 30
    assert halves > 5, "it died between the two keys"
    assert len(ids) > 2, "and after the new one was in force"
    with Gallery.open(path) as gallery:
        assert gallery.delete("Ada") == (), "the backup still opens"


def test_a_key_that_was_noted_but_never_used_is_forgotten(filled, key, content):
    current = KeyFile(key).load()[0]
    KeyFile(key).write([current, new_key()])
    with Gallery.open(filled, readonly=True) as gallery:
        before = content(gallery, PACK)
    assert len(KeyFile(key).load()) == 2, "who only reads changes nothing"
    with Gallery.open(filled) as gallery:
        assert content(gallery, PACK) == before
    assert KeyFile(key).load() == (current,)
