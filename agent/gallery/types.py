"""The values of the gallery."""

import unicodedata
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Float32, Quality
from engines.errors import UserError

LONGEST_NAME = 64


class GalleryError(UserError):
    """The gallery cannot do what was asked; the message names the file or the person, and the remedy."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a person that is worth keeping.

    Attributes:
        embedding: float32 [dim] of length 1.
        quality: of the face that it was computed from.
    """

    embedding: Float32
    quality: Quality


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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The gallery as matching sees it. It never changes: a new gallery is a new snapshot.

    Attributes:
        names: everybody who can be recognised.
        templates: float32 [n, dim], rows of length 1, contiguous; a person's rows are neighbours.
        owners: intp [n], ascending: whose row it is, as an index into ``names``.
        skipped: how many samples were left out because another pack made them.
    """

    names: tuple[str, ...] = ()
    templates: Float32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    owners: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    skipped: int = 0


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
