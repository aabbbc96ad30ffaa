"""The gallery: the people known, kept in a sealed file.

What is in the file and how it is sealed is in ``agent.gallery.book``, how it is written in ``agent.gallery.file``. A
gallery belongs to the thread that opened it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType

import numpy as np

from agent import paths
from agent.gallery import backups, rotation
from agent.gallery.backups import Restored
from agent.gallery.book import Anchor, Book, Entry, Kept, now
from agent.gallery.templates import Aggregate, templates
from agent.gallery.types import (
    Backup,
    Calibration,
    GalleryError,
    Note,
    Person,
    Sample,
    Snapshot,
    StoredSample,
    person_name,
)
from agent.gallery.vault import Vault
from agent.gallery.vectors import is_unit
from agent.perception.types import Float32

log = logging.getLogger(__name__)

MOST_ANCHORS = 20
"""Faces marked as not being a person that are kept of each: enough for the few strangers that a car meets again."""


class Gallery:
    """An open gallery.

    All methods raise GalleryError, with the remedy, when the file cannot be read or written, or somebody has tampered
    with it; the gallery is as before then.
    """

    def __init__(self, vault: Vault) -> None:
        """Use ``open`` instead: it checks the file first."""
        self._vault = vault

    @classmethod
    def open(cls, path: Path, *, key: Path | None = None, readonly: bool = False) -> "Gallery":
        """Open the gallery at ``path``; unless ``readonly``, make it, its folder and its key where they do not exist.

        Args:
            path: of the file.
            key: where its key is kept; None: beside it. systemd's credential goes before both.
            readonly: change nothing.

        Raises:
            GalleryError: the file is missing (``readonly``), locked, damaged, unreadable, no gallery, or was made by
                a newer version; or its key is missing, or another. It is left as it is.
        """
        gallery = cls(Vault.open(path, key or paths.key_of(path), readonly=readonly))
        if not readonly:
            gallery._finish()
        return gallery

    def close(self) -> None:
        """Close the file. Everything is on disk already."""
        self._vault.file.close()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Who is there

    def people(self) -> list[Person]:
        """Everybody, by name."""
        with self._vault.reading() as book:
            return sorted((_person(entry) for entry in book.entries()), key=lambda person: person.name)

    def person(self, name: str) -> Person:
        """The person with this name.

        Raises:
            GalleryError: there is none.
        """
        with self._vault.reading() as book:
            return _person(book.entry(name))

    def count(self, name: str) -> int:
        """How many samples a person has, also if their row is damaged.

        Raises:
            GalleryError: nobody has this name.
        """
        with self._vault.unchecked() as book:
            return book.count(book.find(name))

    def samples(self, name: str) -> list[StoredSample]:
        """What is known about each sample of a person, oldest first.

        Raises:
            GalleryError: nobody has this name.
        """
        with self._vault.reading() as book:
            return [_described(kept) for _, kept in book.samples(book.entry(name))]

    def check_new(self, name: str, *, add: bool) -> str:
        """The name as it is stored, after a check that ``enrol`` would take it.

        Raises:
            GalleryError: the name cannot be used, is taken (or, with ``add``, is nobody's).
        """
        with self._vault.reading() as book:
            return _checked(book, name, add=add)

    def next_driver_name(self) -> str:
        """A name for somebody who has none yet: ``Driver N`` with the lowest N that is free."""
        with self._vault.reading() as book:
            return next(name for number in count(1) if not book.has(name := f"Driver {number}"))

    def labelled_samples(self, pack: str) -> list[tuple[str, Sample]]:
        """Every sample that the pack with digest ``pack`` has made, with the person's name; a person's are neighbours.

        Raises:
            GalleryError: a stored embedding is damaged.
        """
        with self._vault.reading() as book:
            book.entries()
            return [(name, kept.sample) for name, kept in book.samples() if kept.pack == pack]

    def snapshot(self, pack: str, aggregate: Aggregate = templates) -> Snapshot:
        """The gallery for matching embeddings of the pack with digest ``pack``.

        Args:
            pack: its digest.
            aggregate: makes the templates of a person.

        Raises:
            GalleryError: a stored embedding is damaged.
        """
        of: dict[str, list[Sample]] = {}
        skipped = 0
        with self._vault.reading() as book:
            book.entries()
            for name, kept in book.samples():
                if kept.pack == pack:
                    of.setdefault(name, []).append(kept.sample)
                else:
                    skipped += 1
            index = {name: number for number, name in enumerate(of)}
            anchors = [
                (index[name], anchor.embedding)
                for name, anchor in book.anchors()
                if name in index and anchor.pack == pack
            ]
            calibrated = book.calibrations().get(pack)
        if not of:
            return Snapshot(skipped=skipped, calibrated=calibrated)
        rows = [aggregate(samples) for samples in of.values()]
        matrix = np.concatenate(rows)
        pushed = np.array([vector for _, vector in anchors], np.float32).reshape(-1, matrix.shape[1])
        for array in (matrix, pushed):
            array.flags.writeable = False
        return Snapshot(
            tuple(of),
            matrix,
            np.repeat(np.arange(len(rows)), [len(each) for each in rows]),
            skipped,
            pushed,
            np.array([owner for owner, _ in anchors], np.intp),
            calibrated,
        )

    # What changes it

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
        _check_units([sample.embedding for sample in samples])
        with self._vault.writing() as book:
            name = _checked(book, name, add=add)
            book.check_length(samples[0].embedding, pack)
            entry = book.entry(name) if add else book.add_person(name)
            total = _store(book, entry, samples, pack, max_samples)
            book.note("add" if add else "enrol", entry.uid, len(samples))
        return total

    def renew(self, name: str, samples: Sequence[Sample], pack: str, max_samples: int) -> int:
        """Put samples of the pack with digest ``pack`` in the place of those that other packs made of a person.

        Anchors that other packs made go too: there is nothing to make them anew from.

        Args:
            name: of the person.
            samples: as ``enrol``.
            pack: digest of the pack that made them.
            max_samples: as ``enrol``.

        Returns:
            How many samples the person has now.

        Raises:
            GalleryError: nobody has this name, or the file cannot be written.
            ValueError: as ``enrol``.
        """
        _check_units([sample.embedding for sample in samples])
        with self._vault.writing() as book:
            entry = book.entry(name)
            book.drop_others(entry, pack)
            book.check_length(samples[0].embedding, pack)
            total = _store(book, entry, samples, pack, max_samples)
            book.note("re-enrol", entry.uid, len(samples))
        return total

    def rename(self, old: str, new: str) -> str:
        """Give a person another name; returns it as it is stored.

        Raises:
            GalleryError: nobody is called ``old``, ``new`` cannot be used or is taken, or the file cannot be written.
        """
        new = person_name(new)
        with self._vault.writing() as book:
            entry = book.entry(old)
            if new != entry.name:
                if book.has(new):
                    raise GalleryError(f"{new} is enrolled already; choose another name for {entry.name}")
                book.rename(entry, new)
                book.stamp_person(entry.id)
                book.note("rename", entry.uid)
        return new

    def delete(self, name: str) -> tuple[str, ...]:
        """Forget a person: nothing of name or samples is left in the file, beside it, or in a backup within reach.

        A person whose row is damaged can be deleted as well.

        Returns:
            The backups that could not be reached and may still hold the person, each with the reason.

        Raises:
            GalleryError: nobody has this name, or the file cannot be written. If the person is deleted but traces
                could not be erased yet, because another program reads the file, the message says so.
        """
        name = person_name(name)
        with self._vault.writing(lambda book: [book.find(name)]) as book:
            number = book.find(name)
            samples = book.count(number)
            book.note("delete", book.remove(number), samples)
        try:
            self._vault.file.erase()
        except GalleryError as error:
            raise GalleryError(f"{name} is deleted, but traces are left on the disk: {error}") from error
        finally:
            missed = self.reach_backups()
        return missed

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
            ValueError: the embedding is not of length 1 or does not fit those of its pack.
        """
        _check_units([embedding])
        with self._vault.writing() as book:
            entry = book.entry(name)
            book.check_length(embedding, pack)
            book.add_anchor(entry, Anchor(embedding, pack, now()))
            kept = book.keep_newest("anchors", entry, MOST_ANCHORS)
            book.stamp_person(entry.id)
            book.note("reject", entry.uid, kept)
        return kept

    # The threshold

    def store_calibration(self, calibration: Calibration) -> None:
        """Keep a measured threshold; it takes the place of the one for the same pack.

        Raises:
            GalleryError: the file cannot be written.
        """
        with self._vault.writing(measured=calibration.pack) as book:
            book.set_calibration(replace(calibration, created=now()))
            book.note("calibrate")

    def calibration(self, pack: str) -> Calibration | None:
        """The threshold that was measured for the pack with this digest; None if none was."""
        with self._vault.reading() as book:
            return book.calibrations().get(pack)

    # Keys, backups, and what was done

    def rotate_key(self) -> tuple[int, tuple[str, ...]]:
        """Seal everything with a new key; see ``agent.gallery.rotation.rotate``."""
        return rotation.rotate(self._vault)

    def export(self, path: Path, passphrase: str) -> int:
        """Write a backup; see ``agent.gallery.backups.export``."""
        return backups.export(self._vault, path, passphrase)

    def restore(self, path: Path, passphrase: str, max_samples: int, *, replace: bool = False) -> Restored:
        """Take in a backup; see ``agent.gallery.backups.restore``."""
        return backups.restore(self._vault, path, passphrase, max_samples, replace=replace)

    def backups(self) -> list[Backup]:
        """The backups that this gallery has made, oldest first."""
        return backups.remembered(self._vault)

    def reach_backups(self) -> tuple[str, ...]:
        """Take whoever was deleted out of backups that were out of reach; gives back those that still are."""
        return backups.finish(self._vault)

    def disown(self, path: Path) -> None:
        """Forget a backup that exists no more; see ``agent.gallery.backups.disown``."""
        backups.disown(self._vault, path)

    def audit(self) -> list[Note]:
        """What was done, oldest first."""
        rows = self._vault.file.rows("SELECT at, action, person, count FROM audit ORDER BY id")
        return [Note(**row) for row in rows]

    def _finish(self) -> None:
        """Finish what a power cut interrupted, or what could not be done before."""
        unfinished: tuple[tuple[str, Callable[[], tuple[str, ...] | None]], ...] = (
            ("the old key could not be forgotten yet", lambda: rotation.finish(self._vault)),
            ("traces of deleted people are left on the disk", self._vault.file.erase),
            ("deleted people are still in a backup", self.reach_backups),
        )
        for what, finish in unfinished:
            try:
                missed = finish() or ()
            except GalleryError as error:
                missed = (error.unnamed,)
            for each in missed:
                log.warning("%s: %s", what, each)


def _checked(book: Book, name: str, *, add: bool) -> str:
    name = person_name(name)
    if add:
        return book.entry(name).name
    if book.has(name):
        raise GalleryError(
            f"{name} is enrolled already; --add gives them more samples, `cabinsense gallery delete` forgets them"
        )
    return name


def _check_units(embeddings: Sequence[Float32]) -> None:
    if not embeddings or not is_unit(np.stack(embeddings)):
        raise ValueError("samples must be vectors of length 1, and at least one")


def _store(book: Book, entry: Entry, samples: Sequence[Sample], pack: str, most: int) -> int:
    """Seal samples as a person's newest; says how many there are then."""
    at = now()
    for sample in samples:
        book.add_sample(entry, Kept(sample, pack, at))
    total = book.keep_newest("samples", entry, most)
    book.stamp_person(entry.id)
    return total


def _person(entry: Entry) -> Person:
    return Person(entry.name, entry.created, len(entry.packs), tuple(dict.fromkeys(entry.packs)))


def _described(kept: Kept) -> StoredSample:
    quality, pose = kept.sample.quality, kept.sample.quality.pose
    return StoredSample(
        kept.created,
        kept.pack,
        quality.size,
        quality.sharpness,
        quality.brightness,
        quality.contrast,
        pose.yaw,
        pose.pitch,
        pose.roll,
        kept.sample.source,
    )
