"""Which threshold is in force. The more people are enrolled, the higher it must be: a stranger has more chances."""

from dataclasses import dataclass
from typing import Literal

from agent.config import Identity
from agent.gallery.types import Snapshot
from engines.pack import FaceModel, Steps

Source = Literal["identity.threshold", "calibration", "pack"]


@dataclass(frozen=True, slots=True)
class InForce:
    """A threshold, and where it comes from.

    Attributes:
        value: least cosine of a known person.
        source: the configuration's key; what was measured and is stored with the gallery; or the pack.
        people: the largest gallery it was chosen for; None where nothing is said about that.
    """

    value: float
    source: Source
    people: int | None

    def outgrown(self, people: int) -> bool:
        """More people are enrolled than it was chosen for: strangers are named more often than was promised."""
        return self.people is not None and people > self.people


def in_force(settings: Identity, snapshot: Snapshot, face: FaceModel) -> InForce:
    """The threshold for a gallery.

    What the configuration says goes before what was measured for the gallery, and that before what the pack brings.

    Args:
        settings: the configuration's.
        snapshot: of the gallery, for the pack that runs; so are its people and what was measured for it.
        face: the face network of that pack.
    """
    if settings.threshold is not None:
        return InForce(settings.threshold, "identity.threshold", None)
    people = max(1, len(snapshot.names))
    measured = snapshot.calibrated
    if measured is not None:
        return _step(measured.steps or ((1, measured.threshold),), people, "calibration")
    return _step(face.steps or ((1, face.threshold),), people, "pack")


def _step(steps: Steps, people: int, source: Source) -> InForce:
    """The threshold for the smallest gallery that holds so many people; beyond the largest, the largest's."""
    most, threshold = next((step for step in steps if step[0] >= people), steps[-1])
    return InForce(threshold, source, most)
