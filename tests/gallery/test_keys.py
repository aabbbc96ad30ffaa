"""What owners rely on: without the key nobody reads the gallery, and whatever is wrong with the key is told."""

import base64
import shutil
import stat
import subprocess
import threading

import pytest

from agent.gallery.keys import CREDENTIAL, Key, KeyFile, new_key
from agent.gallery.store import Gallery
from agent.gallery.types import GalleryError
from tests.integration.faults import Faults

PACK = "a" * 64


@pytest.fixture
def key(path):
    return path.parent / "gallery.key"


@pytest.fixture
def filled(path, taken, key):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
    return path


def refused(path, *words: str, key=None) -> None:
    """Whoever opens it is told, and nothing changes."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for readonly in (True, False):
        with pytest.raises(GalleryError) as told:
            Gallery.open(path, key=key, readonly=readonly)
        for word in words:
            assert word in str(told.value)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_key_is_made_at_the_first_start_for_its_owner_alone(filled, key):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(file.name for file in filled.parent.iterdir()) == ["gallery.db", "gallery.key"]
    (made,) = KeyFile(key).load()
    assert len(made.secret) == 32
    assert key.read_text() == f"{made.id} {made.secret.hex()}\n"
    with Gallery.open(filled) as gallery:
        assert gallery.snapshot(PACK).names == ("Ada",)
    assert KeyFile(key).load() == (made,)


def test_a_key_that_is_replaced_while_it_is_read_is_read_again(filled, key):
    file, newer = KeyFile(key), new_key()
    faults = Faults()
    read: list[Key] = []

    def reading() -> None:
        while newer not in read[-1:]:
            read.extend(file.load())

    reader = threading.Thread(target=reading)
    reader.start()
    try:
        # The file is open, and nothing of it read. What it held is overwritten when another takes its place.
        faults.freeze(reader, "_others_may_read")
        file.write([newer])
    finally:
        faults.end()
    reader.join(20)
    assert read[-1] == newer


def test_every_gallery_has_a_key_of_its_own(filled, key, tmp_path):
    Gallery.open(tmp_path / "other.db").close()
    assert (tmp_path / "other.key").read_bytes() != key.read_bytes()


def test_a_renamed_key_is_missed_and_nothing_is_lost_when_it_is_back(filled, key):
    key.rename(key.with_suffix(".old"))
    refused(filled, str(key), "is missing", "put it back")
    key.with_suffix(".old").rename(key)
    with Gallery.open(filled) as gallery:
        assert gallery.snapshot(PACK).names == ("Ada",)


def test_the_key_of_another_gallery_does_not_open_this_one(filled, key, tmp_path):
    wanted = key.read_text().split()[0]
    Gallery.open(tmp_path / "other.db").close()
    shutil.copy(tmp_path / "other.key", key)
    refused(filled, str(key), str(filled), f"sealed with key {wanted}", "put that one back")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(filled, key, mode):
    key.chmod(mode)
    refused(filled, str(key), "others may read", "chmod 600")


def test_any_changed_digit_of_a_key_is_noticed(filled, key):
    good = key.read_bytes()
    for place in range(0, len(good), 3):
        key.write_bytes(
            good[:place] + (b"0" if good[place : place + 1] != b"0" else b"1") + good[place + 1 :]
        )
        refused(filled, str(key), "a damaged one" if place < len(good) - 1 else "gallery.key")


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"key\n", b"\xff\xfe", b"0" * 5000, b"00 00\n", b"a b\nc d\ne f\n"], ids=repr
)
def test_a_file_that_holds_no_key_is_refused(filled, key, text):
    key.write_bytes(text)
    refused(filled, str(key), "holds no key")


def test_a_folder_in_the_place_of_the_key_is_named(filled, key):
    key.unlink()
    key.mkdir()
    with pytest.raises(GalleryError, match=r"gallery\.key: Is a directory"):
        Gallery.open(filled)


def test_a_key_can_be_kept_elsewhere(path, taken, tmp_path):
    elsewhere = tmp_path / "safe" / "my.key"
    with Gallery.open(path, key=elsewhere) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
    assert elsewhere.exists()
    assert not (path.parent / "gallery.key").exists()
    refused(path, "gallery.key", "is missing")
    with Gallery.open(path, key=elsewhere, readonly=True) as gallery:
        assert gallery.snapshot(PACK).names == ("Ada",)


def test_a_key_that_is_there_before_the_gallery_is_used(path, tmp_path):
    mine = tmp_path / "my.key"
    key = KeyFile(mine).make()
    with Gallery.open(path, key=mine) as gallery:
        assert gallery._vault.key() == key


# Given by systemd


@pytest.fixture
def credentials(tmp_path, monkeypatch):
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def test_a_credential_goes_before_the_file_and_no_file_is_made(path, taken, key, credentials):
    given = new_key()
    (credentials / CREDENTIAL).write_text(f"{given.id} {given.secret.hex()}\n")
    (credentials / CREDENTIAL).chmod(0o440)  # as systemd shows one that an access list lets a service read
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
        assert gallery._vault.key() == given
        assert not key.exists()
        with pytest.raises(GalleryError, match=r"given by systemd.*docs/gallery.md"):
            gallery.rotate_key()


def test_a_key_can_be_made_with_a_shell(filled, credentials, path, tmp_path):
    made = subprocess.run(
        ["sh", "-c", "head -c 32 /dev/urandom | base64"], capture_output=True, check=True
    ).stdout  # as systemd/drop-ins/gallery-key.conf says
    (credentials / CREDENTIAL).write_bytes(made)
    with Gallery.open(tmp_path / "new" / "gallery.db") as gallery:
        assert gallery._vault.key().secret == base64.b64decode(made)
    assert not (tmp_path / "new" / "gallery.key").exists()
    for bad in (made[:-5], made[1:], b"!" + made):
        (credentials / CREDENTIAL).write_bytes(bad)
        refused(tmp_path / "new" / "gallery.db", CREDENTIAL, "holds no key")


def test_the_file_can_become_the_credential(filled, key, credentials):
    key.rename(credentials / CREDENTIAL)
    with Gallery.open(filled) as gallery:
        assert gallery.snapshot(PACK).names == ("Ada",)


def test_a_wrong_credential_does_not_fall_back_to_the_file(filled, credentials):
    other = new_key()
    (credentials / CREDENTIAL).write_text(f"{other.id} {other.secret.hex()}\n")
    refused(filled, CREDENTIAL, "put that one back")


def test_without_a_credential_the_file_counts(filled, credentials):
    with Gallery.open(filled) as gallery:
        assert gallery.snapshot(PACK).names == ("Ada",)


# The file


def test_a_key_is_never_made_over_another(key, path):
    path.parent.mkdir()
    first = KeyFile(key).make()
    with pytest.raises(GalleryError, match="File exists"):
        KeyFile(key).make()
    assert KeyFile(key).load() == (first,)
    assert [file.name for file in path.parent.iterdir()] == ["gallery.key"]


def test_keys_are_replaced_as_a_whole(key, path):
    path.parent.mkdir()
    first, second = KeyFile(key).make(), new_key()
    KeyFile(key).write([first, second])
    assert KeyFile(key).load() == (first, second)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    (path.parent / "gallery.key.new").write_text("what a power cut has left")
    KeyFile(key).write([second])
    assert KeyFile(key).load() == (second,)
    assert [file.name for file in path.parent.iterdir()] == ["gallery.key"]


def test_a_key_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GalleryError, match="this key and its folder must belong"):
        KeyFile(tmp_path / "file" / "gallery.key").make()


def test_an_id_says_nothing_but_which_key_it_is():
    keys = [Key(bytes([number]) * 32) for number in range(10)]
    assert len({key.id for key in keys}) == 10
    assert all(len(key.id) == 16 and key.id not in key.secret.hex() for key in keys)
    assert "secret" not in repr(keys[0])
