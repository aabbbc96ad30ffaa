"""Recording a person: a guided session, which of the faces seen become samples, and when none may.

The recorded face is the largest one before one camera, and stays the same one from the first sample on: on the same
track, or recognised on a new one, for a head that turns may be lost from sight for a moment. Readings in which
somebody else sits just as close are not used, and samples that do not look like one person are refused, for a sample of
the wrong person cannot be told from a right one later.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.config import Enrolment as Settings
from agent.gallery.types import Sample, Snapshot
from agent.guidance import ADVICE, MOVING, POSES, PROMPTS, Movement, Wanted, face_hint
from agent.perception.types import Face, Float32, Pose, Reading

SPACING_S = 0.2
"""Least time between two samples: neighbouring frames show the same, and would weigh one moment more than others."""
SAME = 0.995
"""Cosine to a sample of the same pose from which a face shows nothing new. On the sample clip, a man who talks in a
moving car, frames 0.2 s apart have a median of 0.990 (95th percentile 0.997), neighbouring ones 0.996. The mean of
three samples that far apart is closer to the clip's other frames (0.982) than one sample (0.978) or three neighbours
(0.980). A picture that stands still never gives a second sample."""
HOLD_S = 0.3
"""A hint is told once it has been the right one for so long; a flicker helps nobody."""
SILENCE_S = 3.0
"""A camera that delivers nothing for so long during a session ends it."""
RIVAL = 0.5
"""A face is a rival of the largest from this part of its box's area on. Half the area is 1.4 times the distance:
somebody on the back seat is farther away, somebody on the seat beside is not."""
MARGIN = 0.04
"""How far below the pack's threshold samples of one recording may agree. Poses that differ cost a little; with the
default pack the floor is then about half-way between the mean cosine of one person (0.955) and of two (0.84). Among
good photographs of 60 people of LFW no pair of one person is below that floor, of those of two people 6 % are above.
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody was enrolled.

    Attributes:
        code: ``no_frames``: the camera delivered nothing. ``camera_lost``: it stopped. ``no_face``: nobody was seen.
            ``several_faces``: more than half of the readings with a face had a rival. ``person_changed``: after the
            first sample the largest face was somebody else's. ``poor_quality``: too few straight looks were good
            enough. ``several_people``: the samples disagree. ``already_enrolled``, ``another_person``: see
            ``conflict``.
        detail: with ``poor_quality`` what stood in the way most often, a code of ``agent.guidance.ADVICE``; with
            ``already_enrolled`` and ``another_person`` the name of the known person; else empty.
    """

    code: str
    detail: str = ""

    @property
    def advice(self) -> str:
        """The same for people."""
        if self.code == "poor_quality" and self.detail:
            return ADVICE[self.detail]
        return ADVICE[self.code].format(self.detail, self.detail)


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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What samples are judged by.

    Attributes:
        threshold: cosine from which a person counts as recognised.
        floor: how well samples must agree, see ``agreement_floor``.
    """

    threshold: float
    floor: float


