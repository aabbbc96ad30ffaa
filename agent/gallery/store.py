"""The gallery's file: people and their samples in SQLite.

Cars lose power at any moment and people have a right to be forgotten; both decide how SQLite is used here:

- write-ahead log with ``synchronous=FULL``: what ``enrol`` or ``delete`` has returned from survives a power cut, and
  what it has not is absent as a whole;
- ``secure_delete``, then ``VACUUM`` and a truncated log after each deletion: no page keeps a deleted embedding. A row
  in ``erasing`` stands until that is done, so that an interrupted erasure is finished at the next opening;
- temporary tables stay in memory, and the file is readable by its owner alone.

A connection belongs to the thread that opened it.
"""

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from sqlite_utils import Database

from agent.gallery.templates import templates
from agent.gallery.types import Calibration, GalleryError, Person, Sample, Snapshot, StoredSample, person_name
from agent.perception.types import Float32, Pose, Quality

log = logging.getLogger(__name__)

BUSY_S = 1.0
"""How long to wait for another process that writes; its transactions take milliseconds."""
MOST_ANCHORS = 20
"""Faces marked as not being a person that are kept of each: enough for the few strangers that a car meets again."""
_APPLICATION_ID = 0x43424E53  # "CBNS", in the file's header: tells a gallery from other SQLite databases
_FULL = 128 * 1024  # bytes: with less the log and its index, 32 KiB and more, find no room
_UNIT = 1e-3  # how far the length of an embedding may be from 1

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {_APPLICATION_ID}",
        """CREATE TABLE people (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE CHECK (typeof(name) = 'text'),
            created TEXT NOT NULL
        )""",
        """CREATE TABLE samples (
            id INTEGER PRIMARY KEY,
            person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
            embedding BLOB NOT NULL CHECK (typeof(embedding) = 'blob'),  -- float32, little endian
            pack TEXT NOT NULL,
            size REAL NOT NULL,
            sharpness REAL NOT NULL,
            brightness REAL NOT NULL,
            contrast REAL NOT NULL,
            yaw REAL NOT NULL,
            pitch REAL NOT NULL,
            roll REAL NOT NULL,
            created TEXT NOT NULL
        )""",
        "CREATE INDEX samples_person ON samples (person_id)",
        "CREATE TABLE erasing (id INTEGER PRIMARY KEY)",
    ),
    (
        "ALTER TABLE samples ADD COLUMN source TEXT",
        """CREATE TABLE anchors (
            id INTEGER PRIMARY KEY,
            person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
            embedding BLOB NOT NULL CHECK (typeof(embedding) = 'blob'),
            pack TEXT NOT NULL
        )""",
        """CREATE TABLE calibrations (
            pack TEXT PRIMARY KEY,
            threshold REAL NOT NULL,
            far_target REAL NOT NULL,
            far REAL NOT NULL,
            tar REAL NOT NULL,
            tar_low REAL NOT NULL,
            tar_high REAL NOT NULL,
            pairs TEXT NOT NULL,
            created TEXT NOT NULL
        )""",
    ),
)
"""Statements that take the schema from each version to the next; the version is the file's ``user_version``."""

# SQLite's messages have not changed in decades; its error codes reach Python only from 3.11 on.
_REMEDIES = {
    "is locked": "is in use by another process that does not let go of it; try again, or end that process",
    "not a database": "is not an SQLite database; name another file under gallery.path, or move this one away",
    "malformed": "is damaged ({error}); move it away or restore a backup",
    "is full": "cannot grow: the disk is full; free some space and try again",
    "readonly database": "cannot be written; it and its folder must belong to the user who runs this",
    "unable to open": "cannot be opened; it and its folder must belong to the user who runs this",
}


