"""What owners rely on: nobody reads an embedding from the file, and nobody changes who is in it unnoticed."""

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gallery.sealing import Sealer, TamperedError
from agent.gallery.store import Gallery
from agent.gallery.types import Calibration, GalleryError, Sample

PACK = "a" * 64
PASSPHRASE = "correct horse battery"  # noqa: S105
KEY = bytes(range(32))


def patterns(sample: Sample) -> Iterator[bytes]:
    """Eight bytes each that would give an embedding away: its numbers in any usual form."""
    whole = [sample.embedding.astype(kind) for kind in ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2")]
    scaled = (np.rint(sample.embedding * scale) for scale in (127, 128, 255, 256))
    whole += [np.clip(numbers, -128, 127).astype(np.int8) for numbers in scaled]
    for raw in map(np.ndarray.tobytes, whole):
        yield from (raw[at : at + 8] for at in range(0, len(raw), 8))


def windows(data: bytes) -> set[bytes]:
    return {data[at : at + 8] for at in range(len(data) - 7)}


def test_no_number_of_an_embedding_can_be_found_in_file_log_or_backup(path, taken):
    stored = {f"Person {seed}": taken(seed, 5) for seed in range(10)}
    strangers = taken(99, 10)
    with Gallery.open(path) as gallery:
        for number, (name, samples) in enumerate(stored.items()):
            gallery.enrol(name, samples, PACK, 50)
            gallery.reject(name, strangers[number].embedding, PACK)
        gallery.export(path.parent / "backup", PASSPHRASE)
        files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    files["closed"] = path.read_bytes()
    assert {"gallery.db", "gallery.db-wal", "backup", "closed"} <= set(files)
    needles = {each for samples in (*stored.values(), strangers) for one in samples for each in patterns(one)}
    for name, data in files.items():
        assert not needles & windows(data), name
    plain = b"".join(each.embedding.tobytes() for each in stored["Person 3"])
    assert len(needles & windows(b"\1" + plain)) >= 5 * 64, "the search itself works"


def test_a_flipped_bit_is_noticed_or_does_no_harm(path, taken, content, gallery):
    for seed, name in enumerate(["Ada", "Bob", "Zoë"]):
        gallery.enrol(name, taken(seed, 3), PACK, 50)
        gallery.reject(name, taken(seed + 50, 1)[0].embedding, PACK)
    gallery.store_calibration(Calibration(PACK, 0.83, 1e-3, 9e-4, 0.97, (0.96, 0.98), "LFW"))
    before = content(gallery, PACK)
    gallery.close()
    good = path.read_bytes()
    chance = random.Random(11)  # noqa: S311 - the same flips each time
    noticed = harmless = 0
    for _ in range(200):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            with Gallery.open(path) as opened:
                assert content(opened, PACK) == before
        except GalleryError as error:
            noticed += str(path) in str(error)
        else:
            harmless += 1
        for left in ("-wal", "-shm"):
            path.with_name(path.name + left).unlink(missing_ok=True)
    assert noticed + harmless == 200
    assert noticed >= 25  # most of a small file is empty


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE people SET name = 'Eve' WHERE name = 'Ada'",
        "UPDATE people SET created = '2001-01-01T00:00:00Z' WHERE name = 'Ada'",
        "UPDATE people SET uid = randomblob(16) WHERE name = 'Ada'",
        "UPDATE people SET stamp = randomblob(28) WHERE name = 'Ada'",
        "UPDATE people SET stamp = (SELECT stamp FROM people WHERE name = 'Bob') WHERE name = 'Ada'",
        "UPDATE people SET stamp = 'x' WHERE name = 'Ada'",
        "DELETE FROM samples WHERE id = 2",
        "DELETE FROM anchors",
        "UPDATE samples SET id = id + 100 WHERE id = 1",
        "INSERT INTO samples SELECT 77, person_id, sealed, pack, size, sharpness, brightness, contrast, yaw, pitch, "
        "roll, created, source FROM samples WHERE id = 1",
        "UPDATE samples SET sealed = randomblob(length(sealed)) WHERE id = 1",
        "UPDATE samples SET sealed = x'' WHERE id = 1",
        "UPDATE samples SET sealed = (SELECT sealed FROM samples WHERE id = 2) WHERE id = 1",
        "UPDATE samples SET sealed = (SELECT sealed FROM samples WHERE id = 4) WHERE id = 1",
        "UPDATE samples SET pack = 'b' WHERE id = 1",
        "UPDATE samples SET source = '/elsewhere' WHERE id = 1",
        "UPDATE samples SET source = NULL WHERE id = 1",
        *(
            f"UPDATE samples SET {figure} = {figure} + 1 WHERE id = 1"  # noqa: S608
            for figure in ("size", "sharpness", "brightness", "contrast", "yaw", "pitch", "roll")
        ),
        "UPDATE samples SET created = '2001-01-01T00:00:00Z' WHERE id = 1",
        "UPDATE samples SET size = 'large' WHERE id = 1",
        "UPDATE anchors SET pack = 'b'",
    ],
)
def test_whatever_is_changed_of_a_person_names_them_and_how_to_get_them_back(path, taken, change, harm):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
        gallery.enrol("Bob", taken(2), PACK, 50)
        gallery.reject("Ada", taken(3, 1)[0].embedding, PACK)
    change("PRAGMA foreign_keys = OFF", harm)
    name = "Eve" if "Eve" in harm else "Ada"
    with Gallery.open(path) as gallery:
        with pytest.raises(GalleryError, match=rf"{name}.*import --replace.*delete. forgets them") as told:
            gallery.snapshot(PACK)
        assert str(path) in str(told.value)
        gallery.delete(name)
        assert gallery.snapshot(PACK).names == ("Bob",)


