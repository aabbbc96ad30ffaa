"""What the daemon and its worker say to each other: MessagePack over a socket pair, checked before it is believed."""

import math
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from agent.adaptation.rise import HIGHEST
from agent.adaptation.types import Norms, Proposal
from agent.config import AdaptationSettings
from engines.errors import UserError

LONGEST = 16 * 2**20
"""Bytes that a message may have: the norm parameters of the largest networks need less."""

_LENGTH = struct.Struct("<I")
_CHUNK, _CHUNKS = 1 << 16, 16  # bytes read at once, and how often in a row, however much somebody says
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_:]{1,64}$")]
Name = Annotated[str, Meta(max_length=200)]


class MessageError(UserError):
    """What was received is not a message, or says what cannot be."""


class Begin(Struct, frozen=True, tag="begin"):
    """To the worker, first: what to adapt, and how.

    Attributes:
        face: file of the face network.
        ring: descriptor of the ring.
        side: width and height of a chip, pixels.
        labels: number of expressions.
        slots: of the ring.
        settings: as configured.
        epoch: of the samples that count.
        seed: of all that is drawn at random.
    """

    face: str
    ring: int
    side: int
    labels: int
    slots: int
    settings: AdaptationSettings
    epoch: int
    seed: int = 0


class Reset(Struct, frozen=True, tag="reset"):
    """To the worker: forget all and begin at the source; samples of other epochs do not count any more."""

    reason: str
    epoch: int


class Beat(Struct, frozen=True, tag="beat"):
    """To the daemon, several times a second.

    Attributes:
        busy_s: how long the worker has been at one and the same decision, or at its beginning; 0 between decisions.
        ready: it has begun.
    """

    busy_s: Annotated[float, Meta(ge=0)]
    ready: bool


class Values(Struct, frozen=True):
    """An array of float32, little-endian."""

    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=1 << 20)], ...], Meta(max_length=4)]
    data: bytes


class Decided(Struct, frozen=True, tag="decided"):
    """To the daemon: a proposal.

    Attributes:
        epoch: of the samples that it rests on.
        accepted: as of ``Proposal``; so are ``norms``, ``reason``, ``figures`` and ``rise``.
        seconds: how long the decision took.
    """

    epoch: int
    accepted: bool
    reason: Code
    seconds: Annotated[float, Meta(ge=0)]
    norms: Annotated[dict[Name, Values], Meta(max_length=10_000)] = field(default_factory=dict)
    figures: Annotated[dict[Name, float], Meta(max_length=200)] = field(default_factory=dict)
    rise: Annotated[float, Meta(ge=0, le=HIGHEST)] = 0.0


class Failed(Struct, frozen=True, tag="failed"):
    """To the daemon, last: the worker ends, for this reason."""

    message: Annotated[str, Meta(max_length=2000)]


FromDaemon = Begin | Reset
FromWorker = Beat | Decided | Failed

to_daemon: "msgspec.msgpack.Decoder[FromWorker]" = msgspec.msgpack.Decoder(FromWorker)
to_worker: "msgspec.msgpack.Decoder[FromDaemon]" = msgspec.msgpack.Decoder(FromDaemon)


def frame(message: FromDaemon | FromWorker) -> bytes:
    """A message as bytes, its length before it."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


class Inbox:
    """Puts together what comes in through a socket, in whatever pieces."""

    def __init__(self, longest: int = LONGEST) -> None:
        """Refuse messages of more than ``longest`` bytes."""
        self._longest = longest
        self._bytes = bytearray()

    def receive(self, end: socket.socket) -> bool:
        """Take in some of what has come, without waiting; False when nothing will come any more."""
        for _ in range(_CHUNKS):
            try:
                piece = end.recv(_CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not piece:
                return False
            self._bytes += piece
        return True

    def bodies(self) -> Iterator[bytes]:
        """Every whole message that is here.

        Raises:
            MessageError: one is too long.
        """
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > self._longest:
                raise MessageError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield body


def from_worker(body: bytes) -> FromWorker:
    """What a worker has said.

    Raises:
        MessageError: it is no message.
    """
    try:
        return to_daemon.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not a message: {error}") from error


def decided(proposal: Proposal, epoch: int, seconds: float) -> Decided:
    """A proposal as a message."""
    norms = {
        name: Values(value.shape, np.ascontiguousarray(value, "<f4").tobytes())
        for name, value in proposal.norms.items()
    }
    return Decided(epoch, proposal.accepted, proposal.reason, seconds, norms, proposal.figures, proposal.rise)


def norms_of(message: Decided, source: Mapping[str, NDArray[np.float32]]) -> Norms:
    """The norm parameters that a worker proposes, each float32 [channels].

    Args:
        message: what it has said.
        source: all norm parameters that there are.

    Raises:
        MessageError: one does not exist, has another size than the source's, or is not finite.
    """
    norms: Norms = {}
    for name, values in message.norms.items():
        if name not in source:
            raise MessageError(f"the network has no norm parameter {name[:80]!r}")
        size = source[name].size
        if math.prod(values.shape) != size or len(values.data) != 4 * size:
            raise MessageError(f"{name} has {size} channels, not {values.shape} in {len(values.data)} bytes")
        norms[name] = np.frombuffer(values.data, "<f4").astype(np.float32)
        if not np.isfinite(norms[name]).all():
            raise MessageError(f"{name} has values that are not finite")
    return norms


def figures_of(message: Decided) -> dict[str, float]:
    """The figures of a proposal that are numbers, rounded to what means something."""
    return {name: round(value, 6) for name, value in message.figures.items() if math.isfinite(value)}