class Gallery:
    """An open gallery. All methods raise GalleryError with the remedy when SQLite fails them."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use ``open`` instead: it checks the file first."""
        self._path = path
        self._db = Database(connection, execute_plugins=False)

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False) -> "Gallery":
        """Open the gallery at ``path``; unless ``readonly``, make it and its folder where they do not exist.

        Raises:
            GalleryError: the file is missing (``readonly``), locked, damaged, unreadable, no gallery, or was made by
                a newer version. It is left as it is.
        """
        if not readonly:
            _make(path)
        elif not path.is_file():
            raise GalleryError(f"{path}: there is no gallery here; `cabinsense record NAME` makes one")
        with _told(path):
            gallery = cls(path, _connect(path, readonly))
        try:
            gallery._check(readonly)
            if not readonly:
                gallery._prepare()
        except BaseException:
            gallery.close()
            raise
        return gallery

    def close(self) -> None:
        """Close the file. Everything is on disk already."""
        self._db.close()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def people(self) -> list[Person]:
        """Everybody, by name."""
        rows = self._rows(
            "SELECT name, people.created AS created, count(*) AS samples, group_concat(DISTINCT pack) AS packs "
            "FROM people JOIN samples ON person_id = people.id GROUP BY people.id ORDER BY name"
        )
        return [Person(**{**row, "packs": tuple(row["packs"].split(","))}) for row in rows]

    def person(self, name: str) -> Person:
        """The person with this name.

        Raises:
            GalleryError: there is none.
        """
        name = person_name(name)
        for person in self.people():
            if person.name == name:
                return person
        raise _nobody(name)

    def samples(self, name: str) -> list[StoredSample]:
        """What is known about each sample of a person, oldest first.

        Raises:
            GalleryError: nobody has this name.
        """
        name = person_name(name)
        rows = self._rows(
            "SELECT samples.created AS created, pack, size, sharpness, brightness, contrast, yaw, pitch, roll, source "
            "FROM samples JOIN people ON people.id = person_id WHERE name = ? ORDER BY samples.id",
            name,
        )
        if not rows:
            raise _nobody(name)
        return [StoredSample(**row) for row in rows]

    def check_new(self, name: str, *, add: bool) -> str:
        """The name as it is stored, after a check that ``enrol`` would take it.

        Raises:
            GalleryError: the name cannot be used, is taken (or, with ``add``, is nobody's).
        """
        name = person_name(name)
        known = bool(self._rows("SELECT 1 FROM people WHERE name = ?", name))
        if known and not add:
            raise GalleryError(
                f"{name} is enrolled already; --add gives them more samples, `cabinsense gallery delete` forgets them"
            )
        if add and not known:
            raise _nobody(name)
        return name

    def enrol(
        self, name: str, samples: Sequence[Sample], pack: str, max_samples: int, *, add: bool = False
    ) -> int:
        """Store the samples of a person, all of them or none.

        Args:
            name: of the person; see ``person_name``.
            samples: at least one; all of one length.
            pack: digest of the pack that made them.
            max_samples: how many to keep of the person; the oldest go first.
            add: the person is in the gallery already and gets more samples.

        Returns:
            How many samples the person has now.

        Raises:
            GalleryError: as ``check_new``, or the file cannot be written.
            ValueError: there is no sample, or an embedding is not of length 1 or does not fit those of its pack.
        """
        embeddings = np.stack([sample.embedding for sample in samples]) if samples else np.zeros((0, 0))
        if not embeddings.size or not (abs(np.linalg.norm(embeddings, axis=1) - 1) < _UNIT).all():
            raise ValueError("samples must be vectors of length 1, and at least one")
        with self._writing():
            name = self.check_new(name, add=add)
            before = self._rows("SELECT length(embedding) AS size FROM samples WHERE pack = ? LIMIT 1", pack)
            if before and before[0]["size"] != 4 * embeddings.shape[1]:
                raise ValueError(f"pack {pack} has embeddings of {before[0]['size'] // 4} numbers")
            now = _now()
            people, stored = self._db.table("people"), self._db.table("samples")
            if not add:
                people.insert({"name": name, "created": now})
            person = self._rows("SELECT id FROM people WHERE name = ?", name)[0]["id"]
            stored.insert_all(_row(person, sample, pack, now) for sample in samples)
            kept = "SELECT id FROM samples WHERE person_id = :person ORDER BY id DESC LIMIT :most"
            stored.delete_where(
                f"person_id = :person AND id NOT IN ({kept})", {"person": person, "most": max_samples}
            )
            return stored.count_where("person_id = ?", [person])

    def delete(self, name: str) -> None:
        """Forget a person: nothing of name or samples is left in the file or beside it.

        Raises:
            GalleryError: nobody has this name, or the file cannot be written. If the person is deleted but traces
                could not be erased yet, because another program reads the file, the message says so.
        """
        name = person_name(name)
        with self._writing():
            if not self._rows("SELECT 1 FROM people WHERE name = ?", name):
                raise _nobody(name)
            self._db.table("people").delete_where("name = ?", [name])
            self._db.table("erasing").insert({"id": None})
        try:
            self._erase()
        except GalleryError as error:
            raise GalleryError(f"{name} is deleted, but traces are left on the disk: {error}") from error

    def rename(self, old: str, new: str) -> str:
        """Give a person another name; returns it as it is stored.

        Raises:
            GalleryError: nobody is called ``old``, ``new`` cannot be used or is taken, or the file cannot be written.
        """
        old, new = person_name(old), person_name(new)
        with self._writing():
            if not self._rows("SELECT 1 FROM people WHERE name = ?", old):
                raise _nobody(old)
            if new != old and self._rows("SELECT 1 FROM people WHERE name = ?", new):
                raise GalleryError(f"{new} is enrolled already; choose another name for {old}")
            self._db.execute("UPDATE people SET name = ? WHERE name = ?", (new, old))
        return new

    def next_driver_name(self) -> str:
        """A name for somebody who has none yet: ``Driver N`` with the lowest N that is free."""
        taken = {row["name"] for row in self._rows("SELECT name FROM people WHERE name LIKE 'Driver %'")}
        return next(name for number in count(1) if (name := f"Driver {number}") not in taken)

    def reject(self, name: str, embedding: Float32, pack: str) -> int:
        """Store a face that was taken for a person and is not theirs; the oldest make room for the newest.

        Args:
            name: of the person that it is not.
            embedding: float32 [dim] of length 1.
            pack: digest of the pack that made it.

        Returns:
            How many such faces are kept of the person now, at most ``MOST_ANCHORS``.

        Raises:
            GalleryError: nobody has this name, or the file cannot be written.
            ValueError: the embedding is not of length 1.
        """
        if not abs(np.linalg.norm(embedding) - 1) < _UNIT:
            raise ValueError("an embedding must be of length 1")
        name = person_name(name)
        with self._writing():
            rows = self._rows("SELECT id FROM people WHERE name = ?", name)
            if not rows:
                raise _nobody(name)
            person, anchors = rows[0]["id"], self._db.table("anchors")
            anchors.insert(
                {"person_id": person, "embedding": embedding.astype("<f4").tobytes(), "pack": pack}
            )
            kept = "SELECT id FROM anchors WHERE person_id = :person ORDER BY id DESC LIMIT :most"
            anchors.delete_where(
                f"person_id = :person AND id NOT IN ({kept})", {"person": person, "most": MOST_ANCHORS}
            )
            return int(anchors.count_where("person_id = ?", [person]))

    def store_calibration(self, calibration: Calibration) -> None:
        """Keep a measured threshold; it takes the place of the one for the same pack.

        Raises:
            GalleryError: the file cannot be written.
        """
        low, high = calibration.tar_interval
        row = asdict(replace(calibration, created=_now())) | {"tar_low": low, "tar_high": high}
        del row["tar_interval"]
        with self._writing():
            self._db.table("calibrations").insert(row, replace=True)

    def calibration(self, pack: str) -> Calibration | None:
        """The threshold that was measured for the pack with this digest; None if none was."""
        for row in self._rows("SELECT * FROM calibrations WHERE pack = ?", pack):
            interval = row.pop("tar_low"), row.pop("tar_high")
            return Calibration(**row, tar_interval=interval)
        return None

    def snapshot(self, pack: str) -> Snapshot:
        """The gallery for matching embeddings of the pack with digest ``pack``.

        Raises:
            GalleryError: a stored embedding is damaged.
        """
        of: dict[str, list[Sample]] = {}
        skipped = 0
        for row in self._rows(
            "SELECT name, pack, embedding, size, sharpness, brightness, contrast, yaw, pitch, roll, source "
            "FROM people JOIN samples ON person_id = people.id ORDER BY people.id, samples.id"
        ):
            if row["pack"] == pack:
                sample = Sample(self._embedding(row["embedding"], row["name"]), _quality(row), row["source"])
                of.setdefault(row["name"], []).append(sample)
            else:
                skipped += 1
        if len({sample.embedding.size for samples in of.values() for sample in samples}) > 1:
            raise _damaged(self._path, f"the samples of pack {pack} differ in length")
        if not of:
            return Snapshot(skipped=skipped, calibrated=self.calibration(pack))
        rows = [templates(samples) for samples in of.values()]
        matrix = np.concatenate(rows)
        matrix.flags.writeable = False
        owners = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        index = {name: number for number, name in enumerate(of)}
        pushed = [
            (index[row["name"]], self._embedding(row["embedding"], row["name"]))
            for row in self._rows(
                "SELECT name, embedding FROM people JOIN anchors ON person_id = people.id WHERE pack = ? "
                "ORDER BY people.id, anchors.id",
                pack,
            )
            if row["name"] in index
        ]
        anchors = np.array([vector for _, vector in pushed], np.float32).reshape(-1, matrix.shape[1])
        anchors.flags.writeable = False
        return Snapshot(
            tuple(of),
            matrix,
            owners,
            skipped,
            anchors,
            np.array([owner for owner, _ in pushed], np.intp),
            self.calibration(pack),
        )

    def _embedding(self, blob: bytes, name: str) -> Float32:
        if len(blob) % 4 == 0:
            embedding = np.frombuffer(blob, "<f4").astype(np.float32)
            if abs(np.linalg.norm(embedding.astype(np.float64)) - 1) < _UNIT:
                return embedding
        raise _damaged(self._path, f"a sample of {name} is not a vector of length 1")

    def _check(self, readonly: bool) -> None:
        """Refuse a file that is damaged or not ours to use."""
        found = str(self._value("PRAGMA quick_check(1)"))
        if found != "ok":
            raise _damaged(self._path, f"quick_check: {found.splitlines()[-1]}")
        version, identity = self._value("PRAGMA user_version"), self._value("PRAGMA application_id")
        if identity != _APPLICATION_ID and (identity or version or self._db.table_names()):
            raise GalleryError(
                f"{self._path} is an SQLite database, but not a gallery; name another file under gallery.path"
            )
        if version > len(_MIGRATIONS):
            raise GalleryError(
                f"{self._path} was made by a newer version (its schema is {version}, this program knows "
                f"{len(_MIGRATIONS)}); update cabinsense"
            )
        if readonly and version < len(_MIGRATIONS):
            raise GalleryError(
                f"{self._path} was made by an older version, or is empty; `cabinsense run` brings it up to date"
            )

    def _prepare(self) -> None:
        """Bring the file up to date, and finish what a power cut interrupted."""
        mode = self._value("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise GalleryError(
                f"{self._path}: this file system cannot hold a write-ahead log; name a file on a local disk under "
                "gallery.path"
            )
        with self._writing():
            version = self._value("PRAGMA user_version")
            for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in statements:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")
        try:
            self._erase()
        except GalleryError as error:
            log.warning("traces of deleted people are left on the disk: %s", error)

    def _erase(self) -> None:
        """Remove the bytes of deleted people from the file and its log, if any are left."""
        with _told(self._path):
            if not self._db.table("erasing").count:
                return
            self._db.execute("VACUUM")
            blocked = self._value("PRAGMA wal_checkpoint(TRUNCATE)")
            if blocked:
                raise GalleryError(
                    f"{self._path} is being read by another process; they go when that has ended and the gallery is "
                    "opened again"
                )
            self._db.execute("DELETE FROM erasing")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction: all that happens inside, or nothing."""
        with _told(self._path):
            self._db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.conn.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    def _rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        with _told(self._path):
            return list(self._db.query(query, parameters))

    def _value(self, query: str) -> Any:
        with _told(self._path):
            return self._db.execute(query).fetchone()[0]


def _make(path: Path) -> None:
    """See to it that the file exists and that its owner alone may read it.

    An existing file is not opened here: closing it would drop the locks that SQLite holds on it for this process.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            if path.is_dir():
                raise GalleryError(f"{path} is a folder; name a file under gallery.path") from None
            if path.stat().st_size == 0:
                log.warning("%s is empty: a new gallery is made in it", path)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise GalleryError(f"{path} {_REMEDIES['is full']}") from error
        raise GalleryError(
            f"{path}: {error.strerror}; the gallery and its folder must belong to the user who runs this"
        ) from error


