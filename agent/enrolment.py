"""Recording a person: which of the faces seen for a while become samples, and when none may.

The recorded face is the largest one before one camera, and stays the same one from the first sample on. Readings in
which somebody else sits just as close are not used, and samples that do not look like one person are refused, for a
sample of the wrong person cannot be told from a right one later.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.gallery.types import Sample
from agent.perception.types import Float32, Reading

SPACING_S = 0.2
"""Least time between two samples: neighbouring frames show the same, and would weigh one pose more than others."""
RIVAL = 0.5
"""A face is a rival of the largest from this part of its box's area on. Half the area is 1.4 times the distance:
somebody on the back seat is farther away, somebody on the seat beside is not."""
MARGIN = 0.04
"""How far below the pack's threshold samples of one recording may agree. Poses that differ cost a little; with the
default pack the floor is then about half-way between the mean cosine of one person (0.955) and of two (0.84). Among
good photographs of 60 people of LFW no pair of one person is below that floor, of those of two people 6 % are above.
"""

ADVICE = {
    "no_frames": "the camera delivers no pictures; `cabinsense events --topic health` says why",
    "no_face": "no face was seen; look towards the camera",
    "several_faces": "somebody else is as close to the camera; only one person may be",
    "person_changed": "the face was lost from sight, or somebody else came closer; stay in view, and record again",
    "several_people": "the samples do not look like one person; only one may be before the camera while it records",
    "poor_quality": "no face was good enough",
    "too_small": "the face is too small; come closer",
    "too_dark": "the face is too dark; get more light on it",
    "too_bright": "the face is too bright; get out of the glare",
    "low_contrast": "the face has too little contrast; see to the light and a clean lens",
    "blurred": "the face is blurred; hold still, and see to a clean lens",
    "turned_away": "the face is turned away; look towards the camera",
}
"""What to tell people about each code of a refusal and of ``agent.perception.quality``."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody was enrolled.

    Attributes:
        code: ``no_frames``: the camera delivered nothing. ``no_face``: nobody was seen. ``several_faces``: more than
            half of the readings with a face had a rival. ``person_changed``: after the first sample the largest face
            was on another track. ``several_people``: the samples disagree. ``poor_quality``: no face was good enough.
        detail: with ``poor_quality`` the commonest reason, a code of ``agent.perception.quality``; else empty.
    """

    code: str
    detail: str = ""

    @property
    def advice(self) -> str:
        """The same for people."""
        return ADVICE[self.detail or self.code]


def has_rival(areas: Sequence[float]) -> bool:
    """Whether one of the faces whose boxes have these areas, largest first, is a rival of the largest."""
    return any(area >= RIVAL * areas[0] for area in areas[1:])


def agreement_floor(threshold: float) -> float:
    """Least cosine of a sample to the mean of the others, for a pack whose threshold is ``threshold``."""
    return threshold - MARGIN


def strangers(embeddings: Sequence[Float32], floor: float) -> list[int]:
    """Which of the samples do not show the person whom the others show.

    It begins with the sample that is closest to all, and takes in the others from the closest to the farthest: each
    whose cosine to the mean of those already in is at least ``floor``. So samples of a second person are compared with
    the first person alone, however many there are of each.

    Args:
        embeddings: float32 [dim] of length 1 each; at least one.
        floor: see ``agreement_floor``.

    Returns:
        Indices of those that stay out, ascending. Where they are half of all or more, nobody can say who is meant.
    """
    rows = np.stack(embeddings).astype(np.float64)
    cosines = rows @ rows.T
    centre = int(cosines.sum(axis=1).argmax())
    mean = np.zeros(rows.shape[1])
    out: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: (i != centre, -cosines[centre, i])):
        if index != centre and not rows[index] @ mean >= floor * np.linalg.norm(mean):
            out.append(index)
        else:
            mean += rows[index]
    return sorted(out)


class Enrolment:
    """One recording. It is given readings and the time; it has no clock, thread or file of its own."""

    def __init__(self, camera: str, started: float, seconds: float, max_samples: int, floor: float) -> None:
        """A recording that begins now.

        Args:
            camera: name of the camera that sees the person; readings of others are passed over.
            started: monotonic seconds; frames captured before are passed over.
            seconds: how long to record.
            max_samples: samples are spaced so that this many fill the time, but not closer than ``SPACING_S``.
            floor: how well the samples must agree; see ``agreement_floor``.
        """
        self._camera = camera
        self._started = started
        self._ends = started + seconds
        self._spacing = max(SPACING_S, seconds / max_samples)
        self._max_samples = max_samples
        self._floor = floor
        self._due = started
        self._track: int | None = None  # the one that the samples are of
        self._changed = False
        self._readings = self._with_face = self._with_rival = 0
        self._poor: Counter[str] = Counter()
        self.samples: list[Sample] = []

    def over(self, now: float) -> bool:
        """The time is up at ``now`` (monotonic seconds)."""
        return now >= self._ends

    def add(self, reading: Reading) -> bool:
        """Look at a reading; True if it gave a sample."""
        captured = reading.frame.captured
        if reading.frame.camera != self._camera or captured < self._started or not reading.valid:
            return False
        self._readings += 1
        faces = [face for face in reading.faces if not face.coasting]
        if not faces:
            return False
        self._with_face += 1
        largest = faces[0]
        if has_rival([face.detection.area for face in faces]):
            self._with_rival += 1
            return False
        if self._track is not None and largest.track != self._track:
            self._changed = True
            return False
        if largest.quality is None or largest.embedding is None:
            return False  # perception did not get to look at it
        if not largest.quality.good:
            self._poor.update(largest.quality.reasons)
            return False
        if captured < self._due or len(self.samples) >= self._max_samples:
            return False
        self._due = captured + self._spacing
        self._track = largest.track
        self.samples.append(Sample(largest.embedding, largest.quality))
        return True

    def refusal(self) -> Refusal | None:
        """Why the samples must not be used; None when they may."""
        if not self._readings:
            return Refusal("no_frames")
        if not self._with_face:
            return Refusal("no_face")
        if 2 * self._with_rival > self._with_face:
            return Refusal("several_faces")
        if self._changed:
            return Refusal("person_changed")
        if not self.samples:
            commonest = self._poor.most_common(1)
            return Refusal("poor_quality", commonest[0][0] if commonest else "")
        if strangers([sample.embedding for sample in self.samples], self._floor):
            return Refusal("several_people")
        return None
