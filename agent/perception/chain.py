"""The chain: what is done to each frame, from pixels to a reading."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agent.config import Config
from agent.perception.align import align
from agent.perception.detector import DECODERS, fill, letterbox, suppress, to_frame
from agent.perception.quality import QualityGate
from agent.perception.tracker import Track, Tracker
from agent.perception.types import (
    Detection,
    Emotion,
    Face,
    Float32,
    Frame,
    Image,
    Match,
    Quality,
    Reading,
    Stamp,
)
from agent.perception.vote import EmotionSmoother, IdentityVote
from engines.engine import Engine
from engines.pack import Manifest

Clock = Callable[[], float]
Matcher = Callable[[Float32], Match]

ENGINE_STEPS = ("detect", "face")
"""The steps that are nothing but a run of an engine."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The loaded models of a pack.

    Attributes:
        manifest: of the pack.
        detector: finds faces.
        face: embedding and emotion of a chip.
        notes: what a person should know of how they run, in words; empty when they run as the configuration asks.
    """

    manifest: Manifest
    detector: Engine
    face: Engine
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Release both engines."""
        self.detector.close()
        self.face.close()


@dataclass(frozen=True, slots=True)
class Look:
    """What the face network says of one face.

    Attributes:
        quality: how fit the chip is.
        embedding: float32 [dim] of length 1; a copy.
        logits: float32 [labels]; a copy.
    """

    quality: Quality
    embedding: Float32
    logits: Float32


class StepTimer:
    """Time spent in each step of one frame."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Begin a frame."""
        self.stage_ms: dict[str, float] = {}
        self.began = self._mark = self._clock()

    def lap(self, step: str) -> None:
        """Ascribe the time since the last lap to ``step``."""
        now = self._clock()
        self.stage_ms[step] = self.stage_ms.get(step, 0.0) + (now - self._mark) * 1e3
        self._mark = now

    @property
    def total_ms(self) -> float:
        """Milliseconds from ``start`` to the last lap."""
        return (self._mark - self.began) * 1e3


class FaceReader:
    """The networks with the arithmetic around them: an image to detections, a detection to a look."""

    def __init__(self, networks: Networks, config: Config, clock: Clock) -> None:
        """Bind to the engines' input memory."""
        face = networks.manifest.face
        self.networks = networks
        self.timer = StepTimer(clock)
        self._decode = DECODERS[networks.manifest.detector.decoder]
        self._input: Image = networks.detector.buffer("image")[0]
        self._chip: Image = networks.face.buffer("chip")[0]
        self._template = np.array(face.template, np.float32)
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Go by ``config`` from the next image on; the size of the detector's input stays."""
        self._settings = config.detector
        self._gate = QualityGate(config.quality, self.networks.manifest.face.side)

    def find(self, image: Image) -> list[Detection]:
        """The faces in ``image`` (uint8 BGR [height, width, 3]), largest first, at most ``max_faces``."""
        height, width = image.shape[:2]
        box = letterbox((width, height), (self._input.shape[1], self._input.shape[0]))
        fill(image, box, self._input)
        self.timer.lap("resize")
        maps = self.networks.detector.run()
        self.timer.lap("detect")
        found = suppress(self._decode(maps, self._settings.threshold), self._settings.overlap)
        detections = to_frame(found, box, (width, height))[: self._settings.max_faces]
        self.timer.lap("decode")
        return detections

    def look(self, image: Image, detection: Detection) -> Look:
        """Align one face of ``image`` and run the face network on it."""
        align(image, detection.landmarks, self._template, self._chip)
        self.timer.lap("align")
        quality = self._gate.measure(self._chip, detection.landmarks, max(image.shape[:2]))
        self.timer.lap("quality")
        outputs = self.networks.face.run()
        self.timer.lap("face")
        return Look(quality, outputs["embedding"][0].copy(), outputs["emotion"][0].copy())


class _Followed:
    """What is known of one track."""

    def __init__(self, config: Config, labels: tuple[str, ...]) -> None:
        self.vote = IdentityVote(config.identity)
        self.smoother = EmotionSmoother(labels, config.tracking.emotion_s)
        self.quality: Quality | None = None
        self.emotion: Emotion | None = None
        self.looked = float("-inf")


