"""The tables of the gallery, and how those of an older version become those of this one.

A migration runs in one transaction, in which no other process writes.
"""

from typing import Any

from agent.gallery.book import Book, Kept
from agent.gallery.file import APPLICATION_ID, File, damaged
from agent.gallery.keys import Key
from agent.gallery.types import GalleryError, Sample
from agent.gallery.vectors import from_bytes
from agent.perception.types import Pose, Quality

VERSION = 2
"""Of the schema; a file's is its ``user_version``. 1, the first, kept embeddings as they are."""

_TABLES = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    """CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        uid BLOB NOT NULL UNIQUE CHECK (typeof(uid) = 'blob'),
        name TEXT NOT NULL UNIQUE CHECK (typeof(name) = 'text'),
        created TEXT NOT NULL,
        stamp BLOB NOT NULL
    )""",
    """CREATE TABLE samples (
        id INTEGER PRIMARY KEY,
        person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        sealed BLOB NOT NULL CHECK (typeof(sealed) = 'blob'),  -- inside: float32, little endian
        pack TEXT NOT NULL,
        size REAL NOT NULL,
        sharpness REAL NOT NULL,
        brightness REAL NOT NULL,
        contrast REAL NOT NULL,
        yaw REAL NOT NULL,
        pitch REAL NOT NULL,
        roll REAL NOT NULL,
        created TEXT NOT NULL,
        source TEXT  -- path of the image; NULL from a camera
    )""",
    "CREATE INDEX samples_person ON samples (person_id)",
    """CREATE TABLE anchors (
        id INTEGER PRIMARY KEY,
        person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        sealed BLOB NOT NULL CHECK (typeof(sealed) = 'blob'),
        pack TEXT NOT NULL,
        created TEXT NOT NULL
    )""",
    "CREATE INDEX anchors_person ON anchors (person_id)",
    """CREATE TABLE calibrations (
        pack TEXT PRIMARY KEY,
        threshold REAL NOT NULL,
        far_target REAL NOT NULL,
        far REAL NOT NULL,
        tar REAL NOT NULL,
        tar_low REAL NOT NULL,
        tar_high REAL NOT NULL,
        pairs TEXT NOT NULL,
        created TEXT NOT NULL,
        steps TEXT NOT NULL,  -- JSON: [[people, threshold], …]
        stamp BLOB NOT NULL
    )""",
    "CREATE TABLE vault (id INTEGER PRIMARY KEY CHECK (id = 1), key TEXT NOT NULL, stamp BLOB NOT NULL)",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        action TEXT NOT NULL,
        person TEXT,  -- uid; never a name
        count INTEGER
    )""",
    """CREATE TABLE backups (
        id INTEGER PRIMARY KEY,
        uid BLOB NOT NULL UNIQUE,
        path TEXT NOT NULL,
        created TEXT NOT NULL,
        whole INTEGER NOT NULL  -- 0 until the file is written
    )""",
    """CREATE TABLE backed_up (  -- who is in which backup, by uid: also people who have been deleted since
        backup_id INTEGER NOT NULL REFERENCES backups (id) ON DELETE CASCADE,
        uid BLOB NOT NULL,
        PRIMARY KEY (backup_id, uid)
    )""",
    "CREATE TABLE IF NOT EXISTS erasing (id INTEGER PRIMARY KEY)",
    f"PRAGMA user_version = {VERSION}",
)


def version(file: File) -> int:
    """The version of a file's schema; 0 for one that is empty.

    Raises:
        GalleryError: it is newer than this program, or there are tables of no version.
    """
    found = int(file.value("PRAGMA user_version"))
    if found > VERSION:
        raise GalleryError(
            f"{file.path} was made by a newer version (its schema is {found}, this program knows {VERSION}); update "
            "cabinsense"
        )
    if not found and file.db.table_names():
        raise damaged(file.path, "its version is lost")
    return found


def migrate(file: File, key: Key) -> None:
    """Make the tables, and seal what an older version has kept; all inside a transaction.

    ``file.erase`` must follow, so that no embedding is left as it was.

    Raises:
        GalleryError: what is there cannot be read.
    """
    people: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    if version(file) == 1:
        people = file.rows("SELECT id, name, created FROM people ORDER BY id")
        samples = file.rows("SELECT * FROM samples ORDER BY id")
        for table in ("samples", "people"):
            file.execute(f"DROP TABLE {table}")
    for statement in _TABLES:
        file.execute(statement)
    book = Book(file, key)
    for person in people:
        entry = book.add_person(person["name"], created=person["created"])
        for row in samples:
            if row["person_id"] == person["id"]:
                book.add_sample(entry, _plain(file, person["name"], row))
        book.stamp_person(entry.id)
    book.stamp()
    if people:
        file.erase_later()


def _plain(file: File, name: str, row: dict[str, Any]) -> Kept:
    """A sample of version 1."""
    try:
        embedding = from_bytes(row["embedding"])
    except ValueError as error:
        raise damaged(file.path, f"a sample of {name}: {error}") from error
    pose = Pose(row["yaw"], row["pitch"], row["roll"])
    quality = Quality(row["size"], row["sharpness"], row["brightness"], row["contrast"], pose)
    return Kept(Sample(embedding, quality), row["pack"], row["created"])
