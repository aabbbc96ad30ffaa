"""The values of the gallery."""

import unicodedata
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Float32, Quality
from engines.errors import UserError
from engines.pack import Steps

LONGEST_NAME = 64
Action = Literal[
    "enrol", "add", "re-enrol", "rename", "delete", "reject", "calibrate", "export", "import", "rotate-key"
]
"""What the audit knows."""


class GalleryError(UserError):
    """The gallery cannot do what was asked; the message names the file or the person, and the remedy."""

    def __init__(self, message: str, unnamed: str = "") -> None:
        """``unnamed`` is the message without the name of a person, for those that may get into a log."""
        super().__init__(message)
        self._unnamed = unnamed or message

    @property
    def unnamed(self) -> str:
        """The message for a log, which is to name no person."""
        return self._unnamed


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a person that is worth keeping.

    Attributes:
        embedding: float32 [dim] of length 1.
        quality: of the face that it was computed from.
        source: absolute path of the image that it came from; None from a camera.
    """

    embedding: Float32
    quality: Quality
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A person in the gallery.

    Attributes:
        name: unique.
        created: when the person was enrolled, UTC, RFC 3339.
        samples: how many samples there are.
        packs: digests of the packs that made them.
    """

    name: str
    created: str
    samples: int
    packs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredSample:
    """What is told about a sample; the embedding itself is not.

    Attributes:
        created: when it was stored, UTC, RFC 3339.
        pack: digest of the pack that made it.
        size: distance between the eyes in frame pixels.
        sharpness: variance of the chip's Laplacian.
        brightness: mean luma of the chip, 0 to 255.
        contrast: standard deviation of the chip's luma.
        yaw: turn of the head, degrees.
        pitch: nod of the head, degrees.
        roll: tilt of the head, degrees.
        source: path of the image that it came from; None from a camera.
    """

    created: str
    pack: str
    size: float
    sharpness: float
    brightness: float
    contrast: float
    yaw: float
    pitch: float
    roll: float
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A decision threshold that was measured, and how. The figures are about single looks, not about tracks.

    Attributes:
        pack: digest of the pack that made the embeddings of the pairs.
        threshold: least cosine of a known person.
        far_target: share of impostor pairs that may be accepted, 0 to 1.
        far: share of those of the measurement that the threshold accepts.
        tar: share of genuine pairs that it accepts.
        tar_interval: lower and upper bound of ``tar``, by bootstrap.
        pairs: what was compared, for people: the source, and how many pairs of each kind.
        created: when it was stored, UTC, RFC 3339; the gallery fills it in.
        steps: the threshold by the number of people enrolled, as in ``FaceModel.steps``; empty: ``threshold``, which
            is then for one.
    """

    pack: str
    threshold: float
    far_target: float
    far: float
    tar: float
    tar_interval: tuple[float, float]
    pairs: str
    created: str = ""
    steps: Steps = ()


@dataclass(frozen=True, slots=True)
class Note:
    """A row of the audit. It names nobody, so that it may outlast a person.

    Attributes:
        at: UTC, RFC 3339.
        action: what was done.
        person: uid of the person, 32 hexadecimal digits; None if it was not about one.
        count: how many samples, anchors, people or seals it was about, or None.
    """

    at: str
    action: Action
    person: str | None
    count: int | None


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that the gallery has made.

    Attributes:
        path: of its file, absolute.
        created: UTC, RFC 3339.
        people: how many are in it.
        gone: how many of those were deleted and could not be taken out of it yet.
    """

    path: str
    created: str
    people: int
    gone: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The gallery as matching sees it. It never changes: a new gallery is a new snapshot.

    Attributes:
        names: everybody who can be recognised.
        templates: float32 [n, dim], rows of length 1, contiguous; a person's rows are neighbours.
        owners: intp [n], ascending: whose row it is, as an index into ``names``.
        skipped: how many samples were left out because another pack made them.
        anchors: float32 [m, dim], rows of length 1, contiguous: faces that were marked as not being a person.
        anchor_owners: intp [m], ascending: whom such a face is not, as an index into ``names``.
        calibrated: the threshold that was measured for the snapshot's pack; None if none was.
    """

    names: tuple[str, ...] = ()
    templates: Float32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    owners: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    skipped: int = 0
    anchors: Float32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    anchor_owners: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    calibrated: Calibration | None = None


def person_name(text: str) -> str:
    """``text`` as the gallery writes a name: without surrounding space, in Unicode's composed form (NFC).

    Raises:
        GalleryError: it is empty, too long, or holds characters that cannot be seen.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not name:
        raise GalleryError("a person's name must not be empty")
    if len(name) > LONGEST_NAME:
        raise GalleryError(f"a name of {len(name)} characters is too long; use at most {LONGEST_NAME}")
    for character in name:
        if not character.isprintable():
            raise GalleryError(
                f"the name {name!r} holds the unprintable character U+{ord(character):04X}; leave it out"
            )
    return name