def _connect(path: Path, readonly: bool) -> sqlite3.Connection:
    """A connection without implicit transactions."""
    address = path.absolute().as_uri()
    connection = sqlite3.connect(f"{address}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None)
    if readonly:
        # ``mode=ro`` would leave a log behind that it must not remove; so SQLite may write, but not on our behalf.
        connection.execute("PRAGMA query_only = ON")
        log_file = path.with_name(path.name + "-wal")
        if not os.access(path.parent, os.W_OK, effective_ids=True) and not log_file.exists():
            # Nobody writes, and the log that a reader needs cannot be made: read the file as it lies there.
            connection.close()
            return sqlite3.connect(f"{address}?mode=ro&immutable=1", uri=True, isolation_level=None)
        return connection
    for pragma in ("foreign_keys = ON", "secure_delete = ON", "synchronous = FULL", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _row(person: int, sample: Sample, pack: str, now: str) -> dict[str, object]:
    quality = sample.quality
    return {
        "person_id": person,
        "embedding": sample.embedding.astype("<f4").tobytes(),
        "pack": pack,
        "size": quality.size,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "contrast": quality.contrast,
        "yaw": quality.pose.yaw,
        "pitch": quality.pose.pitch,
        "roll": quality.pose.roll,
        "created": now,
        "source": sample.source,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _quality(row: dict[str, Any]) -> Quality:
    pose = Pose(row["yaw"], row["pitch"], row["roll"])
    return Quality(row["size"], row["sharpness"], row["brightness"], row["contrast"], pose)


def _damaged(path: Path, what: str) -> GalleryError:
    return GalleryError(f"{path} is damaged ({what}); move it away or restore a backup")


def _nobody(name: str) -> GalleryError:
    return GalleryError(f"nobody called {name} is in the gallery; `cabinsense gallery list` names everybody")


def _disk_full(folder: Path) -> bool:
    """Whether the disk that holds ``folder`` has no room for a gallery to grow."""
    try:
        disk = os.statvfs(folder)
    except OSError:  # a disk that fails
        return False
    return disk.f_bavail * disk.f_frsize < _FULL or (disk.f_files > 0 and disk.f_favail == 0)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say of SQLite's errors which file they are about, and what helps."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        # SQLite calls it so when its log or the log's index does not fit on the disk, already while it opens the file.
        if "disk I/O error" in text and _disk_full(path.parent):
            raise GalleryError(f"{path} {_REMEDIES['is full']}") from error
        for mark, remedy in _REMEDIES.items():
            if mark in text:
                raise GalleryError(f"{path} {remedy.format(error=text)}") from error
        raise GalleryError(f"{path}: {text}; check the disk") from error
    except UnicodeDecodeError as error:  # text that SQLite has read is no text
        raise _damaged(path, "unreadable text") from error