@pytest.mark.parametrize(
    "harm", ["UPDATE people SET stamp = x'' WHERE name = 'Ada'", "DELETE FROM samples WHERE id = 2"]
)
def test_a_backup_puts_back_whoever_is_damaged(path, taken, change, content, harm):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
        gallery.enrol("Bob", taken(2), PACK, 50)
        before = content(gallery, PACK)
        gallery.export(path.parent / "backup", PASSPHRASE)
    change(harm)
    with Gallery.open(path) as gallery:
        with pytest.raises(GalleryError, match="Ada"):
            gallery.people()
        gallery.restore(path.parent / "backup", PASSPHRASE, 50, replace=True)
        assert content(gallery, PACK) == before


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        ("DELETE FROM people WHERE name = 'Ada'", "people or thresholds were added or removed"),
        ("DELETE FROM calibrations", "people or thresholds were added or removed"),
        ("UPDATE calibrations SET threshold = 0.1", "the threshold for pack a"),
        ("UPDATE calibrations SET pairs = 'mine'", "the threshold for pack a"),
        ("UPDATE vault SET stamp = randomblob(28)", "people or thresholds"),
        ("UPDATE vault SET key = '0123456789abcdef'", "sealed with key 0123456789abcdef"),
        ("UPDATE calibrations SET steps = '[[1, 0.1]]'", "calibrate threshold"),
        ("DELETE FROM vault", "which key"),
        ("PRAGMA user_version = 1", "gallery.db"),
        ("PRAGMA user_version = 0", "its version is lost"),
    ],
)
def test_whatever_is_changed_of_the_whole_is_noticed(path, taken, change, harm, word):
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
        gallery.store_calibration(Calibration(PACK, 0.83, 1e-3, 9e-4, 0.97, (0.96, 0.98), "LFW"))
    change("PRAGMA foreign_keys = ON", harm)
    with pytest.raises(GalleryError, match=word), Gallery.open(path) as gallery:
        gallery.snapshot(PACK)
    # Whether or not somebody else can still be stored beside it: that heals nothing.
    with suppress(GalleryError), Gallery.open(path) as gallery:
        gallery.enrol("Bob", taken(2), PACK, 50)
    with pytest.raises(GalleryError, match=word), Gallery.open(path) as gallery:
        gallery.snapshot(PACK)


@pytest.mark.parametrize(
    "harm", ["UPDATE calibrations SET stamp = zeroblob(32)", "UPDATE calibrations SET threshold = 0.1"]
)
def test_a_threshold_that_was_changed_can_be_measured_again(path, taken, change, harm):
    measured = Calibration(PACK, 0.83, 1e-3, 9e-4, 0.97, (0.96, 0.98), "LFW")
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(1), PACK, 50)
        gallery.store_calibration(measured)
    change("PRAGMA foreign_keys = ON", harm)
    with Gallery.open(path) as gallery:
        with pytest.raises(GalleryError, match="calibrate threshold"):
            gallery.snapshot(PACK)
        gallery.store_calibration(measured)
        assert gallery.snapshot(PACK).names == ("Ada",)


def test_somebody_who_was_deleted_cannot_be_put_back_by_copying_their_rows(path, taken, change):
    older = path.parent / "older.db"
    with Gallery.open(path) as gallery:
        gallery.enrol("Bob", taken(2), PACK, 50)
        gallery.enrol("Ada", taken(1), PACK, 50)
    older.write_bytes(path.read_bytes())
    with Gallery.open(path) as gallery:
        gallery.delete("Ada")
    change(
        f"ATTACH '{older}' AS older",
        "INSERT INTO people SELECT * FROM older.people WHERE name = 'Ada'",
        "INSERT INTO samples SELECT * FROM older.samples WHERE person_id = 2",
    )
    with Gallery.open(path) as gallery, pytest.raises(GalleryError, match="added or removed"):
        gallery.snapshot(PACK)


# Seals

facts = st.recursive(
    st.none()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.binary(max_size=64), st.lists(facts, max_size=4))
def test_a_seal_gives_back_what_was_sealed_and_no_two_are_the_same(content, about):
    sealer = Sealer(KEY)
    sealed = sealer.close(content, *about)
    assert sealer.open(sealed, *about) == content
    assert sealer.close(content, *about) != sealed


@given(st.lists(facts, max_size=4), st.lists(facts, max_size=4))
def test_a_seal_opens_only_for_what_it_is_about(about, other):
    sealer = Sealer(KEY)
    stamp = sealer.stamp(*about)
    assert sealer.stamped(stamp, *about)
    assert sealer.stamped(stamp, *other) == (repr(other) == repr(about))


@given(st.binary(max_size=40), st.data())
def test_no_bit_of_a_seal_can_be_changed(content, data):
    sealer = Sealer(KEY)
    sealed = bytearray(sealer.close(content, "sample"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(TamperedError):
        sealer.open(bytes(sealed), "sample")
    with pytest.raises(TamperedError):
        Sealer(bytes(32)).open(sealer.close(content, "sample"), "sample")


@pytest.mark.parametrize("what", [None, "text", 5, b"", b"short", bytes(27)])
def test_what_is_no_seal_does_not_open(what):
    with pytest.raises(TamperedError):
        Sealer(KEY).open(what)


def test_an_open_gallery_shows_its_key_to_nobody(gallery, path):
    secret = gallery._vault.key().secret
    shown = repr(gallery._vault.key()) + repr(gallery._vault.keys) + str(vars(gallery._vault))
    assert secret.hex() not in shown
    assert repr(secret) not in shown
    assert Path(path.parent / "gallery.key").read_text().split()[1] == secret.hex()
