"""The backups that a gallery makes, and remembers, so that who is deleted is deleted there, too.

A backup is written down in the gallery before its file is made, with the uids of the people in it. People who are in a
backup and no longer in the gallery are to be taken out of it; that is so until it is done, over power cuts and while
the backup is out of reach. A new file takes the place of the old one, whose bytes are then overwritten with zeros. On
flash memory that need not reach the cells that held them; they are sealed.
"""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.gallery import archive
from agent.gallery.archive import Archive, ArchivedPerson
from agent.gallery.book import Book, now
from agent.gallery.disk import replace, write_new
from agent.gallery.keys import Key
from agent.gallery.types import Backup, GalleryError
from agent.gallery.vault import Vault
from agent.perception.types import Float32

_IN_GONE = "FROM backed_up WHERE backup_id = ? AND uid NOT IN (SELECT uid FROM people)"
_HEAD = 4096  # bytes at the start of a backup, among which its uid is
_UNFINISHED = """SELECT * FROM backups WHERE NOT whole OR id IN (
    SELECT backup_id FROM backed_up WHERE uid NOT IN (SELECT uid FROM people)
)"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of a restoration.

    Attributes:
        names: who was put into the gallery.
        replaced: who was in it before, under that name or as that person.
        missed: backups that those who are gone for good could not be taken out of, each with the reason.
    """

    names: tuple[str, ...]
    replaced: tuple[str, ...]
    missed: tuple[str, ...]


def export(vault: Vault, path: Path, passphrase: str) -> int:
    """Write a backup to a new file; says how many people are in it.

    Raises:
        GalleryError: the file exists or cannot be written, the passphrase is too short, or the gallery is damaged.
            There is no backup then.
    """
    path = path.resolve()
    if os.path.lexists(path):
        raise GalleryError(f"{path} exists already; name another file")
    with vault.writing() as book:
        packed = archive.make(_everybody(book), tuple(book.calibrations().values()), passphrase, vault.key())
        data = packed.packed()
        vault.file.execute("DELETE FROM backups WHERE path = ?", _text(path))  # it exists no more
        number = vault.file.add("backups", uid=packed.uid, path=_text(path), created=now(), whole=0)
        for person in packed.people:
            vault.file.add("backed_up", backup_id=number, uid=person.uid)
    written = False
    try:
        with vault.writing() as book:
            _check_remembered(vault, number)
            _write(path, data)
            written = True
            vault.file.execute("UPDATE backups SET whole = 1 WHERE id = ?", number)
            book.note("export", count=len(packed.people))
    except BaseException:
        if written:
            path.unlink(missing_ok=True)
        with vault.file.writing():
            vault.file.execute("DELETE FROM backups WHERE id = ?", number)
        raise
    return len(packed.people)


def restore(vault: Vault, path: Path, passphrase: str, most: int, *, replace: bool) -> Restored:
    """Put everybody in a backup into the gallery, or nobody.

    Thresholds come along for packs that the gallery has none for.

    Args:
        vault: the gallery.
        path: of the backup.
        passphrase: that it was made with.
        most: samples to keep of a person, the newest.
        replace: who is in the gallery already, by name or as the same person, is replaced; else that is an error.

    Raises:
        GalleryError: the file cannot be read or opened, is no backup, or somebody in it is in the gallery already.
    """
    try:
        found = archive.open_with_passphrase(_read(path), passphrase)
    except GalleryError as error:
        raise GalleryError(f"{path}: {error}") from error
    names, uids = {person.name for person in found.people}, {person.uid for person in found.people}

    def known() -> dict[int, str]:
        rows = vault.file.rows("SELECT id, uid, name FROM people ORDER BY name")
        return {row["id"]: row["name"] for row in rows if row["name"] in names or row["uid"] in uids}

    with vault.writing(lambda _: known() if replace else ()) as book:
        before = known()
        if before and not replace:
            raise GalleryError(
                f"in the gallery already: {', '.join(before.values())}; nobody was restored; --replace puts those of "
                "the backup in their place"
            )
        for number in before:
            samples = book.count(number)
            if (uid := book.remove(number)) not in uids:
                book.note("delete", uid, samples)
        for person in found.people:
            _put(book, path, person, most)
        for calibration in found.calibrations:
            if calibration.pack not in book.calibrations():
                book.set_calibration(calibration)
    vault.file.erase()
    return Restored(tuple(sorted(names)), tuple(before.values()), finish(vault))


def finish(vault: Vault) -> tuple[str, ...]:
    """Take everybody who is gone out of all backups, and remove what an interrupted export has left.

    Returns:
        The backups that could not be reached, each with the reason.

    Raises:
        GalleryError: the gallery's own file cannot be written.
    """
    if not vault.file.rows(_UNFINISHED):
        return ()
    with vault.file.writing():
        rows = vault.file.rows(_UNFINISHED)
        return tuple(why for row in rows if (why := _told(row["path"], partial(_finish, vault, row))))


def _finish(vault: Vault, row: dict[str, Any]) -> None:
    path = Path(row["path"])
    if row["whole"]:
        gone = vault.file.rows(f"SELECT uid {_IN_GONE}", row["id"])
        _take_out(path, row["uid"], {each["uid"] for each in gone}, [vault.key()])
        vault.file.execute(f"DELETE {_IN_GONE}", row["id"])
    else:
        _remove_part(path, row["uid"])
        vault.file.execute("DELETE FROM backups WHERE id = ?", row["id"])


def rewrap(vault: Vault, keys: Sequence[Key], key: Key) -> tuple[str, ...]:
    """Let ``key`` open the backups that one of ``keys`` opens; inside a transaction.

    Returns:
        The backups that could not be reached, each with the reason.
    """
    rows = vault.file.rows("SELECT path, uid FROM backups WHERE whole")
    return tuple(why for row in rows if (why := _told(row["path"], partial(_rewrap, row, keys, key))))


