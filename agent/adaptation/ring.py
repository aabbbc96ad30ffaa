"""A ring of chips in memory that the daemon writes and the worker process reads. Nobody waits, nothing is on a disk.

The memory is a ``memfd``: it has no name in the file system that could be left behind, and it is gone with the last
process that has it open, however that ended. It cannot be made smaller, so nobody can take it from under the other.

The writer never waits: what the reader has not taken in time is written over. Each slot therefore carries the number
of its sample and a checksum of all it holds. A slot that is being written over, or whose bytes another core has not
seen in the order in which they were written, does not agree with itself, and is left out.
"""

import fcntl
import mmap
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from agent.adaptation.types import Sample

SLOTS = 64
"""Samples that may wait for the worker: seconds of them, while it decides."""

_NUMBER = struct.Struct(
    "<Q"
)  # at the start of the ring: samples written; of a slot: its sample's number, from 1
_SLOT = struct.Struct("<QQQqdI")  # number, again in the checksum: number, epoch, track, at, checksum
_FLOAT = np.dtype("<f4")
_PAGE = 64  # bytes before the first slot, and what slots are rounded up to: a line of the cache
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class Shape:
    """What a ring holds.

    Attributes:
        side: width and height of a chip, pixels.
        labels: probabilities of a sample.
        slots: samples that it holds.
    """

    side: int
    labels: int
    slots: int = SLOTS

    @property
    def chip_bytes(self) -> int:
        """Bytes of a chip."""
        return self.side * self.side * 3

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot."""
        content = _SLOT.size + self.labels * _FLOAT.itemsize + self.chip_bytes
        return -(-content // _PAGE) * _PAGE

    @property
    def ring_bytes(self) -> int:
        """Bytes of the whole."""
        return _PAGE + self.slots * self.slot_bytes


class RingWriter:
    """The daemon's end. Not thread-safe.

    Attributes:
        file: descriptor of the memory, for the reader.
        shape: what the ring holds.
        written: samples so far.
    """

    def __init__(self, shape: Shape) -> None:
        """Reserve the memory."""
        self.shape = shape
        self.written = 0
        self.file = os.memfd_create("cabinsense-chips", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.file, shape.ring_bytes)
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, _SEALS)
            self._memory = mmap.mmap(self.file, shape.ring_bytes)
        except BaseException:
            os.close(self.file)
            raise

    def put(self, sample: Sample, epoch: int) -> None:
        """Write a sample over the oldest one.

        Args:
            sample: its chip is copied.
            epoch: which run of the adaptation it is for.

        Raises:
            ValueError: it does not have the shape of the ring.
        """
        shape, memory = self.shape, self._memory
        if sample.chip.shape != (shape.side, shape.side, 3) or len(sample.probabilities) != shape.labels:
            raise ValueError(f"a sample of {sample.chip.shape} does not fit into a ring of {shape}")
        number = self.written + 1
        start = _PAGE + self.written % shape.slots * shape.slot_bytes
        payload = np.array(sample.probabilities, _FLOAT).tobytes() + sample.chip.tobytes()
        fields = number, epoch, sample.track, sample.at
        _NUMBER.pack_into(memory, start, 0)
        memory[start + _SLOT.size : start + _SLOT.size + len(payload)] = payload
        _SLOT.pack_into(memory, start, 0, *fields, _checksum(fields, payload))
        _NUMBER.pack_into(memory, start, number)
        self.written = number
        _NUMBER.pack_into(memory, 0, number)

    def close(self) -> None:
        """Give the memory back; a reader that is still there keeps it until it ends."""
        self._memory.close()
        os.close(self.file)


class RingReader:
    """The worker's end. Not thread-safe.

    Attributes:
        lost: samples that were written over before they were read, or were just being.
    """

    def __init__(self, file: int, shape: Shape) -> None:
        """Read the memory of descriptor ``file``.

        Raises:
            ValueError: it does not have the size of ``shape``.
        """
        if os.fstat(file).st_size != shape.ring_bytes:
            raise ValueError(f"a ring of {shape} has {shape.ring_bytes} bytes, not {os.fstat(file).st_size}")
        self.lost = 0
        self._shape = shape
        self._memory = mmap.mmap(file, shape.ring_bytes, prot=mmap.PROT_READ)
        self._next = 1

    def take(self) -> tuple[Sample, int] | None:
        """The oldest sample that is still there, and its epoch; None when there is nothing new."""
        while self._next <= (written := self._number(0)):
            oldest = max(self._next, written - self._shape.slots + 1)
            self.lost += oldest - self._next
            self._next = oldest + 1
            found = self._read(oldest)
            if found is not None:
                return found
            self.lost += 1
        return None

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()

    def _number(self, offset: int) -> int:
        (number,) = _NUMBER.unpack_from(self._memory, offset)
        return int(number)

    def _read(self, number: int) -> tuple[Sample, int] | None:
        """The sample of this number; None when its slot holds something else, or halves of two."""
        shape = self._shape
        start = _PAGE + (number - 1) % shape.slots * shape.slot_bytes
        copy = self._memory[start : start + shape.slot_bytes]
        first, *fields, checksum = _SLOT.unpack_from(copy)
        end = _SLOT.size + shape.labels * _FLOAT.itemsize + shape.chip_bytes
        payload = copy[_SLOT.size : end]
        if first != number or fields[0] != number or checksum != _checksum(tuple(fields), payload):
            return None
        _, epoch, track, at = fields
        probabilities = np.frombuffer(payload, _FLOAT, shape.labels)
        chip = np.frombuffer(payload, np.uint8, offset=probabilities.nbytes)
        return Sample(
            chip.reshape(shape.side, shape.side, 3), tuple(probabilities.tolist()), track, at
        ), epoch


def _checksum(fields: tuple[int, int, int, float], payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QQqd", *fields)))
