"""The format of a backup: bytes that a passphrase opens on any board, and the gallery's own key on this one.

    8 bytes   CBNSBAK1
    4 bytes   length of the header, big endian
    header    MessagePack, see ``Header``
    the rest  what is kept, MessagePack, sealed with a key of its own; the seal is about all bytes before it

That key stands in the header twice: sealed with one that scrypt makes of the passphrase (RFC 7914), and sealed with the
gallery's, so that the gallery can take somebody out of a backup that it has made. Everything is checked before it is
used: the header's sizes and the cost of scrypt are bounded, for whoever hands over a file chooses them.
"""

import os
import struct
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta, Struct

from agent.gallery.book import Anchor, Kept
from agent.gallery.keys import Key, new_key
from agent.gallery.sealing import NONCE, TAG, Sealer, TamperedError
from agent.gallery.types import Calibration, GalleryError, Sample, person_name
from agent.gallery.vectors import from_bytes, to_bytes
from agent.perception.types import Pose, Quality

MAX_BYTES = 256 * 2**20
"""Of a backup: 7,000 people with 50 samples each."""
SHORTEST = 12
"""Characters of a passphrase: who has the file can try as many as they can pay for."""
_MAGIC = b"CBNSBAK1"
_PREFIX = struct.Struct(">8sI")
_MAX_HEADER = 1024
_WRAPPED = NONCE + 32 + TAG
_COST = (
    16,
    8,
    2,
)  # log2(n), r, p: 64 MiB and as much work as OWASP asks for (Password Storage Cheat Sheet, 2024)

_Uid = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Wrapped = Annotated[bytes, Meta(min_length=_WRAPPED, max_length=_WRAPPED)]
_Text = Annotated[str, Meta(max_length=256)]
_Time = Annotated[
    str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z")
]
_LONGEST_TEXT = 4096  # characters, as of a path on Linux
_Vector = Annotated[bytes, Meta(min_length=4, max_length=4 * 65536)]


