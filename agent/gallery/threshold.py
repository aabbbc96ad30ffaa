"""Which threshold is in force. The more people are enrolled, the higher it must be: a stranger has more chances."""

from dataclasses import dataclass
from typing import Literal

from agent.config import Identity
from agent.gallery.store import Gallery
from agent.gallery.types import Calibration
from engines.pack import FaceModel, Manifest, Steps

Source = Literal["identity.threshold", "calibration", "pack"]
_WORDS: dict[Source, str] = {
    "identity.threshold": "set by identity.threshold",
    "calibration": "measured for this gallery",
    "pack": "from the pack",
}


@dataclass(frozen=True, slots=True)
class InForce:
    """A threshold, and where it comes from.

    Attributes:
        value: least cosine of a known person.
        source: the configuration's key; what was measured and is stored with the gallery; or the pack.
        people: how many are enrolled.
        most: how many it was chosen for at most; None where nothing is said about that.
    """

    value: float
    source: Source
    people: int
    most: int | None

    @property
    def outgrown(self) -> bool:
        """More people are enrolled than it was chosen for: strangers are named more often than was promised."""
        return self.most is not None and self.people > self.most

    @property
    def words(self) -> str:
        """The same for people."""
        size = "" if self.most is None else f", chosen for at most {self.most} enrolled"
        return f"{self.value:.4f}, {_WORDS[self.source]}{size}"


def in_force(settings: Identity, face: FaceModel, people: int, measured: Calibration | None) -> InForce:
    """The threshold for a gallery.

    What the configuration says goes before what was measured for the gallery, and that before what the pack brings.

    Args:
        settings: the configuration's.
        face: the face network of the pack that runs.
        people: how many are enrolled with this pack.
        measured: for this pack and stored with the gallery, if anything was.
    """
    if settings.threshold is not None:
        return InForce(settings.threshold, "identity.threshold", people, None)
    if measured is not None:
        return _step(measured.steps or ((1, measured.threshold),), people, "calibration")
    return _step(face.steps or ((1, face.threshold),), people, "pack")


def of_gallery(settings: Identity, manifest: Manifest, gallery: Gallery) -> InForce:
    """The threshold that an agent with this pack uses for a gallery.

    Raises:
        GalleryError: the gallery cannot be read.
    """
    people = sum(manifest.digest in person.packs for person in gallery.people())
    return in_force(settings, manifest.face, people, gallery.calibration(manifest.digest))


def _step(steps: Steps, people: int, source: Source) -> InForce:
    """The threshold for the smallest gallery that holds so many people; beyond the largest, the largest's."""
    most, threshold = next((step for step in steps if step[0] >= people), steps[-1])
    return InForce(threshold, source, people, most)