def conflict(
    embeddings: Sequence[Float32], snapshot: Snapshot, add_to: str | None, judgement: Judgement
) -> Refusal | None:
    """Why the gallery speaks against storing these samples; None if it does not.

    Somebody new must not be known already, and who gets more samples must not look like somebody else. A person's score
    is what two thirds of the samples reach with the best of the person's templates. Not the mean of the samples is
    compared: means of different people lie closer together than looks do, and a threshold for looks does not fit them.
    Measured on LFW, 139 people of at least six good photographs, three of them as samples against a template of three
    others, at the default pack's threshold: everybody is found to be enrolled already, and of pairs of two people
    0.3 % are (means against each other: 1.8 %), which makes one enrolment in 28 where ten are known. At the floor
    nobody is taken for another person, and 86 % of the pairs of two people are.

    Args:
        embeddings: float32 [dim] of length 1 each; at least one.
        snapshot: of the same pack.
        add_to: who gets the samples; None for somebody new. Of whom the snapshot holds nothing, nothing is said.
        judgement: its threshold makes somebody known; its floor is the least score of the person ``add_to``.
    """
    if not snapshot.names or snapshot.templates.shape[1] != embeddings[0].size:
        return None  # nobody to compare with; vectors of another size are refused where they would be stored
    cosines = snapshot.templates @ np.stack(embeddings).T
    reached = np.sort(cosines, axis=1)[:, len(embeddings) // 3]
    scores = np.full(len(snapshot.names), -1.0)
    np.maximum.at(scores, snapshot.owners, reached)
    best = int(scores.argmax())
    nearest = snapshot.names[best]
    if add_to is None:
        return Refusal("already_enrolled", nearest) if scores[best] >= judgement.threshold else None
    if add_to not in snapshot.names:
        return None
    known = scores[snapshot.names.index(add_to)] >= judgement.floor
    mistaken = nearest != add_to and scores[best] >= judgement.threshold
    return None if known and not mistaken else Refusal("another_person", add_to)


class Session:
    """One recording. It is given readings and the time; it has no clock, thread or file of its own.

    It asks for one pose after the other. The straight look may take all the time there is, for without it nobody is
    enrolled; each later pose gets an equal share of what is left, so that one which does not come off costs the others
    nothing.
    """

    def __init__(
        self, camera: str, started: float, seconds: float, settings: Settings, most: int, threshold: float
    ) -> None:
        """A recording that begins now.

        Args:
            camera: name of the camera that sees the person; readings of others are passed over.
            started: monotonic seconds; frames captured before are passed over.
            seconds: how long it may take.
            settings: how many samples of each pose to take, and how many straight ones are needed.
            most: samples to take altogether, at least one.
            threshold: the pack's own.
        """
        self._camera = camera
        self._started = started
        self._ends = started + seconds
        self._per_pose = settings.samples
        self._needed = min(settings.straight, settings.samples, most)
        self._most = most
        self._threshold = threshold
        self._due = started
        self._to_come = list(POSES)
        self._deadline = self._ends
        self._track: int | None = None  # the one that the samples are of
        self._changed = False
        self._lost = False
        self._last = started  # when a frame was last captured
        self._readings = self._with_face = self._with_rival = 0
        self._obstacles: Counter[str] = Counter()
        self._movement = Movement()
        self._of_pose: dict[Wanted, list[Sample]] = {pose: [] for pose in POSES}
        self._next_hint = self.hint = PROMPTS[POSES[0]]
        self._hint_since = started
        self.samples: list[Sample] = []

    @property
    def wanted(self) -> Wanted | None:
        """The pose that is asked for; None when there is no more to do."""
        return self._to_come[0] if self._to_come and len(self.samples) < self._most else None

    @property
    def straight(self) -> Sequence[Sample]:
        """The straight looks, which are what the gallery is asked about."""
        return self._of_pose["straight"]

    @property
    def complete(self) -> int:
        """How many samples there are to be in the end."""
        return min(self._per_pose * len(POSES), self._most)

    @property
    def poses(self) -> dict[str, int]:
        """How many samples of each pose there are."""
        return {pose: len(samples) for pose, samples in self._of_pose.items()}

    @property
    def missing(self) -> tuple[str, ...]:
        """The poses of which there is no sample."""
        return tuple(pose for pose, samples in self._of_pose.items() if not samples)

    def over(self, now: float) -> bool:
        """The session is at its end at ``now`` (monotonic seconds)."""
        self._go_on(now)
        self._lost = now - self._last > SILENCE_S
        return self.wanted is None or now >= self._ends or self._lost or self._changed

    def add(self, reading: Reading) -> bool:
        """Look at a reading; True if it gave a sample."""
        at = reading.frame.captured
        if reading.frame.camera != self._camera or at < self._started:
            return False
        self._last = max(self._last, at)
        self._go_on(at)
        if not reading.valid or self.wanted is None or self._changed:
            return False
        self._readings += 1
        faces = [face for face in reading.faces if not face.coasting]
        face = self._alone(faces)
        if face is None:
            self._movement.forget()
            self._tell("several_faces" if faces else "no_face", at)
            return False
        return self._look(face, at, self.wanted)

    def refusal(self) -> Refusal | None:
        """Why the samples must not be used; None when they may."""
        if not self._readings:
            return Refusal("no_frames")
        if self._lost:
            return Refusal("camera_lost")
        if not self._with_face:
            return Refusal("no_face")
        if 2 * self._with_rival > self._with_face:
            return Refusal("several_faces")
        if self._changed:
            return Refusal("person_changed")
        if len(self.straight) < self._needed:
            commonest = self._obstacles.most_common(1)
            return Refusal("poor_quality", commonest[0][0] if commonest else "")
        if strangers([sample.embedding for sample in self.samples], agreement_floor(self._threshold)):
            return Refusal("several_people")
        return None

    def _alone(self, faces: Sequence[Face]) -> Face | None:
        """The face that is recorded, if one alone can be meant."""
        if not faces:
            return None
        self._with_face += 1
        if has_rival([face.detection.area for face in faces]):
            self._with_rival += 1
            return None
        return faces[0]

    def _look(self, face: Face, at: float, wanted: Wanted) -> bool:
        """Look at the recorded face; True if it gave a sample."""
        if face.quality is None or face.embedding is None:
            return False  # perception did not get to look at it
        if self._track is not None and face.track != self._track:
            if face.quality.good and not self._is_same(face.embedding):
                self._changed = True
            if not face.quality.good or self._changed:
                return False
            self._track = face.track
        moving = self._movement.add(at, face.detection.landmarks) > MOVING
        hint = face_hint(wanted, face.quality, self._own_pose(), moving=moving)
        if hint is None and at < self._due:
            return False
        if hint is None and any(face.embedding @ taken.embedding >= SAME for taken in self._of_pose[wanted]):
            hint = "move_a_little"
        if hint is not None:
            self._tell(hint, at)
            if wanted == "straight":
                self._obstacles.update(dict.fromkeys((hint, *face.quality.reasons), 1))
            return False
        self._due = at + SPACING_S
        self._track = face.track
        sample = Sample(face.embedding, face.quality)
        self.samples.append(sample)
        self._of_pose[wanted].append(sample)
        self._say("good", at)
        self._go_on(at)
        return True

    def _is_same(self, embedding: Float32) -> bool:
        """Whether this is the person of the samples, as sure as recognition is."""
        mean = np.sum([sample.embedding for sample in self.samples], axis=0)
        return bool(embedding @ mean >= self._threshold * np.linalg.norm(mean))

    def _own_pose(self) -> Pose | None:
        """How this person looks straight into the camera, as far as that is known."""
        poses = [sample.quality.pose for sample in self.straight]
        if not poses:
            return None
        yaw, pitch, roll = np.mean([(pose.yaw, pose.pitch, pose.roll) for pose in poses], axis=0).tolist()
        return Pose(yaw, pitch, roll)

    def _go_on(self, now: float) -> None:
        """Ask for the next pose when this one is done or its time is up."""
        if now >= self._ends:
            self._to_come.clear()
        while self._to_come and (
            len(self._of_pose[self._to_come[0]]) >= self._per_pose or now >= self._deadline
        ):
            del self._to_come[0]
            if self._to_come:
                self._deadline = now + (self._ends - now) / len(self._to_come)
                self._say(PROMPTS[self._to_come[0]], now)

    def _tell(self, hint: str, at: float) -> None:
        """Take in what would have to be told now; it is, once that has lasted."""
        if hint != self._next_hint:
            self._next_hint, self._hint_since = hint, at
        elif at - self._hint_since >= HOLD_S:
            self.hint = hint

    def _say(self, hint: str, at: float) -> None:
        """Tell something at once."""
        self._next_hint = self.hint = hint
        self._hint_since = at