class Header(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is needed to open a backup.

    Attributes:
        uid: the backup's own.
        salt: of the passphrase.
        cost: of scrypt; its n is two to this power.
        r: its block size.
        p: its parallelism.
        by_passphrase: the backup's key, sealed with what scrypt gives.
        key: id of the gallery's key.
        by_key: the backup's key, sealed with that.
    """

    uid: _Uid
    salt: _Uid
    cost: Annotated[int, Meta(ge=14, le=18)]
    r: Annotated[int, Meta(ge=8, le=8)]
    p: Annotated[int, Meta(ge=1, le=4)]
    by_passphrase: _Wrapped
    key: Annotated[str, Meta(min_length=16, max_length=16)]
    by_key: _Wrapped


class _Sample(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    embedding: _Vector
    pack: _Text
    created: _Time
    figures: tuple[float, float, float, float, float, float, float]
    source: Annotated[str, Meta(max_length=_LONGEST_TEXT)] | None


class _Anchor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    embedding: _Vector
    pack: _Text
    created: _Time


class _Person(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    uid: _Uid
    name: _Text
    created: _Time
    samples: Annotated[list[_Sample], Meta(min_length=1)]
    anchors: list[_Anchor]


class _Content(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    people: list[_Person]
    calibrations: list[Calibration]


_headers: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(Header)
_contents: msgspec.msgpack.Decoder[_Content] = msgspec.msgpack.Decoder(_Content)


@dataclass(frozen=True, slots=True)
class ArchivedPerson:
    """A person with all that is stored of them."""

    uid: bytes
    name: str
    created: str
    samples: tuple[Kept, ...]
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """An open backup.

    Attributes:
        people: who is in it.
        calibrations: the measured thresholds.
    """

    people: tuple[ArchivedPerson, ...]
    calibrations: tuple[Calibration, ...]
    _header: Header
    _secret: bytes = field(repr=False)

    @property
    def uid(self) -> bytes:
        """The backup's own."""
        return self._header.uid

    @property
    def key(self) -> str:
        """Id of the gallery's key that opens it."""
        return self._header.key

    def without(self, uids: Collection[bytes]) -> "Archive":
        """The same without these people; the same passphrase and key open it."""
        people = tuple(person for person in self.people if person.uid not in uids)
        return Archive(people, self.calibrations, self._header, self._secret)

    def rewrapped(self, key: Key) -> "Archive":
        """The same, opened by another key of the gallery; the passphrase stays."""
        by_key = Sealer(key.secret).close(self._secret, "backup key", self.uid)
        header = msgspec.structs.replace(self._header, key=key.id, by_key=by_key)
        return Archive(self.people, self.calibrations, header, self._secret)

    def packed(self) -> bytes:
        """The bytes of the file.

        Raises:
            GalleryError: they are more than can be read back.
        """
        content = _Content([_packed(person) for person in self.people], list(self.calibrations))
        header = msgspec.msgpack.encode(self._header)
        prefix = _PREFIX.pack(_MAGIC, len(header)) + header
        data = prefix + Sealer(self._secret).close(msgspec.msgpack.encode(content), "backup", prefix)
        if len(data) > MAX_BYTES:
            raise GalleryError(
                f"the gallery is too large for a backup of {MAX_BYTES >> 20} MiB; delete some people"
            )
        return data


def make(
    people: Sequence[ArchivedPerson], calibrations: Sequence[Calibration], passphrase: str, key: Key
) -> Archive:
    """A new backup, which ``passphrase`` and the gallery's ``key`` open.

    Raises:
        GalleryError: the passphrase is too short.
    """
    if len(passphrase) < SHORTEST:
        raise GalleryError(
            f"a passphrase of {len(passphrase)} characters is too short; use at least {SHORTEST}"
        )
    secret, uid, salt = new_key().secret, os.urandom(16), os.urandom(16)
    by_passphrase = Sealer(_stretched(passphrase, salt, *_COST)).close(secret, "backup key", uid)
    by_key = Sealer(key.secret).close(secret, "backup key", uid)
    header = Header(uid, salt, *_COST, by_passphrase, key.id, by_key)
    return Archive(tuple(people), tuple(calibrations), header, secret)


def uid_of(data: bytes) -> bytes:
    """The uid of the backup that ``data`` begins.

    Raises:
        GalleryError: it begins none.
    """
    return _header(data)[0].uid


def open_with_passphrase(data: bytes, passphrase: str) -> Archive:
    """Open a backup.

    Raises:
        GalleryError: it is none, the passphrase is another, or it was cut off or changed.
    """
    header, _ = _header(data)
    sealer = Sealer(_stretched(passphrase, header.salt, header.cost, header.r, header.p))
    try:
        secret = sealer.open(header.by_passphrase, "backup key", header.uid)
    except TamperedError:
        raise GalleryError(
            "the passphrase is wrong, or the file was changed; try again, or use a copy"
        ) from None
    return _opened(data, secret)


def open_with_key(data: bytes, keys: Sequence[Key]) -> Archive:
    """Open a backup that the gallery has made.

    Raises:
        GalleryError: it is none, none of the keys opens it, or it was cut off or changed.
    """
    header, _ = _header(data)
    for key in keys:
        if key.id == header.key:
            try:
                return _opened(data, Sealer(key.secret).open(header.by_key, "backup key", header.uid))
            except TamperedError:
                break
    raise GalleryError("it does not open with the gallery's key; only its passphrase opens it")


def _header(data: bytes) -> tuple[Header, int]:
    """The header of a backup, and where it ends."""
    try:
        magic, length = _PREFIX.unpack_from(data)
        end = _PREFIX.size + length
        if magic == _MAGIC and length <= _MAX_HEADER and len(data) >= end:
            return _headers.decode(data[_PREFIX.size : end]), end
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError):
        pass
    raise GalleryError("this is not a backup of a gallery, or only its beginning; use a copy")


