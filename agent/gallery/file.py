"""The gallery's file as SQLite knows it: opened with care, written in whole transactions, erased for good.

Cars lose power at any moment and people have a right to be forgotten; both decide how SQLite is used here:

- write-ahead log with ``synchronous=FULL``: what a transaction has returned from survives a power cut, and what it has
  not is absent as a whole;
- ``secure_delete``, then ``VACUUM`` and a truncated log after each deletion: no page keeps what is deleted. A row in
  ``erasing`` stands until that is done, so that an interrupted erasure is finished at the next opening;
- temporary tables stay in memory, and the file is readable by its owner alone.

A connection belongs to the thread that opened it.
"""

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from agent.gallery.types import GalleryError

log = logging.getLogger(__name__)

BUSY_S = 1.0
"""How long to wait for another process that writes; its transactions take milliseconds."""
APPLICATION_ID = 0x43424E53
"""“CBNS”, in the file's header: tells a gallery from other SQLite databases."""
_FULL = 128 * 1024  # bytes: with less the log and its index, 32 KiB and more, find no room

# SQLite's messages have not changed in decades; its error codes reach Python only from 3.11 on.
_REMEDIES = {
    "is locked": "is in use by another process that does not let go of it; try again, or end that process",
    "not a database": "is not an SQLite database; name another file under gallery.path, or move this one away",
    "malformed": "is damaged ({error}); move it away and restore a backup with `cabinsense gallery import`",
    "is full": "cannot grow: the disk is full; free some space and try again",
    "readonly database": "cannot be written; it and its folder must belong to the user who runs this",
    "unable to open": "cannot be opened; it and its folder must belong to the user who runs this",
}


class File:
    """An open SQLite file. All methods raise GalleryError with the remedy when SQLite fails them."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use ``open`` instead: it checks the file first."""
        self.path = path
        self.db = Database(connection, execute_plugins=False)

    @classmethod
    def open(cls, path: Path, *, readonly: bool) -> "File":
        """Open the file at ``path``; unless ``readonly``, make it and its folder where they do not exist.

        Raises:
            GalleryError: the file is missing (``readonly``), locked, damaged, unreadable, or another program's. It is
                left as it is.
        """
        if not readonly:
            _make(path)
        elif not path.is_file():
            raise GalleryError(f"{path}: there is no gallery here; `cabinsense record NAME` makes one")
        with _told(path):
            file = cls(path, _connect(path, readonly))
        try:
            file._check()
        except BaseException:
            file.close()
            raise
        return file

    def close(self) -> None:
        """Close the file. Everything is on disk already."""
        self.db.close()

    def log_ahead(self) -> None:
        """Switch the write-ahead log on.

        Raises:
            GalleryError: the file system cannot hold one.
        """
        if self.value("PRAGMA journal_mode = WAL") != "wal":
            raise GalleryError(
                f"{self.path}: this file system cannot hold a write-ahead log; name a file on a local disk under "
                "gallery.path"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction: all that happens inside, or nothing. No other process writes meanwhile."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within, nothing changes that is read."""
        with self._transaction("BEGIN"):
            yield

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """The rows that a query gives."""
        with _told(self.path):
            return list(self.db.query(query, parameters))

    def value(self, query: str, *parameters: object) -> Any:
        """The first value that a query gives; None if it gives none."""
        with _told(self.path):
            row = self.db.execute(query, parameters).fetchone()
        return None if row is None else row[0]

    def execute(self, statement: str, *parameters: object) -> None:
        """Run a statement."""
        with _told(self.path):
            self.db.execute(statement, parameters)

    def add(self, table: str, **values: object) -> int:
        """Add a row to a table; gives back its number."""
        with _told(self.path):
            return int(self.db.table(table).insert(values).last_rowid or 0)

    def erase_later(self) -> None:
        """Note in this transaction that ``erase`` must follow it."""
        self.add("erasing", id=None)

    def erase(self) -> None:
        """Remove the bytes of what is deleted from the file and its log, if there are any.

        Raises:
            GalleryError: not yet, for another process reads the file.
        """
        with _told(self.path):
            if not self.db.table("erasing").count:
                return
            self.db.execute("VACUUM")
            if self.value("PRAGMA wal_checkpoint(TRUNCATE)"):
                raise GalleryError(
                    f"{self.path} is being read by another process; they go when that has ended and the gallery is "
                    "opened again"
                )
            self.db.execute("DELETE FROM erasing")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with _told(self.path):
            self.db.conn.execute(begin)
            try:
                yield
                self.db.conn.execute("COMMIT")
            except BaseException:
                self.db.rollback()
                raise

    def _check(self) -> None:
        """Refuse a file that is damaged or not ours to use.

        The check is ``integrity_check``, not ``quick_check``: that alone compares indices with their tables, and
        whoever is missing from an index is not found by name.
        """
        found = str(self.value("PRAGMA integrity_check(1)"))
        if found != "ok":
            raise damaged(self.path, f"integrity_check: {found.splitlines()[-1]}")
        version, identity = self.value("PRAGMA user_version"), self.value("PRAGMA application_id")
        if identity != APPLICATION_ID and (identity or version or self.db.table_names()):
            raise GalleryError(
                f"{self.path} is an SQLite database, but not a gallery; name another file under gallery.path"
            )


def damaged(path: Path, what: str) -> GalleryError:
    """The error for a file that nothing can be done about."""
    return GalleryError(
        f"{path} is damaged ({what}); move it away and restore a backup with `cabinsense gallery import`"
    )


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
        raise damaged(path, "unreadable text") from error
