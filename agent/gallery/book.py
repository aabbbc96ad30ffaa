"""The rows of the gallery, sealed and stamped, inside one transaction.

- A sample or an anchor is sealed: its embedding is encrypted, bound to the person's uid and to all else in its row.
- A person is stamped: uid, name, time, and which samples and anchors belong, by the ends of their seals.
- A calibration is stamped.
- The gallery is stamped, in ``vault``: which people and calibrations belong, by their stamps.

So no part can be changed, dropped, or put back from an older copy of the file without the key; only the file as a whole
can. A person's uid is random and never used again, unlike the numbers that SQLite gives to rows.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgspec

from agent.gallery.file import File, damaged
from agent.gallery.keys import Key
from agent.gallery.sealing import NONCE, TAG, Fact, Sealer, TamperedError
from agent.gallery.types import Action, Calibration, GalleryError, Sample, person_name
from agent.gallery.vectors import from_bytes, to_bytes
from agent.perception.types import Float32, Pose, Quality
from engines.pack import Steps

MOST_NOTES = 10_000
"""Rows of the audit that are kept; a car that enrols somebody every day fills them in 27 years."""
_UID = 16  # bytes: two of 2^64 people would share one
_FIGURES = ("size", "sharpness", "brightness", "contrast", "yaw", "pitch", "roll")


@dataclass(frozen=True, slots=True)
class Entry:
    """A person's row.

    Attributes:
        id: its number in this file.
        uid: the person's own, 16 random bytes.
        name: unique.
        created: when the person was enrolled, UTC, RFC 3339.
        packs: digest of the pack of each sample, oldest first.
    """

    id: int
    uid: bytes
    name: str
    created: str
    packs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample as it is stored: with the digest of its pack, and when that was (UTC, RFC 3339)."""

    sample: Sample
    pack: str
    created: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """A face that is not the person's: float32 [dim] of length 1, the digest of its pack, and when it was stored."""

    embedding: Float32
    pack: str
    created: str