def _opened(data: bytes, secret: bytes) -> Archive:
    header, end = _header(data)
    try:
        content = Sealer(secret).open(data[end:], "backup", data[:end])
    except TamperedError:
        raise GalleryError("the file was changed or cut off after it was made; use a copy") from None
    try:
        found = _contents.decode(content)
        _check_single(found)
        people = tuple(_unpacked(person) for person in found.people)
    except (msgspec.MsgspecError, ValueError, RecursionError, GalleryError) as error:
        raise GalleryError(
            f"it opens, but holds what no gallery exports ({error}); use another backup"
        ) from error
    return Archive(people, tuple(found.calibrations), header, secret)


def _check_single(content: _Content) -> None:
    """Refuse what is there twice, is no number, or is text that would do something to a terminal.

    Raises:
        ValueError: there is something.
    """
    for values in (
        [person.name for person in content.people],
        [person.uid for person in content.people],
        [each.pack for each in content.calibrations],
    ):
        if len(set(values)) < len(values):
            raise ValueError("somebody or a threshold is in it twice")
    for each in content.calibrations:
        rates = each.threshold, each.far_target, each.far, each.tar, *each.tar_interval
        if not all(map(isfinite, (*rates, *(threshold for _, threshold in each.steps)))):
            raise ValueError("a threshold is not a number")
        for text in (each.pack, each.pairs, each.created):
            if len(text) > _LONGEST_TEXT or _shown(text) != text:
                raise ValueError("a threshold whose description holds control characters, or is too long")


def _stretched(passphrase: str, salt: bytes, cost: int, r: int, p: int) -> bytes:
    """The key that a passphrase stands for, however a keyboard writes its letters."""
    return Scrypt(salt=salt, length=32, n=2**cost, r=r, p=p).derive(
        unicodedata.normalize("NFC", passphrase).encode()
    )


def _packed(person: ArchivedPerson) -> _Person:
    samples = []
    for kept in person.samples:
        quality, pose = kept.sample.quality, kept.sample.quality.pose
        figures = (quality.size, quality.sharpness, quality.brightness, quality.contrast)
        turned = (pose.yaw, pose.pitch, pose.roll)
        vector = to_bytes(kept.sample.embedding)
        samples.append(_Sample(vector, kept.pack, kept.created, (*figures, *turned), kept.sample.source))
    anchors = [_Anchor(to_bytes(anchor.embedding), anchor.pack, anchor.created) for anchor in person.anchors]
    return _Person(person.uid, person.name, person.created, samples, anchors)


def _shown(text: str) -> str:
    """``text`` without what a terminal would obey: control characters become U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) == "Cc" else each for each in text
    )


def _unpacked(person: _Person) -> ArchivedPerson:
    if person_name(person.name) != person.name:
        raise ValueError(f"the name {person.name!r}")
    packs = [each.pack for each in person.samples] + [each.pack for each in person.anchors]
    if any(_shown(pack) != pack for pack in packs):
        raise ValueError("a pack's digest holds control characters")
    samples = []
    for each in person.samples:
        if not all(map(isfinite, each.figures)):
            raise ValueError("a figure is not a number")
        size, sharpness, brightness, contrast, yaw, pitch, roll = each.figures
        quality = Quality(size, sharpness, brightness, contrast, Pose(yaw, pitch, roll))
        # A photograph's path may hold anything; it is for people to read, and nothing is opened by it.
        source = None if each.source is None else _shown(each.source)
        samples.append(Kept(Sample(from_bytes(each.embedding), quality, source), each.pack, each.created))
    anchors = tuple(Anchor(from_bytes(each.embedding), each.pack, each.created) for each in person.anchors)
    return ArchivedPerson(person.uid, person.name, person.created, tuple(samples), anchors)
