"""A plan on disk: what TensorRT built, together with everything that it depends on.

TensorRT trusts the bytes that it is given; a damaged or foreign plan can end the process. So a plan is wrapped: magic,
key (JSON), payload, and a SHA-256 over all of it. Nothing reaches TensorRT before the digest fits and the key is the
one that this machine wants.

    8 bytes   magic, with the version of this format
    4 bytes   length of the key, little endian
    8 bytes   length of the payload, little endian
    32 bytes  SHA-256 of the two lengths, the key and the payload
    …         the key, then the payload
"""

import hashlib
import struct
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from engines.engine import EngineError
from engines.precision import Precision
from engines.sources.storage import write_file

Library = Literal["tensorrt", "tensorrt-rtx"]
Trouble = Literal["missing", "unreadable", "not_a_plan", "truncated", "damaged", "other", "refused"]

MAGIC = b"CBNSPLN1"
_HEAD = struct.Struct("<8sIQ32s")
_LONGEST_KEY = 64 * 1024


class PlanError(EngineError):
    """A plan cannot be used; the message names the file and the remedy.

    Attributes:
        trouble: ``missing``; ``unreadable`` (the file system says no); ``not_a_plan`` (wrong magic); ``truncated``;
            ``damaged`` (the digest does not fit); ``other`` (made for something else); ``refused`` (by TensorRT).
        differences: what the plan was made for and what is wanted, by the name of the key's field.
    """

    def __init__(
        self, trouble: Trouble, message: str, differences: dict[str, tuple[object, object]] | None = None
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.differences = differences or {}


class PlanKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a plan depends on. A plan with another key is another plan.

    Attributes:
        onnx: SHA-256 of the ONNX file that it was built from.
        library: who built it.
        version: version of that library.
        device: name of the GPU; empty where it was built ahead of time, for every GPU of the capability.
        capability: compute capability of the GPU, such as ``8.7``.
        precision: what its products run in.
        dims: sizes that its open dimensions were given.
        refittable: names of the norm parameters that may be exchanged; empty where the library could not promise it.
        flags: settings of the builder that change the result.
    """

    onnx: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    library: Library
    version: str
    device: str
    capability: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]\Z")]
    precision: Precision
    dims: dict[str, int]
    refittable: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class Plan(Struct, frozen=True):
    """A plan whose digest fits its key and payload."""

    key: PlanKey
    payload: bytes


def write_plan(file: Path, plan: Plan) -> None:
    """Put a plan in its place. After a power cut ``file`` holds the new plan or what it held before.

    Raises:
        PlanError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, encode(plan))
    except OSError as error:
        raise PlanError("unreadable", f"{file}: {error.strerror}; make the folder writable") from error


def read_plan(file: Path) -> Plan:
    """The plan in ``file``, verified.

    Raises:
        PlanError: there is none, or it is not whole.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise PlanError("missing", f"{file}: no such plan; `cabinsense models build` makes it") from None
    except OSError as error:
        raise PlanError(
            "unreadable", f"{file}: {error.strerror}; it and its folder must belong to the user who runs this"
        ) from error
    return decode(data, str(file))


def encode(plan: Plan) -> bytes:
    """A plan as the bytes of its file."""
    key = msgspec.json.encode(plan.key, order="deterministic")
    digest = _digest(key, plan.payload)
    return _HEAD.pack(MAGIC, len(key), len(plan.payload), digest) + key + plan.payload


def decode(data: bytes, name: str) -> Plan:
    """The plan in ``data``; ``name`` is what errors call it.

    Raises:
        PlanError: ``not_a_plan``, ``truncated`` or ``damaged``.
    """
    again = "; `cabinsense models build` makes it anew"
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data[: len(MAGIC)]):
            raise PlanError("truncated", f"{name}: ends after {len(data)} bytes{again}")
        raise PlanError("not_a_plan", f"{name}: not a plan of this version of cabinsense{again}")
    if len(data) < _HEAD.size:
        raise PlanError("truncated", f"{name}: ends after {len(data)} bytes{again}")
    _, key_size, payload_size, digest = _HEAD.unpack_from(data)
    whole = _HEAD.size + key_size + payload_size
    if len(data) < whole and key_size <= _LONGEST_KEY:
        raise PlanError("truncated", f"{name}: has {len(data)} of {whole} bytes{again}")
    body = memoryview(data)[_HEAD.size :]
    key, payload = body[:key_size], body[key_size:]
    if len(data) != whole or _digest(key, payload) != digest:
        raise PlanError("damaged", f"{name}: is not what was written; its digest does not fit{again}")
    try:
        return Plan(msgspec.json.decode(key, type=PlanKey), bytes(payload))
    except msgspec.MsgspecError as error:
        raise PlanError("not_a_plan", f"{name}: its key is not understood: {error}{again}") from error


def check_key(found: PlanKey, wanted: PlanKey, name: str) -> None:
    """Raise unless a plan was made for just this model, library and device.

    A plan that was built ahead of time names no device and serves all of its capability. Whether it can be refitted is
    the plan's own affair: the builder promises it where it can.

    Raises:
        PlanError: ``other``, with the differences.
    """
    differences = {
        field: (getattr(found, field), getattr(wanted, field))
        for field in PlanKey.__struct_fields__
        if field != "refittable" and getattr(found, field) != getattr(wanted, field)
    }
    if found.device == "":
        differences.pop("device", None)
    if differences:
        told = ", ".join(f"{field} is {a!r}, wanted {b!r}" for field, (a, b) in differences.items())
        raise PlanError(
            "other",
            f"{name}: made for something else: {told}; `cabinsense models build` makes it anew",
            differences,
        )


def remedy(trouble: Trouble, *, can_build: bool, rebuilt: bool) -> Literal["rebuild", "report"]:
    """What to do about a plan that cannot be used.

    Args:
        trouble: what is the matter.
        can_build: the library and the device that the plan is for are here.
        rebuilt: it has been built anew already, so that building once more would end the same way.
    """
    if trouble == "unreadable" or rebuilt or not can_build:
        return "report"
    return "rebuild"


def _digest(key: bytes | memoryview, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(struct.pack("<IQ", len(key), len(payload)))
    digest.update(key)
    digest.update(payload)
    return digest.digest()
