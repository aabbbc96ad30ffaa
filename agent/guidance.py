"""What to tell somebody who is being recorded: which pose is wanted, what stands in its way, and the words for it."""

from collections import deque
from typing import Literal, get_args

import numpy as np

from agent.perception.types import Float32, Pose, Quality

Wanted = Literal["straight", "left", "right", "up"]
POSES: tuple[Wanted, ...] = get_args(Wanted)
"""In the order in which they are asked for. Left and right are the driver's own."""

STRAIGHT_YAW, STRAIGHT_PITCH = 15.0, 20.0
"""How far off the camera, degrees, somebody may look who looks straight into it. Pitch is read off five landmarks with
a bias that differs from face to face: of 7,701 photographs of LFW half read within 3 degrees of 0, one in a hundred
beyond 13."""
TURN, FARTHEST_TURN = 15.0, 32.0
"""How far, degrees of measured yaw from the person's own straight look, the head must turn and may turn. Measured on
40 photographs of LFW that were laid over a model of a head and turned by 15, 20, 25, 30 and 40 degrees: 13, 19, 25, 30
and 39 (medians); the cosine to the straight look falls to 0.989, 0.984, 0.978, 0.969 and 0.950."""
NOD, FARTHEST_NOD = 5.0, 14.0
"""Likewise for pitch, of which five landmarks show little: heads nodded up by 10, 15, 20 and 30 degrees measure 4, 5, 6
and 8 degrees (medians, from the straight look's 2); one person in twenty measures 14 at 30 degrees."""

MOVING = 1.5
"""Speed of the landmarks, in distances between the eyes a second, from which a head does not hold still. Of the frames
of the sample clip, a man who talks in a moving car, three quarters are below; of those above, the cosine to the clip's
mean is lower (0.984, below 0.989)."""
_WINDOW_S = 0.2  # over which the speed is taken: between two frames the landmarks' own jitter is as large

ADVICE = {
    # hints: which pose is wanted
    "look_straight": "look straight into the camera",
    "turn_left": "turn your head slowly to your left",
    "turn_right": "turn your head slowly to your right",
    "look_up": "lift your chin a little",
    "good": "good, stay like that",
    # hints: what stands in the way
    "turn_less": "that is too far; turn back a little",
    "hold_still": "hold still",
    "move_a_little": "that look is taken already; move your head a little",
    # hints and refusals: codes of agent.perception.quality, and of what is seen at all
    "no_face": "no face was seen; look towards the camera",
    "several_faces": "somebody else is as close to the camera; only one person may be",
    "too_small": "the face is too small; come closer",
    "too_dark": "the face is too dark; get more light on it",
    "too_bright": "the face is too bright; get out of the glare",
    "low_contrast": "the face has too little contrast; see to the light and a clean lens",
    "blurred": "the face is blurred; hold still, and see to a clean lens",
    "turned_away": "the face is turned away; look towards the camera",
    # refusals
    "no_frames": "the camera delivers no pictures; `cabinsense events --topic health` says why",
    "camera_lost": "the camera stopped delivering pictures; `cabinsense events --topic health` says why",
    "person_changed": "another face has taken the place of the first; stay in view, and record again",
    "several_people": "the samples do not look like one person; only one may be before the camera while it records",
    "poor_quality": "no face was good enough",
    "already_enrolled": "this looks like {}, who is enrolled already; --add gives {} more samples, --anyway enrols all "
    "the same",
    "another_person": "this does not look like {}; --anyway adds the samples all the same",
    "cancelled": "the recording was cancelled",
    "client_gone": "the program that asked for the recording has gone",
    "stopping": "the daemon is stopping; record again when it runs",
}
"""What to tell people, for each code of a hint or of a refusal. In those with braces goes a person's name."""

PROMPTS: dict[Wanted, str] = {
    "straight": "look_straight",
    "left": "turn_left",
    "right": "turn_right",
    "up": "look_up",
}
"""The hint that asks for each pose."""
CALM = frozenset({*PROMPTS.values(), "good"})
"""Hints that correct nothing."""


def pose_hint(wanted: Wanted, pose: Pose, straight: Pose | None) -> str | None:
    """The hint that leads from ``pose`` to the wanted one; None where that is reached.

    Args:
        wanted: the pose that is asked for.
        pose: as it is. Yaw is to the right of the image, which is the left of the driver who faces the camera.
        straight: how the person looks straight into the camera, from which the other poses are measured; faces differ
            by several degrees. Not needed for ``straight`` itself.
    """
    if wanted == "straight" or straight is None:
        away = abs(pose.yaw) > STRAIGHT_YAW or abs(pose.pitch) > STRAIGHT_PITCH
        return PROMPTS["straight"] if away else None
    moved, least, most = {
        "left": (pose.yaw - straight.yaw, TURN, FARTHEST_TURN),
        "right": (straight.yaw - pose.yaw, TURN, FARTHEST_TURN),
        "up": (pose.pitch - straight.pitch, NOD, FARTHEST_NOD),
    }[wanted]
    if moved < least:
        return PROMPTS[wanted]
    return "turn_less" if moved > most else None


def face_hint(wanted: Wanted, quality: Quality, straight: Pose | None, *, moving: bool) -> str | None:
    """What keeps a face from being a sample of the wanted pose, as a code of ``ADVICE``; None if nothing does."""
    for reason in quality.reasons:
        if reason == "blurred" and moving:
            return "hold_still"
        if reason != "turned_away":
            return reason
    hint = pose_hint(wanted, quality.pose, straight)
    if hint is None and "turned_away" in quality.reasons:
        return PROMPTS["straight"] if wanted == "straight" else "turn_less"
    return hint or ("hold_still" if moving else None)


class Movement:
    """How fast the landmarks of one face move."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Float32]] = deque()

    def add(self, at: float, landmarks: Float32) -> float:
        """The speed up to now, in distances between the eyes a second; infinite while it is not known.

        Args:
            at: when the frame was captured, monotonic seconds; later than before.
            landmarks: float32 [5, 2], frame pixels.
        """
        while len(self._past) > 1 and at - self._past[1][0] >= _WINDOW_S:
            self._past.popleft()
        speed = float("inf")
        if self._past and at > self._past[0][0]:
            before, then = self._past[0]
            shift = float(np.linalg.norm(landmarks - then, axis=1).mean())
            eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
            speed = shift / max(eyes, 1e-6) / (at - before)
        self._past.append((at, landmarks))
        return speed

    def forget(self) -> None:
        """Begin again: the face was lost, or it is another."""
        self._past.clear()