class Book:
    """What a transaction reads and writes with. It holds for as long as the transaction does."""

    def __init__(self, file: File, key: Key) -> None:
        """The rows of ``file``, which ``key`` seals."""
        self._file = file
        self._key = key
        self._sealer = Sealer(key.secret)

    # People

    def entries(self) -> list[Entry]:
        """Everybody, in the order of their rows.

        Raises:
            GalleryError: somebody's row does not agree with its stamp; the message names them.
        """
        parts = self._parts()
        return [self._entry(row, parts.get(row["id"], {})) for row in self._people()]

    def entry(self, name: str) -> Entry:
        """The person with this name.

        Raises:
            GalleryError: there is none, or the row does not agree with its stamp.
        """
        number = self.find(name)
        (row,) = self._file.rows("SELECT id, uid, name, created, stamp FROM people WHERE id = ?", number)
        return self._entry(row, self._parts(number).get(number, {}))

    def find(self, name: str) -> int:
        """The number of the row with this name, whether or not it agrees with its stamp.

        Raises:
            GalleryError: there is none.
        """
        number = self._file.value("SELECT id FROM people WHERE name = ?", person_name(name))
        if number is None:
            raise GalleryError(
                f"nobody called {person_name(name)} is in the gallery; `cabinsense gallery list` names everybody"
            )
        return int(number)

    def has(self, name: str) -> bool:
        """Whether somebody has this name, written as ``person_name`` writes it."""
        return self._file.value("SELECT 1 FROM people WHERE name = ?", name) is not None

    def count(self, number: int) -> int:
        """How many samples belong to the person in this row."""
        return int(self._file.value("SELECT count(*) FROM samples WHERE person_id = ?", number))

    def add_person(self, name: str, *, uid: bytes | None = None, created: str = "") -> Entry:
        """Somebody new, still without samples. ``stamp_person`` must follow."""
        uid, created = uid or os.urandom(_UID), created or now()
        number = self._file.add("people", uid=uid, name=name, created=created, stamp=b"")
        return Entry(number, uid, name, created, ())

    def rename(self, entry: Entry, name: str) -> None:
        """Write another name. ``stamp_person`` must follow."""
        self._file.execute("UPDATE people SET name = ? WHERE id = ?", name, entry.id)

    def remove(self, number: int) -> bytes:
        """Delete the person in this row, with all that belongs to them; gives back their uid."""
        uid = self._file.value("SELECT uid FROM people WHERE id = ?", number)
        self._file.execute("DELETE FROM people WHERE id = ?", number)
        self._file.erase_later()
        return (
            uid if isinstance(uid, bytes) else b""
        )  # it may have been tampered with, and must go all the same

    def stamp_person(self, number: int) -> None:
        """Stamp a person's row anew, after it or what belongs to it was changed."""
        (row,) = self._file.rows("SELECT id, uid, name, created FROM people WHERE id = ?", number)
        stamp = self._sealer.stamp(*_person_facts(row, self._parts(number).get(number, {})))
        self._file.execute("UPDATE people SET stamp = ? WHERE id = ?", stamp, number)

    # Samples and anchors

    def check_length(self, embedding: Float32, pack: str) -> None:
        """See that an embedding can be of this pack, all of whose embeddings are of one length.

        Raises:
            ValueError: it cannot.
        """
        known = self._file.value(
            "SELECT length(sealed) FROM (SELECT sealed, pack FROM samples UNION ALL SELECT sealed, pack FROM anchors) "
            "WHERE pack = ? LIMIT 1",
            pack,
        )
        if known is not None and known != NONCE + 4 * embedding.size + TAG:
            raise ValueError(f"pack {pack} has embeddings of {(known - NONCE - TAG) // 4} numbers")

    def add_sample(self, entry: Entry, kept: Kept) -> None:
        """Seal a sample and store it. ``stamp_person`` must follow."""
        quality = kept.sample.quality
        pose = quality.pose
        figures = (quality.size, quality.sharpness, quality.brightness, quality.contrast)
        row: dict[str, Any] = {
            "pack": kept.pack,
            **dict(zip(_FIGURES, map(float, (*figures, pose.yaw, pose.pitch, pose.roll)), strict=True)),
            "created": kept.created,
            "source": kept.sample.source,
        }
        sealed = self._sealer.close(to_bytes(kept.sample.embedding), *_sample_facts(entry.uid, row))
        self._file.add("samples", person_id=entry.id, sealed=sealed, **row)

    def add_anchor(self, entry: Entry, anchor: Anchor) -> None:
        """Seal an anchor and store it. ``stamp_person`` must follow."""
        row = {"pack": anchor.pack, "created": anchor.created}
        sealed = self._sealer.close(to_bytes(anchor.embedding), *_anchor_facts(entry.uid, row))
        self._file.add("anchors", person_id=entry.id, sealed=sealed, **row)

    def keep_newest(self, table: str, entry: Entry, most: int) -> int:
        """Let the oldest rows of a person in ``samples`` or ``anchors`` go until ``most`` are left; says how many are.

        ``stamp_person`` must follow.
        """
        numbers = [row["id"] for row in self._numbers(table, entry)]
        for number in numbers[: max(0, len(numbers) - most)]:
            self._file.execute(f"DELETE FROM {table} WHERE id = ?", number)  # noqa: S608 - a name of this module
        return min(len(numbers), most)

    def drop_others(self, entry: Entry, pack: str) -> None:
        """Delete what other packs than ``pack`` made of a person. ``stamp_person`` must follow."""
        for table in ("samples", "anchors"):
            self._file.execute(f"DELETE FROM {table} WHERE person_id = ? AND pack != ?", entry.id, pack)  # noqa: S608

    def samples(self, entry: Entry | None = None) -> Iterator[tuple[str, Kept]]:
        """Samples with the name of their person, oldest first: of one person, or of everybody in the order of rows.

        Raises:
            GalleryError: one does not open; the message names it.
        """
        for row in self._sealed("samples", entry):
            embedding = self._opened("sample", row, _sample_facts(row["uid"], row))
            pose = Pose(row["yaw"], row["pitch"], row["roll"])
            quality = Quality(row["size"], row["sharpness"], row["brightness"], row["contrast"], pose)
            yield row["name"], Kept(Sample(embedding, quality, row["source"]), row["pack"], row["created"])

    def anchors(self, entry: Entry | None = None) -> Iterator[tuple[str, Anchor]]:
        """Likewise the anchors."""
        for row in self._sealed("anchors", entry):
            embedding = self._opened("anchor", row, _anchor_facts(row["uid"], row))
            yield row["name"], Anchor(embedding, row["pack"], row["created"])

    # The rest

    def calibrations(self) -> dict[str, Calibration]:
        """The measured thresholds, by the digest of their pack.

        Raises:
            GalleryError: one does not agree with its stamp.
        """
        found = {}
        for pack, calibration in self._thresholds():
            if calibration is None:
                raise GalleryError(
                    f"{self._file.path}: the threshold for pack {pack} was changed by another program; "
                    "measure it again with `cabinsense calibrate threshold`"
                )
            found[pack] = calibration
        return found

    def _thresholds(self) -> Iterator[tuple[str, Calibration | None]]:
        """Each pack's digest with its measured threshold; None for one that does not agree with its stamp."""
        for row in self._file.rows("SELECT * FROM calibrations"):
            stamp = row.pop("stamp")
            if not self._sealer.stamped(stamp, "calibration", *row.values()):
                yield row["pack"], None
                continue
            interval = row.pop("tar_low"), row.pop("tar_high")
            steps = msgspec.json.decode(row.pop("steps"), type=Steps)
            yield row["pack"], Calibration(**row, tar_interval=interval, steps=steps)

    def set_calibration(self, calibration: Calibration) -> None:
        """Keep a measured threshold in place of the one for the same pack."""
        row: dict[str, Any] = {
            "pack": calibration.pack,
            "threshold": float(calibration.threshold),
            "far_target": float(calibration.far_target),
            "far": float(calibration.far),
            "tar": float(calibration.tar),
            "tar_low": float(calibration.tar_interval[0]),
            "tar_high": float(calibration.tar_interval[1]),
            "pairs": calibration.pairs,
            "created": calibration.created,
            "steps": msgspec.json.encode(calibration.steps).decode(),
        }
        self._file.execute("DELETE FROM calibrations WHERE pack = ?", calibration.pack)
        self._file.add("calibrations", **row, stamp=self._sealer.stamp("calibration", *row.values()))

    def note(self, action: Action, uid: bytes | None = None, count: int | None = None) -> None:
        """Write a row of the audit; the oldest go."""
        person = uid.hex() if uid else None
        number = self._file.add("audit", at=now(), action=action, person=person, count=count)
        self._file.execute("DELETE FROM audit WHERE id <= ?", number - MOST_NOTES)

    def check(self, despite: Collection[int] = (), measured: str = "") -> None:
        """See that nobody and no threshold is missing, or has come from elsewhere.

        Args:
            despite: rows of people who are about to be removed: that they are damaged is no reason to keep them.
            measured: the pack whose threshold is about to be replaced: the same goes for that.

        Raises:
            GalleryError: the message names whom it can.
        """
        if self._sealer.stamped(self._file.value("SELECT stamp FROM vault"), *self._facts()):
            return
        parts = self._parts()
        torn = [row for row in self._people() if not self._whole(row, parts.get(row["id"], {}))]
        for row in torn:
            if row["id"] not in despite:
                raise self._torn(row)
        thresholds = [pack for pack, found in self._thresholds() if found is None]
        if any(pack != measured for pack in thresholds):
            self.calibrations()  # says which
        if not torn and not thresholds:
            raise damaged(self._file.path, "people or thresholds were added or removed by another program")

    def stamp(self) -> None:
        """Stamp the gallery anew, at the end of a transaction that has changed it."""
        self._file.execute("DELETE FROM vault")
        self._file.add("vault", id=1, key=self._key.id, stamp=self._sealer.stamp(*self._facts()))

    def reseal(self, key: Key) -> int:
        """Seal and stamp everything with another key; says how many seals that were. ``stamp`` must follow.

        Raises:
            GalleryError: something does not open.
        """
        entries, calibrations, newer = self.entries(), self.calibrations(), Sealer(key.secret)
        count = 0
        for table, kind, facts in (
            ("samples", "sample", _sample_facts),
            ("anchors", "anchor", _anchor_facts),
        ):
            for row in self._sealed(table):
                embedding = self._opened(kind, row, facts(row["uid"], row))
                sealed = newer.close(to_bytes(embedding), *facts(row["uid"], row))
                self._file.execute(f"UPDATE {table} SET sealed = ? WHERE id = ?", sealed, row["id"])  # noqa: S608
                count += 1
        self._key, self._sealer = key, newer
        for entry in entries:
            self.stamp_person(entry.id)
        for calibration in calibrations.values():
            self.set_calibration(calibration)
        self._file.erase_later()
        return count

    # How

    def _entry(self, row: dict[str, Any], parts: dict[str, list[list[Fact]]]) -> Entry:
        if not self._whole(row, parts):
            raise self._torn(row)
        packs = tuple(str(part[1]) for part in parts.get("samples", []))
        return Entry(row["id"], row["uid"], row["name"], row["created"], packs)

    def _whole(self, row: dict[str, Any], parts: dict[str, list[list[Fact]]]) -> bool:
        return self._sealer.stamped(row["stamp"], *_person_facts(row, parts))

    def _torn(self, row: dict[str, Any]) -> GalleryError:
        entry = f"{self._file.path}: the entry "
        trouble = (
            f"(row {row['id']}) was changed by another program, or something is missing from it; `cabinsense gallery "
            "import --replace` puts them back from a backup, `cabinsense gallery delete` forgets them"
        )
        return GalleryError(f"{entry}of {row['name']!r} {trouble}", f"{entry}of a person {trouble}")

    def _people(self) -> list[dict[str, Any]]:
        return self._file.rows("SELECT id, uid, name, created, stamp FROM people ORDER BY id")

    def _parts(self, number: int | None = None) -> dict[int, dict[str, list[list[Fact]]]]:
        """What belongs to each person, or to one: of each row its number, its pack, and the end of its seal."""
        found: dict[int, dict[str, list[list[Fact]]]] = {}
        for table in ("samples", "anchors"):
            where, values = ("", ()) if number is None else ("WHERE person_id = ?", (number,))
            for row in self._file.rows(
                f"SELECT id, person_id, pack, substr(sealed, -{TAG}) AS tag FROM {table} {where} ORDER BY id",  # noqa: S608
                *values,
            ):
                parts = found.setdefault(row["person_id"], {}).setdefault(table, [])
                parts.append([row["id"], row["pack"], row["tag"]])
        return found

    def _numbers(self, table: str, entry: Entry) -> list[dict[str, Any]]:
        return self._file.rows(f"SELECT id FROM {table} WHERE person_id = ? ORDER BY id", entry.id)  # noqa: S608

    def _sealed(self, table: str, entry: Entry | None = None) -> list[dict[str, Any]]:
        where, values = ("", ()) if entry is None else ("WHERE people.id = ?", (entry.id,))
        return self._file.rows(
            f"SELECT {table}.*, name, uid FROM {table} JOIN people ON people.id = person_id {where} "  # noqa: S608
            f"ORDER BY people.id, {table}.id",
            *values,
        )

    def _opened(self, kind: str, row: dict[str, Any], facts: Sequence[Fact]) -> Float32:
        try:
            return from_bytes(self._sealer.open(row["sealed"], *facts))
        except (TamperedError, ValueError):
            part = f"{self._file.path}: {kind} {row['id']} "
            trouble = (
                "does not open: it was changed, or sealed with another key; `cabinsense gallery import --replace` puts "
                "them back from a backup, `cabinsense gallery delete` forgets them"
            )
            raise GalleryError(f"{part}of {row['name']} {trouble}", f"{part}{trouble}") from None

    def _facts(self) -> tuple[Fact, ...]:
        people = self._file.rows("SELECT uid, stamp FROM people ORDER BY uid")
        thresholds = self._file.rows("SELECT pack, stamp FROM calibrations ORDER BY pack")
        return (
            "gallery",
            [[row["uid"], row["stamp"]] for row in people],
            [[row["pack"], row["stamp"]] for row in thresholds],
        )


def now() -> str:
    """The time, UTC, RFC 3339, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _person_facts(row: dict[str, Any], parts: dict[str, list[list[Fact]]]) -> tuple[Fact, ...]:
    """What a person's stamp is about."""
    belong = parts.get("samples", []), parts.get("anchors", [])
    return ("person", row["uid"], row["name"], row["created"], *belong)


def _sample_facts(uid: bytes, row: dict[str, Any]) -> tuple[Fact, ...]:
    """What a sample's seal is about."""
    figures = (row[name] for name in _FIGURES)
    return ("sample", uid, row["pack"], *figures, row["created"], row["source"])


def _anchor_facts(uid: bytes, row: dict[str, Any]) -> tuple[Fact, ...]:
    """What an anchor's seal is about."""
    return ("anchor", uid, row["pack"], row["created"])
