"""The values that pass through perception."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 [height, width, 3], BGR as OpenCV reads it."""
Float32 = NDArray[np.float32]
Array = NDArray[Any]
View = Literal["clear", "covered", "dark", "glare", "frozen"]
"""What a camera's pictures are good for; see ``agent.perception.scene``."""
Exposure = Literal["raise", "lower"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which frame something is about.

    Attributes:
        camera: the camera's name in the configuration.
        index: counts the camera's frames from 0, over reopenings.
        captured: monotonic seconds at capture.
        utc: seconds since the epoch at capture.
        view: how the camera saw at the time.
        size: width and height of the image, pixels; (0, 0) where there is none.
    """

    camera: str
    index: int
    captured: float
    utc: float
    view: View = field(default="clear", kw_only=True)
    size: tuple[int, int] = field(default=(0, 0), kw_only=True)

    @property
    def blind(self) -> bool:
        """Nothing that is or is not in the picture says anything about who is there."""
        return self.view in {"covered", "frozen"}


@dataclass(frozen=True, slots=True)
class Frame(Stamp):
    """One image from one camera.

    Attributes:
        image: uint8 BGR [height, width, 3].
    """

    image: Image

    @property
    def stamp(self) -> Stamp:
        """The frame without its image: what may wait in a queue without holding on to pixels."""
        height, width = self.image.shape[:2]
        return Stamp(self.camera, self.index, self.captured, self.utc, view=self.view, size=(width, height))


@dataclass(frozen=True, slots=True)
class Detection:
    """A face found in a frame, in frame pixels.

    Attributes:
        box: x1, y1, x2, y2; inside the frame.
        score: the detector's confidence, 0 to 1.
        landmarks: float32 [5, 2]: left eye, right eye, nose tip, left and right corner of the mouth, as seen.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: Float32

    @property
    def area(self) -> float:
        """Box area in square pixels."""
        x1, y1, x2, y2 = self.box
        return max(0.0, x2 - x1) * max(0.0, y2 - y1)


@dataclass(frozen=True, slots=True)
class Pose:
    """Head pose in degrees as seen in the image: yaw to the right, pitch up, roll clockwise; 0 is frontal."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How fit a face is for recognition.

    Attributes:
        size: distance between the eyes in frame pixels.
        sharpness: variance of the chip's Laplacian; 0 is flat.
        brightness: mean luma of the chip, 0 to 255.
        contrast: standard deviation of the chip's luma.
        pose: head pose.
        reasons: codes of what is wrong, empty when the face is good (see ``agent.perception.quality``).
    """

    size: float
    sharpness: float
    brightness: float
    contrast: float
    pose: Pose
    reasons: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Nothing is wrong with the face."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Match:
    """The gallery's answer for one embedding.

    Attributes:
        person: name of the best person, or None when unknown.
        score: cosine to the best template; -1 when there was nothing to compare.
        threshold: the score from which a person counts as recognised.
        second: cosine to the best template of another person; -1 without one.
        reason: code of why the answer is unknown, see ``agent.gallery.matcher`` and ``IdentityEvent``; None when known.
    """

    person: str | None
    score: float
    threshold: float
    second: float = -1.0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Emotion:
    """A label and the probabilities of all labels, in the pack's order."""

    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """A face that was good enough and was looked at, for whoever learns from it.

    Attributes:
        track: the face's track, unique for a camera.
        captured: when the frame was captured, monotonic seconds.
        chip: uint8 BGR [side, side, 3]; a copy.
        logits: float32 [labels] of the expression; a copy.
    """

    track: int
    captured: float
    chip: Image
    logits: Float32


@dataclass(frozen=True, slots=True)
class Face:
    """One tracked face in a reading. What was not computed for this frame is carried over from the track.

    Attributes:
        track: the track's number, unique for a camera.
        detection: where the face is; predicted when ``coasting``.
        coasting: the detector did not see the face in this frame.
        quality: None until the face has been looked at once.
        state: ``seen`` (not decided yet), ``confirmed`` or ``unknown``.
        match: the decision of the vote and the newest score.
        emotion: smoothed over the track; None until known.
        embedding: float32 [dim] of this frame, None when it was not computed for it.
    """

    track: int
    detection: Detection
    coasting: bool
    quality: Quality | None
    state: str
    match: Match | None
    emotion: Emotion | None
    embedding: Float32 | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in one frame.

    Attributes:
        frame: the frame it is about, without its image.
        faces: largest first.
        lost: numbers of tracks that ended with this frame.
        stage_ms: milliseconds spent in each step.
        total_ms: milliseconds from the start of perception to its end.
        engine_ms: milliseconds of ``total_ms`` spent inside the engines.
        rung: the step of the budget's ladder in force, or what this frame alone had to leave out; 0 leaves nothing out.
        late: it took longer than the budget allows.
        valid: the verdicts are about who is there now; false for input too old to trust, or from a blind camera.
    """

    frame: Stamp
    faces: tuple[Face, ...]
    lost: tuple[int, ...] = ()
    stage_ms: dict[str, float] = field(default_factory=dict)
    total_ms: float = 0.0
    engine_ms: float = 0.0
    rung: int = 0
    late: bool = False
    valid: bool = True
