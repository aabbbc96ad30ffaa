"""Pictures out of MXNet's RecordIO files, in which WebFace, MS-Celeb-1M and Glint360K are handed out; without MXNet.

The format (dmlc-core, ``recordio.h``; MXNet, ``image_recordio.h`` and ``recordio.py``), little-endian:

- A record is one part or more. A part is the magic number, a word whose three upper bits are the part's kind (0 the
  whole record, 1 its first, 2 a middle, 3 its last part) and whose others are the length in bytes, and the bytes,
  padded to a multiple of four. A record was cut wherever it held the magic number itself: that stands between two
  parts, and is not written.
- The record's bytes are a header - flag (uint32), label (float32), two numbers (uint64) -, then ``flag`` further labels
  (float32), which replace the header's, and the file of the picture.
- ``NAME.idx`` has a line ``KEY<tab>OFFSET`` for each record, ``NAME.lst`` a line ``KEY<tab>LABEL...<tab>PATH``.
- InsightFace's sets: record 0 is no picture; its labels are the key of the first identity record and the key after the
  last. The labels of an identity record are the key of the first picture of that person and the key after the last.

Every number comes from a file that may be damaged or made to do harm: each is checked before it is used.
"""

import os
import re
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.faces import Image, decode_image
from trainer.data.reading import DataError, fit, rgb
from trainer.data.split import digest_of_arrays

MAGIC = 0xCED7230A
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_START = struct.Struct(
    "<IIIf16xf"
)  # the part's two words, the header's flag and label, and a label behind it
_LENGTH_BITS = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_MOST_BYTES = 64 << 20  # of a record: no picture of a face is larger
_MOST_PARTS = 1000
_EXACT = 1 << 24  # up to here a float32 holds every key; beyond, the ranges of identity records are rounded
_NAMED = 10
_LINES = re.compile(rb"(?:[0-9]{1,18}\t[0-9]{1,18}\r?\n)*")
_BLOCK = 1 << 24
_AT_ONCE = 1 << 16  # records whose offsets are Python numbers at a time


class RecordError(DataError):
    """A RecordIO file or its index is not what it should be; the message names the file and the place in it."""


class Record(NamedTuple):
    """One record: its labels, float32 [k ≥ 1], and what follows them."""

    labels: NDArray[np.float32]
    content: bytes


class RecordFile:
    """Records of a ``.rec`` file by their offsets; every process that uses it has its own descriptor."""

    def __init__(self, path: Path) -> None:
        """Look at the file.

        Raises:
            RecordError: there is no such file.
        """
        self.path = path
        try:
            self.size = path.stat().st_size
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}; name the .rec file of the data set") from error
        self._opened: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __del__(self) -> None:
        if getattr(self, "_opened", None) is not None:
            os.close(self._file)

    @property
    def _file(self) -> int:
        if self._opened is None:
            try:
                self._opened = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise RecordError(f"{self.path}: {error.strerror}") from error
        return self._opened

    def bytes_of(self, offset: int) -> bytes:
        """The bytes of the record at ``offset``, its parts joined.

        Raises:
            RecordError: there is no whole record.
        """
        parts: list[bytes] = []
        start, total = offset, 0
        for number in range(_MOST_PARTS):
            kind, length = self._part(start)
            if kind not in ((_WHOLE, _FIRST) if number == 0 else (_MIDDLE, _LAST)):
                raise self._error(
                    start, f"a part of kind {kind} where the {'first' if not number else 'next'} belongs"
                )
            total += length
            if total > _MOST_BYTES:
                raise self._error(offset, f"a record of more than {_MOST_BYTES >> 20} MB")
            parts.append(self._bytes(start + _PART.size, length))
            if kind in {_WHOLE, _LAST}:
                return struct.pack("<I", MAGIC).join(parts)
            start += _PART.size + (length + 3 & ~3)
        raise self._error(offset, f"a record of more than {_MOST_PARTS} parts")

    def record(self, offset: int) -> Record:
        """The record at ``offset``.

        Raises:
            RecordError: there is no whole record with a header.
        """
        whole = self.bytes_of(offset)
        if len(whole) < _HEADER.size:
            raise self._error(offset, f"a record of {len(whole)} bytes, less than its header has")
        flag, label, _, _ = _HEADER.unpack_from(whole)
        end = _HEADER.size + 4 * flag
        if end > len(whole):
            raise self._error(offset, f"a record of {len(whole)} bytes that says it has {flag} labels")
        labels = np.frombuffer(whole, "<f4", flag, _HEADER.size) if flag else np.array([label], np.float32)
        return Record(labels.astype(np.float32), whole[end:])

    def label(self, offset: int) -> float:
        """The first label of the record at ``offset``; its picture is not read.

        Raises:
            RecordError: there is no record with a header.
        """
        if offset + _START.size > self.size:
            return float(self.record(offset).labels[0])
        magic, word, flag, label, first = _START.unpack(self._bytes(offset, _START.size))
        # Whole records alone, with a header and a label behind it; any other is read with more care.
        if magic != MAGIC or not _START.size - _PART.size <= word < 1 << _LENGTH_BITS:
            return float(self.record(offset).labels[0])
        return float(first if flag else label)

    def _part(self, offset: int) -> tuple[int, int]:
        """Kind and length of the part at ``offset``; it lies within the file."""
        magic, word = _PART.unpack(self._bytes(offset, _PART.size))
        if magic != MAGIC:
            raise self._error(offset, f"no record begins here (0x{magic:08x} in place of 0x{MAGIC:08x})")
        return word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1

    def _bytes(self, offset: int, count: int) -> bytes:
        if offset + count > self.size:
            raise self._error(offset, f"{count} bytes are wanted, the file ends at byte {self.size}")
        try:
            found = os.pread(self._file, count, offset)
        except OSError as error:
            raise self._error(offset, f"cannot be read ({error.strerror})") from error
        if len(found) != count:
            raise self._error(offset, "the file has become shorter")
        return found

    def _error(self, offset: int, what: str) -> RecordError:
        return RecordError(f"{self.path}, byte {offset}: {what}; fetch the file again, or make its .idx anew")


