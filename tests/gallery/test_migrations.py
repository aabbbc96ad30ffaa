"""A gallery of the first version, which kept embeddings as they are, becomes one that seals them; nobody is lost."""

import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing

import pytest

from agent.gallery.store import Gallery
from agent.gallery.types import GalleryError

PACK = "a" * 64
FORK = multiprocessing.get_context("fork")

# As version 1 wrote it.
VERSION_1 = """
PRAGMA journal_mode = WAL;
PRAGMA application_id = 1128418899;
CREATE TABLE people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (typeof(name) = 'text'),
    created TEXT NOT NULL
);
CREATE TABLE samples (
    id INTEGER PRIMARY KEY,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    embedding BLOB NOT NULL CHECK (typeof(embedding) = 'blob'),
    pack TEXT NOT NULL,
    size REAL NOT NULL,
    sharpness REAL NOT NULL,
    brightness REAL NOT NULL,
    contrast REAL NOT NULL,
    yaw REAL NOT NULL,
    pitch REAL NOT NULL,
    roll REAL NOT NULL,
    created TEXT NOT NULL
);
CREATE INDEX samples_person ON samples (person_id);
CREATE TABLE erasing (id INTEGER PRIMARY KEY);
PRAGMA user_version = 1;
INSERT INTO people VALUES (1, 'Ada', '2025-01-01T00:00:00Z'), (3, 'Zoë', '2025-02-01T00:00:00Z');
"""


@pytest.fixture
def older(path, taken):
    """A gallery of version 1, and what was put into it."""
    stored = {1: taken(1, 3), 3: taken(2, 2)}
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(VERSION_1)
        for person, samples in stored.items():
            for number, sample in enumerate(samples):
                row = (
                    person,
                    sample.embedding.tobytes(),
                    PACK,
                    40.0,
                    100.0 + number,
                    120.0,
                    50.0,
                    1.0,
                    2.0,
                    3.0,
                )
                raw.execute(
                    "INSERT INTO samples VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '2025-03-01T00:00:00Z')",
                    row,
                )
        raw.commit()
    return [sample.embedding.tobytes() for samples in stored.values() for sample in samples]


def plain(path, embeddings) -> bool:
    data = [file.read_bytes() for file in path.parent.iterdir()]
    return any(
        raw[at : at + 8] in each for raw in embeddings for at in range(0, len(raw), 8) for each in data
    )


def is_whole(gallery: Gallery) -> bool:
    people = [(person.name, person.created, person.samples) for person in gallery.people()]
    return people == [("Ada", "2025-01-01T00:00:00Z", 3), ("Zoë", "2025-02-01T00:00:00Z", 2)]


def test_everybody_is_sealed_and_nothing_plain_is_left(path, older):
    assert plain(path, older), "the search itself works"
    with Gallery.open(path) as gallery:
        assert is_whole(gallery)
        assert [sample.sharpness for sample in gallery.samples("Ada")] == [100.0, 101.0, 102.0]
        assert {sample.created for sample in gallery.samples("Ada")} == {"2025-03-01T00:00:00Z"}
        assert gallery.snapshot(PACK).names == ("Ada", "Zoë")
        assert not plain(path, older)
    assert not plain(path, older)


def test_a_reader_that_holds_up_the_erasure_is_told_and_it_is_finished_later(path, older, caplog):
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM samples").fetchone() == (5,)
        with Gallery.open(path) as gallery:
            assert is_whole(gallery)
    assert "being read by another process" in caplog.text
    Gallery.open(path).close()
    assert not plain(path, older)


def test_who_only_reads_is_told_to_bring_it_up_to_date(path, older):
    before = path.read_bytes()
    with pytest.raises(GalleryError, match=r"older version.*cabinsense run"):
        Gallery.open(path, readonly=True)
    assert path.read_bytes() == before


def test_a_damaged_sample_is_named_and_nothing_is_changed(path, older, change):
    change("UPDATE samples SET embedding = zeroblob(512) WHERE person_id = 3")
    for _ in range(2):
        with pytest.raises(GalleryError, match="a sample of Zoë"):
            Gallery.open(path)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)
        assert raw.execute("SELECT count(*) FROM samples").fetchone() == (5,)


def test_a_power_cut_while_it_is_brought_up_to_date_loses_nobody(path, older):
    good = path.read_bytes()
    moment, halves = 1, 0
    while True:
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(good)
        process = FORK.Process(target=migrate_until, args=[path, moment])
        process.start()
        process.join(60)
        halves += path.with_suffix(".key").exists()
        with Gallery.open(path) as gallery:
            assert is_whole(gallery)
            assert gallery.snapshot(PACK).names == ("Ada", "Zoë")
        assert not plain(path, older)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        moment += 3
    assert halves > 5


def migrate_until(path, moment: int) -> None:
    steps = iter(range(1, 1_000_000))

    def step(*_: object) -> None:
        if next(steps) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def watched(*arguments, **more):
        connection = connect(*arguments, **more)
        connection.set_trace_callback(step)
        return connection

    sqlite3.connect = watched  # in this process alone, which ends here
    Gallery.open(path).close()