def _rewrap(row: dict[str, Any], keys: Sequence[Key], key: Key) -> None:
    path = Path(row["path"])
    found = _open(path, row["uid"], keys)
    if found.key != key.id:
        _replace(path, found.rewrapped(key).packed())


def _told(path: str, change: Callable[[], None]) -> str:
    """Why a backup cannot be changed; empty if it was."""
    try:
        change()
    except GalleryError as error:
        return f"{path}: {error}"
    return ""


def remembered(vault: Vault) -> list[Backup]:
    """The backups that the gallery has made, oldest first."""
    rows = vault.file.rows(
        "SELECT path, backups.created AS created, count(backed_up.uid) AS people, "
        "count(backed_up.uid) - count(people.uid) AS gone FROM backups "
        "LEFT JOIN backed_up ON backup_id = backups.id LEFT JOIN people ON people.uid = backed_up.uid "
        "WHERE whole GROUP BY backups.id ORDER BY backups.id"
    )
    return [Backup(**row) for row in rows]


def disown(vault: Vault, path: Path) -> None:
    """Forget a backup that exists no more.

    Raises:
        GalleryError: none was made there, or it still exists.
    """
    path = path.resolve()
    if path.exists():
        raise GalleryError(f"{path} exists; remove it first")
    with vault.file.writing():
        if not vault.file.value("SELECT 1 FROM backups WHERE path = ?", _text(path)):
            raise GalleryError(f"{path} is not among the backups; `cabinsense gallery backups` lists them")
        vault.file.execute("DELETE FROM backups WHERE path = ?", _text(path))


def _everybody(book: Book) -> list[ArchivedPerson]:
    return [
        ArchivedPerson(
            entry.uid,
            entry.name,
            entry.created,
            tuple(kept for _, kept in book.samples(entry)),
            tuple(anchor for _, anchor in book.anchors(entry)),
        )
        for entry in book.entries()
    ]


def _put(book: Book, path: Path, person: ArchivedPerson, most: int) -> None:
    """Put an archived person into the gallery."""
    entry = book.add_person(person.name, uid=person.uid, created=person.created)
    for kept in person.samples[-most:]:
        _check_fits(book, path, kept.sample.embedding, kept.pack)
        book.add_sample(entry, kept)
    for anchor in person.anchors:
        _check_fits(book, path, anchor.embedding, anchor.pack)
        book.add_anchor(entry, anchor)
    book.stamp_person(entry.id)
    book.note("import", entry.uid, min(most, len(person.samples)))


def _check_fits(book: Book, path: Path, embedding: Float32, pack: str) -> None:
    try:
        book.check_length(embedding, pack)
    except ValueError as error:
        raise GalleryError(f"{path} does not fit the gallery: {error}; nobody was restored") from error


def _check_remembered(vault: Vault, number: int) -> None:
    if not vault.file.value("SELECT 1 FROM backups WHERE id = ?", number):
        raise GalleryError("another process has cleared this backup away; try again")


def _text(path: Path) -> str:
    """A path that the gallery can remember.

    Raises:
        GalleryError: its name is no text.
    """
    text = str(path)
    if not text.isprintable():
        raise GalleryError(f"{text!r} cannot be remembered; choose a name of printable characters")
    return text


def _read(path: Path) -> bytes:
    """The bytes of a backup.

    Raises:
        GalleryError: it cannot be read, is no regular file, or is too large.
    """
    try:
        if not path.is_file():
            raise GalleryError("there is no such file" if not path.exists() else "it is not a regular file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > archive.MAX_BYTES:
                raise GalleryError(f"more than {archive.MAX_BYTES >> 20} MiB are too large for a backup")
            return file.read(archive.MAX_BYTES)
    except OSError as error:
        raise GalleryError(f"it cannot be read: {error.strerror}") from error


def _open(path: Path, uid: bytes, keys: Sequence[Key]) -> Archive:
    """The backup with this uid, opened by the gallery's key.

    Raises:
        GalleryError: it is not there, or does not open.
    """
    data = _read(path)
    if archive.uid_of(data) != uid:
        raise GalleryError("another backup has taken its place")
    return archive.open_with_key(data, keys)


def _take_out(path: Path, uid: bytes, gone: Collection[bytes], keys: Sequence[Key]) -> None:
    found = _open(path, uid, keys)
    if any(person.uid in gone for person in found.people):
        _replace(path, found.without(gone).packed())


def _write(path: Path, data: bytes) -> None:
    """Write a new file.

    Raises:
        GalleryError: it cannot be written; there is none then.
    """
    try:
        write_new(path, data)
    except OSError as error:
        raise GalleryError(
            f"{path} cannot be written: {error.strerror}; name a file elsewhere, or make room"
        ) from error


def _replace(path: Path, data: bytes) -> None:
    """Put a new file in the place of a backup, and zeros over what that held.

    Raises:
        GalleryError: it cannot be done.
    """
    try:
        wiped = replace(path, data)
    except OSError as error:
        raise GalleryError(f"it cannot be replaced: {error.strerror}") from error
    if not wiped:
        raise GalleryError("it has a second name, under which it stays as it was")


def _remove_part(path: Path, uid: bytes) -> None:
    """Remove what an interrupted export has left, if it is that."""
    try:
        with suppress(FileNotFoundError):
            with path.open("rb") as file:
                ours = uid in file.read(_HEAD)
            if ours or not path.stat().st_size:
                path.unlink()
    except OSError as error:
        raise GalleryError(f"half a backup is left, and cannot be removed: {error.strerror}") from error
