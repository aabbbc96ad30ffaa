"""Follow faces from frame to frame: each track predicts its place, detections are given to the nearest prediction."""

import math
from dataclasses import dataclass, replace

import numpy as np

from agent.config import Tracking
from agent.perception.detector import iou
from agent.perception.types import Detection, Float32

_VELOCITY_GAIN = 0.4  # share of a newly seen motion that enters the velocity; smooths the detector's jitter
_STOP_S = 1.0  # time in which an unseen face loses most of its speed: heads on seats sway, they do not travel


@dataclass(frozen=True, slots=True)
class Track:
    """One followed face.

    Attributes:
        number: unique for the tracker.
        detection: where it was seen last, or is predicted to be.
        velocity: motion of the box's centre in pixels a second.
        seen: time of the last detection, seconds.
        updated: time that ``detection`` is about, seconds.
    """

    number: int
    detection: Detection
    velocity: tuple[float, float]
    seen: float
    updated: float

    @property
    def coasting(self) -> bool:
        """The face was not detected at the last update."""
        return self.updated > self.seen


class Tracker:
    """Tracks of one camera.

    Attributes:
        settings: may be replaced between two frames.
        next: number of the next new track.
    """

    def __init__(self, settings: Tracking, first: int = 1) -> None:
        """Number tracks from ``first``."""
        self.settings = settings
        self.next = first
        self._tracks: dict[int, Track] = {}

    def update(self, detections: list[Detection], now: float) -> tuple[list[Track], list[int]]:
        """Take in the detections of a frame.

        Args:
            detections: the faces found.
            now: capture time of the frame, seconds; must not run backwards.

        Returns:
            All tracks, largest first, and the numbers of those that ended.
        """
        lost = self.expire(now)
        predicted = [_predict(track, now) for track in self._tracks.values()]
        pairs = _assign(predicted, detections, self.settings.overlap)
        for index, track in enumerate(predicted):
            if index in pairs:
                self._tracks[track.number] = _correct(track, detections[pairs[index]], now)
            else:
                self._tracks[track.number] = track
        for index in set(range(len(detections))) - set(pairs.values()):
            self._tracks[self.next] = Track(self.next, detections[index], (0.0, 0.0), now, now)
            self.next += 1
        return sorted(self._tracks.values(), key=lambda t: -t.detection.area), lost

    def unseen(self, now: float) -> float:
        """For how long at most a track has not been seen at ``now``, seconds; 0 without tracks."""
        return max((now - track.seen for track in self._tracks.values()), default=0.0)

    def expire(self, now: float) -> list[int]:
        """End the tracks that have not been seen for too long at ``now`` seconds; returns their numbers.

        This comes before detections are given to tracks: after a gap in the frames, a face in the old place is a new
        face, for nobody can say who sat down meanwhile.
        """
        lost = [track.number for track in self._tracks.values() if now - track.seen > self.settings.lost_s]
        for number in lost:
            del self._tracks[number]
        return lost


def _predict(track: Track, now: float) -> Track:
    """The track moved on to ``now`` at its velocity, which fades."""
    left = math.exp(-max(0.0, now - track.updated) / _STOP_S)
    (vx, vy), path_s = track.velocity, _STOP_S * (1 - left)
    dx, dy = vx * path_s, vy * path_s
    x1, y1, x2, y2 = track.detection.box
    moved = replace(
        track.detection,
        box=(x1 + dx, y1 + dy, x2 + dx, y2 + dy),
        landmarks=track.detection.landmarks + np.array([dx, dy], np.float32),
    )
    return replace(track, detection=moved, velocity=(vx * left, vy * left), updated=now)


def _correct(predicted: Track, detection: Detection, now: float) -> Track:
    """The predicted track after its face was seen at ``detection``.

    How far off the prediction was has built up since the face was last seen, be that one frame ago or many.
    """
    elapsed = now - predicted.seen
    velocity = predicted.velocity
    if elapsed > 0:
        expected, found = _centre(predicted.detection), _centre(detection)
        gain = _VELOCITY_GAIN / elapsed
        velocity = (
            velocity[0] + gain * (found[0] - expected[0]),
            velocity[1] + gain * (found[1] - expected[1]),
        )
    return Track(predicted.number, detection, velocity, now, now)


def _assign(tracks: list[Track], detections: list[Detection], overlap: float) -> dict[int, int]:
    """Pairs track index → detection index, best overlap first, none below ``overlap``."""
    if not tracks or not detections:
        return {}
    boxes: Float32 = np.array([d.box for d in detections], np.float32)
    table = np.stack([iou(np.array(track.detection.box, np.float32), boxes) for track in tracks])
    pairs: dict[int, int] = {}
    for flat in np.argsort(-table, axis=None):
        row, column = divmod(int(flat), len(detections))
        if table[row, column] < overlap:
            break
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def _centre(detection: Detection) -> tuple[float, float]:
    x1, y1, x2, y2 = detection.box
    return (x1 + x2) / 2, (y1 + y2) / 2