class Chain:
    """Perception over time: one reading for each frame, with tracks, decisions and smoothed expressions."""

    def __init__(
        self, networks: Networks, config: Config, clock: Clock, first_tracks: Mapping[str, int] | None = None
    ) -> None:
        """A chain for all cameras of ``config``.

        Args:
            networks: the models.
            config: what to go by.
            clock: the one that stamped the frames.
            first_tracks: the number of the first track, for each camera on which it is not 1.
        """
        self._reader = FaceReader(networks, config, clock)
        self._config = config
        self._clock = clock
        self._first_tracks = dict(first_tracks or {})
        self._trackers: dict[str, Tracker] = {}
        self._newest: dict[str, float] = {}
        self._followed: dict[tuple[str, int], _Followed] = {}

    @property
    def next_tracks(self) -> dict[str, int]:
        """For each camera the number that its next track gets, where that is not 1."""
        return self._first_tracks | {camera: tracker.next for camera, tracker in self._trackers.items()}

    def reconfigure(self, config: Config) -> None:
        """Go by ``config`` from the next frame on; tracks go on, and who they are is decided by the new rules."""
        if config.identity != self._config.identity:
            self._config = config
            self.forget_identities()
        self._config = config
        self._reader.reconfigure(config)
        for tracker in self._trackers.values():
            tracker.settings = config.tracking

    def forget_identities(self) -> None:
        """Decide anew who everybody is: the gallery has changed."""
        for followed in self._followed.values():
            followed.vote = IdentityVote(self._config.identity)

    def process(self, frame: Frame, match: Matcher, *, look_always: bool = False) -> Reading:
        """The reading of one frame.

        Args:
            frame: the frames of a camera must come in order.
            match: asks the gallery about an embedding.
            look_always: look at every face in this frame, also those that are decided (used while recording).
        """
        timer = self._reader.timer
        timer.start()
        detections = self._reader.find(frame.image)
        tracker = self._trackers.get(frame.camera)
        if tracker is None:
            first = self._first_tracks.get(frame.camera, 1)
            tracker = self._trackers[frame.camera] = Tracker(self._config.tracking, first)
        tracks, lost = tracker.update(detections, frame.captured)
        self._newest[frame.camera] = frame.captured
        self._forget(frame.camera, lost)
        timer.lap("track")
        faces = tuple(self._face(frame, track, match, look_always) for track in tracks)
        engine_ms = sum(timer.stage_ms.get(step, 0.0) for step in ENGINE_STEPS)
        valid = not frame.blind and self._clock() - frame.captured <= self._config.freshness.max_age_s
        return Reading(
            frame.stamp, faces, tuple(lost), timer.stage_ms, timer.total_ms, engine_ms, valid=valid
        )

    def end_silent(self, now: float, utc: float, silence: float) -> list[Reading]:
        """End the tracks of cameras that have delivered nothing for ``silence`` seconds; 0 means every camera.

        Returns:
            A reading without faces and with frame -1 for each camera that had tracks, stamped ``now`` and ``utc``.
        """
        readings = []
        for camera, tracker in self._trackers.items():
            if now - self._newest[camera] >= silence and (lost := tracker.expire(float("inf"))):
                self._forget(camera, lost)
                readings.append(Reading(Stamp(camera, -1, now, utc), (), tuple(lost)))
        return readings

    def _forget(self, camera: str, tracks: list[int]) -> None:
        for number in tracks:
            del self._followed[camera, number]

    def _face(self, frame: Frame, track: Track, match: Matcher, look_always: bool) -> Face:
        """The track as a face of the reading, after a look if one is due."""
        key = frame.camera, track.number
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed(
                self._config, self._reader.networks.manifest.face.labels
            )
        embedding = None
        age = frame.captured - followed.looked
        due = look_always or not followed.vote.decided or age >= self._config.tracking.refresh_s
        if due and not track.coasting:
            look = self._reader.look(frame.image, track.detection)
            embedding = look.embedding
            followed.looked = frame.captured
            followed.quality = look.quality
            followed.emotion = followed.smoother.add(look.logits, frame.captured)
            if look.quality.good:
                followed.vote.add(match(look.embedding))
            else:
                followed.vote.add_poor()
        self._reader.timer.lap("decide")
        return Face(
            track.number,
            track.detection,
            track.coasting,
            followed.quality,
            followed.vote.state,
            followed.vote.match,
            followed.emotion,
            embedding,
        )