class RecordPictures:
    """The pictures of a ``.rec`` file, as a source (see ``trainer.data.reading``).

    Attributes:
        labels: int64 [n], classes from 0 without gaps.
        keys: int64 [n], each picture's key.
        left_out: what is wrong with records that belong to no class; the first ten in words.
        left_out_count: how many they are.
    """

    def __init__(self, path: Path, side: int, *, listed: Path | None = None, limit: int = 100) -> None:
        """Read the index of ``path`` and find the class of each picture.

        In this order: from the list, where one is given; from identity records, where record 0 tells of them; from
        each record's own label. With more than 16,777,216 records, own labels are taken also where there are identity
        records, whose ranges float32 cannot tell exactly.

        Args:
            path: the ``.rec`` file; its ``.idx`` lies beside it.
            side: of the pictures to give.
            listed: a ``.lst`` file whose labels are taken; records that it does not name are left out.
            limit: records without a class that are passed over.

        Raises:
            RecordError: a file is missing or is not of the format, or more records than ``limit`` have no class.
        """
        self._file, self._side = RecordFile(path), side
        keys, offsets = read_index(path.with_suffix(".idx"))
        self.left_out: list[str] = []
        self.left_out_count, self._limit = 0, limit
        span = self._identity_keys(keys, offsets)
        if listed is not None:
            named, raw = read_list(listed)
            places = self._places(keys, named)
            raw = raw[places >= 0]
        elif span is not None and span[1] <= _EXACT:
            named, raw = self._people(keys, offsets, span)
            places = self._places(keys, named)
            raw = raw[places >= 0]
        else:
            # Record 0 and the identity records are no pictures.
            first = len(keys) if span is None else int(np.searchsorted(keys, span[0]))
            places = np.arange(0 if span is None else 1, first)
            raw = np.fromiter(self._own_labels(keys, offsets, places), np.int64, len(places))
            places, raw = places[raw >= 0], raw[raw >= 0]
        places = places[places >= 0]
        self.keys, self._offsets = keys[places], offsets[places]
        self.labels = np.unique(raw, return_inverse=True)[1].astype(np.int64)

    def photograph(self, index: int) -> Image:
        """The whole picture: uint8 BGR [height, width, 3].

        Raises:
            RecordError: its record cannot be read.
            ImageError: the record holds no picture.
        """
        content = self._file.record(int(self._offsets[index])).content
        return decode_image(content, self.name(index))

    def read(self, index: int) -> NDArray[np.uint8]:
        """The central square of the picture: uint8 RGB [side, side, 3].

        Raises:
            RecordError: its record cannot be read.
            ImageError: the record holds no picture.
        """
        return rgb(fit(self.photograph(index), self._side))

    def name(self, index: int) -> str:
        """File, key and offset."""
        return f"{self._file.path}, record {self.keys[index]} at byte {self._offsets[index]}"

    def digest(self) -> str:
        """What these pictures are: SHA-256 over the file's size and the keys, places and classes of all pictures.

        To read the file itself would take as long as an epoch. Pictures that others take the places of, all with the
        same lengths, are not noticed.
        """
        size = np.array([self._file.size], np.int64)
        return digest_of_arrays(size, self.keys, self._offsets, self.labels)

    def report(self) -> str:
        """How many records belong to no class, and what is wrong with the first ten; empty when all do."""
        if not self.left_out_count:
            return ""
        return "\n  ".join([f"{self.left_out_count} records have no class", *self.left_out])

    def _identity_keys(self, keys: NDArray[np.int64], offsets: NDArray[np.int64]) -> tuple[int, int] | None:
        """The key of the first identity record and the one after the last; None where there are none."""
        if not len(keys) or keys[0] != 0:
            return None
        offset = int(offsets[0])
        record = self._file.record(offset)
        if len(record.labels) < 2:
            return None
        first, end = self._span(record.labels, offset)
        if not 1 <= first <= end:
            raise RecordError(
                f"{self._file.path}, byte {offset}: identity records from {first} to {end} cannot be"
            )
        return first, end

    def _people(
        self, keys: NDArray[np.int64], offsets: NDArray[np.int64], span: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys of pictures and whose each is, by the identity records."""
        first, end = span
        low, high = np.searchsorted(keys, span).tolist()
        if high - low != end - first:
            raise RecordError(
                f"{self._file.path}: record 0 tells of {end - first} identity records, the index has {high - low}"
            )
        owner = np.full(first, -1, np.int64)  # of each key
        for person, offset in enumerate(offsets[low:high].tolist()):
            a, b = self._span(self._file.record(offset).labels, offset)
            if not 1 <= a <= b <= first or (owner[a:b] >= 0).any():
                raise RecordError(
                    f"{self._file.path}, byte {offset}: the pictures {a} to {b} of identity {person} are none, "
                    "or another's"
                )
            owner[a:b] = person
        named = np.flatnonzero(owner >= 0)
        return named, owner[named]

    def _span(self, labels: NDArray[np.float32], offset: int) -> tuple[int, int]:
        if len(labels) < 2 or not np.isfinite(labels[:2]).all() or np.abs(labels[:2]).max() > 2**53:
            raise RecordError(
                f"{self._file.path}, byte {offset}: labels {labels[:2].tolist()} are no range of records"
            )
        return int(labels[0]), int(labels[1])

    def _places(self, keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each wanted key stands among ``keys``; -1, and left out, where it does not."""
        places = np.searchsorted(keys, wanted)
        found = (
            keys[np.minimum(places, len(keys) - 1)] == wanted if len(keys) else np.zeros(len(wanted), bool)
        )
        for key in wanted[~found]:
            self._leave_out(f"record {key} is not in the index")
        return np.where(found, places, -1)

    def _own_labels(
        self, keys: NDArray[np.int64], offsets: NDArray[np.int64], places: NDArray[np.int64]
    ) -> Iterator[int]:
        """The label of each record; -1, and left out, where it is none."""
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            for key, offset in zip(keys[some].tolist(), offsets[some].tolist(), strict=True):
                try:
                    label = self._file.label(offset)
                except RecordError as error:
                    self._leave_out(str(error))
                    yield -1
                    continue
                if label.is_integer() and label >= 0:
                    yield int(label)
                else:
                    self._leave_out(f"record {key} at byte {offset} has the label {label}")
                    yield -1

    def _leave_out(self, why: str) -> None:
        self.left_out_count += 1
        if len(self.left_out) < _NAMED:
            self.left_out.append(why)
        if self.left_out_count > self._limit:
            told = "\n  ".join(self.left_out)
            raise RecordError(f"{self._file.path}: more than {self._limit} records have no class:\n  {told}")


def read_index(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and offsets of an ``.idx`` file, by rising key: int64 [n] each.

    Raises:
        RecordError: the file cannot be read, a line is not ``KEY<tab>OFFSET``, or a key comes twice.
    """
    blocks: list[NDArray[np.int64]] = []
    lines = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                block += file.readline()
                block += b"" if block.endswith(b"\n") else b"\n"
                right = _LINES.match(block)
                end = right.end() if right else 0
                if end != len(block):
                    number = lines + block.count(b"\n", 0, end) + 1
                    line = block[end : end + 60].split(b"\n")[0]
                    raise RecordError(f"{path}, line {number}: {line!r}; expected a key, a tab and an offset")
                lines += block.count(b"\n")
                blocks.append(np.array(block.split(), np.int64))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; a .rec file is read by the .idx beside it") from error
    table = np.concatenate(blocks).reshape(-1, 2) if blocks else np.empty((0, 2), np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    keys = np.ascontiguousarray(table[:, 0])
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise RecordError(f"{path}: the key {keys[twice[0]]} comes twice; make the .idx anew")
    return keys, np.ascontiguousarray(table[:, 1])


def read_list(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and first labels of a ``.lst`` file, as they stand there: int64 [n] each.

    Raises:
        RecordError: the file cannot be read, or a line is not ``KEY<tab>LABEL...<tab>PATH``.
    """
    keys, labels = array("q"), array("q")  # a list of numbers would take five times as much
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                fields = line.split(b"\t")
                try:
                    key, label = int(fields[0]), float(fields[1])
                except (ValueError, IndexError):
                    key, label = -1, -1.0
                if (
                    len(fields) < 3
                    or not 0 <= key < 1 << 62
                    or not 0 <= label < 1 << 62
                    or not label.is_integer()
                ):
                    raise RecordError(
                        f"{path}, line {number}: {line[:60]!r}; expected a key, a class and a path, separated by tabs"
                    )
                keys.append(key)
                labels.append(int(label))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    found = np.array(keys, np.int64)
    if len(np.unique(found)) < len(found):
        raise RecordError(f"{path}: a key comes twice")
    return found, np.array(labels, np.int64)
