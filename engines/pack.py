"""A pack: models that belong together, in a folder with a manifest (``pack.toml``) and a digest of each file."""

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from engines.errors import UserError

MANIFEST = "pack.toml"
SCHEMA = 1

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Coordinate = Annotated[float, Meta(ge=0, le=1024)]
Stride = Annotated[int, Meta(ge=1, le=256)]
Length = Annotated[float, Meta(gt=0, le=4096)]
Threshold = Annotated[float, Meta(ge=-1, le=1)]
Steps = tuple[tuple[Annotated[int, Meta(ge=1)], Threshold], ...]
"""Thresholds by the size of the gallery: the most people it may hold, rising, and the least cosine of a known one."""
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=128)]


class PackError(UserError):
    """A pack is missing, damaged or not understood; the message names the file and the remedy."""


class Model(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ONNX file of a pack, and where it comes from."""

    file: FileName
    sha256: Sha256
    licence: str
    source: str


class Anchors(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The boxes from which a detector's map of one stride measures those that it finds.

    Attributes:
        stride: input pixels between two places of the map; the first is at half a stride.
        sizes: width and height of each anchor, input pixels; the same at every place.
    """

    stride: Stride
    sizes: Annotated[tuple[tuple[Length, Length], ...], Meta(min_length=1, max_length=32)]


class DetectorModel(Model, frozen=True, kw_only=True):
    """A detector: uint8 BGR image in, output maps read by the decoder named here.

    Attributes:
        decoder: a name in ``agent.perception.detector.DECODERS``.
        stride: the input's sides must be multiples of this.
        anchors: of a decoder that needs them, the strides rising.
    """

    decoder: str
    stride: Stride = 32
    anchors: Annotated[tuple[Anchors, ...], Meta(max_length=8)] = ()

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        strides = [each.stride for each in self.anchors]
        if strides != sorted(set(strides)):
            raise ValueError("the strides of the anchors must rise")
        if any(self.stride % stride for stride in strides):
            raise ValueError(f"stride = {self.stride} must be a multiple of the stride of all anchors")


class FaceModel(Model, frozen=True, kw_only=True):
    """A face network: input ``chip`` uint8 BGR [N, side, side, 3], outputs ``embedding`` and ``emotion`` (logits).

    Attributes:
        side: side of the chip in pixels.
        template: where left eye, right eye, nose tip and the corners of the mouth lie in the chip, pixels.
        dim: length of the embedding.
        labels: the expressions, in the order of the ``emotion`` output.
        threshold: cosine from which two faces are one person, chosen as ``threshold_basis`` says.
        threshold_basis: data and false acceptance rate behind the threshold.
        steps: least cosine of a known person, by the number of people enrolled; empty: ``threshold`` for any number.
        steps_basis: data and false-positive rate behind the steps.
    """

    side: Annotated[int, Meta(ge=16, le=1024)]
    template: Annotated[tuple[tuple[Coordinate, Coordinate], ...], Meta(min_length=5, max_length=5)]
    dim: Annotated[int, Meta(ge=1, le=4096)]
    labels: Annotated[tuple[str, ...], Meta(min_length=2)]
    threshold: Threshold
    threshold_basis: str
    steps: Steps = ()
    steps_basis: str = ""

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        sizes = [people for people, _ in self.steps]
        if sizes != sorted(set(sizes)):
            raise ValueError("steps must rise in the number of people")


class LandmarkModel(Model, frozen=True, kw_only=True):
    """A landmark network: input ``chip`` uint8 BGR [N, side, side, 3], output ``points`` float32 [N, 10].

    The chip shows the square about a face's box; the points are x and y of left eye, right eye, nose tip and the
    corners of the mouth, as seen, in the chip's pixels.

    Attributes:
        side: side of the chip in pixels.
        margin: of the square on each side, in parts of the box's longer side.
    """

    side: Annotated[int, Meta(ge=16, le=1024)]
    margin: Annotated[float, Meta(ge=0, le=2)]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of ``pack.toml``.

    Attributes:
        recipe: digest of what made the pack, where it was made by a recipe; another recipe would make another pack.
        landmarks: tells where the landmarks of each face lie; without it the detector does.
        adaptation: the norm bank for ``face``, see ``agent.adaptation.bank``; a pack without one cannot adapt.
    """

    schema: int
    name: str
    recipe: str = ""
    detector: DetectorModel
    face: FaceModel
    landmarks: LandmarkModel | UnsetType = UNSET
    adaptation: Model | UnsetType = UNSET

    @property
    def digest(self) -> str:
        """Names the embedding space: SHA-256 over all that decides what embedding a face gets, as 64 hex digits.

        Two packs of one digest may share a gallery; a new threshold or a better licence text changes nothing here.
        """
        decisive: dict[str, object] = {
            "detector": self.detector.sha256,
            "decoder": self.detector.decoder,
            "face": self.face.sha256,
            "template": self.face.template,
        }
        if self.landmarks is not UNSET:
            decisive["landmarks"] = (self.landmarks.sha256, self.landmarks.margin)
        if self.detector.anchors:
            decisive["anchors"] = self.detector.anchors
        return hashlib.sha256(msgspec.json.encode(decisive, order="sorted")).hexdigest()


class Pack(Struct, frozen=True):
    """A verified pack: its folder and manifest."""

    path: Path
    manifest: Manifest

    @property
    def detector(self) -> Path:
        """The detector's file."""
        return self.path / self.manifest.detector.file

    @property
    def face(self) -> Path:
        """The face network's file."""
        return self.path / self.manifest.face.file

    @property
    def landmarks(self) -> Path | None:
        """The landmark network's file, if the pack has one."""
        model = self.manifest.landmarks
        return None if model is UNSET else self.path / model.file

    @property
    def bank(self) -> Path | None:
        """The norm bank's file, if the pack has one."""
        model = self.manifest.adaptation
        return None if model is UNSET else self.path / model.file


def read_manifest(path: Path) -> Manifest:
    """The manifest of the pack in folder ``path``.

    Raises:
        PackError: there is none, or it is not understood.
    """
    file = path / MANIFEST
    try:
        manifest = msgspec.toml.decode(file.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise PackError(
            f"{path}: no pack here ({MANIFEST} is missing); `cabinsense models fetch` makes the default one"
        ) from None
    except OSError as error:
        raise PackError(f"{file}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise PackError(f"{file}: {error}") from error
    if manifest.schema != SCHEMA:
        raise PackError(f"{file}: schema {manifest.schema}; this version reads schema {SCHEMA}")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of ``pack.toml`` for a manifest."""
    return msgspec.toml.encode(manifest)


def verify(path: Path) -> Pack:
    """The pack in folder ``path``, after every file's digest has been checked.

    Raises:
        PackError: the manifest is missing or wrong, or a file is missing or has another digest.
    """
    manifest = read_manifest(path)
    for model in (manifest.detector, manifest.face, manifest.landmarks, manifest.adaptation):
        if model is UNSET:
            continue
        found = file_digest(path / model.file)
        if found != model.sha256:
            raise PackError(
                f"{path / model.file}: SHA-256 is {found}, the manifest says {model.sha256}; the file is not the one "
                "that was released. `cabinsense models fetch --force` makes the default pack anew"
            )
    return Pack(path, manifest)


def no_bank(pack: Pack) -> str:
    """What to say of a pack that has no norm bank where one is needed."""
    return (
        f"{pack.path}: the pack has no norm bank; `cabinsense models fetch --force` makes the default pack with one, "
        "for another set adaptation.tier to off or run `cabinsense calibrate conditions`"
    )


def file_digest(file: Path) -> str:
    """SHA-256 of a file as 64 hex digits.

    Raises:
        PackError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise PackError(
            f"{file}: {error.strerror}; `cabinsense models fetch --force` makes the default pack anew"
        ) from error
