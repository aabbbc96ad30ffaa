"""The chain: what is done to each frame, from pixels to a reading."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from msgspec import UNSET

from agent.config import Config
from agent.perception.align import align
from agent.perception.budget import TOP, Budget, Plan
from agent.perception.detector import DECODERS, fill, letterbox, suppress, to_frame
from agent.perception.landmarks import LandmarkReader
from agent.perception.quality import QualityGate
from agent.perception.tracker import Track, Tracker
from agent.perception.types import (
    Detection,
    Emotion,
    Face,
    Float32,
    Frame,
    Image,
    Looked,
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

ENGINE_STEPS = ("detect", "landmarks", "face")
"""The steps that are nothing but a run of an engine."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The loaded models of a pack.

    Attributes:
        manifest: of the pack.
        detector: finds faces.
        face: embedding and emotion of a chip.
        coarse: finds faces in a picture of half the width and height; None where that is not to be had.
        notes: what a person should know of how they run, in words; empty when they run as the configuration asks.
        landmarks: tells where the landmarks of a face lie; None where the detector does.
    """

    manifest: Manifest
    detector: Engine
    face: Engine
    notes: tuple[str, ...] = ()
    coarse: Engine | None = None
    landmarks: Engine | None = None

    def close(self) -> None:
        """Release the engines."""
        for engine in (self.detector, self.face, self.coarse, self.landmarks):
            if engine is not None:
                engine.close()


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
        detector = networks.manifest.detector
        self._decode = DECODERS[detector.decoder](detector)
        self._detectors = {False: networks.detector}  # by whether it is the coarse one
        if networks.coarse is not None:
            self._detectors[True] = networks.coarse
        self._inputs: dict[bool, Image] = {
            coarse: detector.buffer("image")[0] for coarse, detector in self._detectors.items()
        }
        self.chip: Image = networks.face.buffer("chip")[0]
        self._template = np.array(face.template, np.float32)
        self._landmarks: LandmarkReader | None = None
        if networks.landmarks is not None and networks.manifest.landmarks is not UNSET:
            self._landmarks = LandmarkReader(networks.landmarks, networks.manifest.landmarks)
        self.reconfigure(config)

    def use_face(self, engine: Engine) -> None:
        """Look at faces with another engine of the same network from now on; the one before is let go of."""
        self.networks = replace(self.networks, face=engine)
        self.chip = engine.buffer("chip")[0]

    def reconfigure(self, config: Config) -> None:
        """Go by ``config`` from the next image on; the size of the detector's input stays."""
        self._settings = config.detector
        self._gate = QualityGate(config.quality, self.networks.manifest.face.side)

    def find(self, image: Image, *, coarse: bool = False) -> list[Detection]:
        """The faces in ``image`` (uint8 BGR [height, width, 3]), largest first, at most ``max_faces``.

        Args:
            image: the frame.
            coarse: seek them in a small picture, which takes a third of the time and misses faces that are far away.
        """
        height, width = image.shape[:2]
        target = self._inputs[coarse]
        box = letterbox((width, height), (target.shape[1], target.shape[0]))
        fill(image, box, target)
        self.timer.lap("resize")
        maps = self._detectors[coarse].run()
        self.timer.lap("detect")
        found = suppress(self._decode(maps, self._settings.threshold), self._settings.overlap)
        detections = to_frame(found, box, (width, height))[: self._settings.max_faces]
        self.timer.lap("decode")
        if self._landmarks is not None:
            detections = self._landmarks.mark(image, detections, self.timer.lap)
        return detections

    def look(self, image: Image, detection: Detection) -> Look:
        """Align one face of ``image`` and run the face network on it."""
        return self.read(self.cut(image, detection))

    def cut(self, image: Image, detection: Detection) -> Quality:
        """Align one face of ``image`` into ``chip``; how fit it is."""
        align(image, detection.landmarks, self._template, self.chip)
        self.timer.lap("align")
        quality = self._gate.measure(self.chip, detection.landmarks, max(image.shape[:2]))
        self.timer.lap("quality")
        return quality

    def read(self, quality: Quality) -> Look:
        """Run the face network on ``chip``, which is of this ``quality``."""
        outputs = self.networks.face.run()
        self.timer.lap("face")
        return Look(quality, outputs["embedding"][0].copy(), outputs["emotion"][0].copy())


class _Followed:
    """What is known of one track."""

    def __init__(self, config: Config, labels: tuple[str, ...], now: float) -> None:
        self.vote = IdentityVote(config.identity)
        self.smoother = EmotionSmoother(labels, config.tracking.emotion_s)
        self.quality: Quality | None = None
        self.emotion: Emotion | None = None
        self.looked = now  # before the first look: when it was first seen


@dataclass(frozen=True, slots=True)
class _Aside:
    """A chip that its own frame had no time for: the next frame looks at it.

    Attributes:
        track: whose it is.
        captured: when its frame was captured, seconds.
        quality: how fit the chip is.
        chip: uint8 BGR [side, side, 3]; a copy.
    """

    track: int
    captured: float
    quality: Quality
    chip: Image


class Chain:
    """Perception over time: one reading for each frame, with tracks, decisions and smoothed expressions.

    Attributes:
        budget: plans what a frame may cost.
        looked: good faces that the newest frame had looked at; None: they are not kept. Set it to begin or end that.
    """

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
        self.budget = Budget(config.budget, config.tracking, has_coarse=networks.coarse is not None)
        self.looked: list[Looked] | None = None
        self._reader = FaceReader(networks, config, clock)
        self._config = config
        self._clock = clock
        self._first_tracks = dict(first_tracks or {})
        self._trackers: dict[str, Tracker] = {}
        self._newest: dict[str, float] = {}
        self._followed: dict[tuple[str, int], _Followed] = {}
        self._asides: dict[str, _Aside] = {}

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
        self.budget.reconfigure(config.budget, config.tracking)
        for tracker in self._trackers.values():
            tracker.settings = config.tracking

    def use_face(self, engine: Engine) -> None:
        """Look at faces with another engine of the same network from the next frame on."""
        self._reader.use_face(engine)

    def forget_identities(self) -> None:
        """Decide anew who everybody is: the gallery has changed."""
        for followed in self._followed.values():
            followed.vote = IdentityVote(self._config.identity)

    def process(self, frame: Frame, match: Matcher, *, look_always: bool = False) -> Reading:
        """The reading of one frame.

        Args:
            frame: the frames of a camera must come in order.
            match: asks the gallery about an embedding.
            look_always: look at every face in this frame, also those that are decided, whatever it costs (used while
                recording).
        """
        timer = self._reader.timer
        timer.start()
        if self.looked is not None:
            self.looked = []
        aside = self._asides.pop(frame.camera, None)
        tracker = self._trackers.get(frame.camera)
        if tracker is None:
            first = self._first_tracks.get(frame.camera, 1)
            tracker = self._trackers[frame.camera] = Tracker(self._config.tracking, first)
        plan = self._plan(frame, tracker, put_aside=aside is not None, everything=look_always)
        tried_ms = self._try_coarse(frame.image) if plan.try_coarse else 0.0
        detections = self._reader.find(frame.image, coarse=plan.coarse) if plan.detect else []
        tracks, lost = tracker.update(detections, frame.captured)
        self._newest[frame.camera] = frame.captured
        self._forget(frame.camera, lost)
        timer.lap("track")
        looks: dict[int, Look] = {}
        rung = plan.rung
        if plan.detect:
            self.budget.costs.found(timer.total_ms - tried_ms, frame.captured, coarse=plan.coarse)
            looks, rung = self._look(frame, tracks, plan, match)
        elif aside is not None:
            self._catch_up(frame.camera, aside, match)
        faces = tuple(self._face(frame.camera, track, looks.get(track.number)) for track in tracks)
        timer.lap("decide")
        engine_ms = sum(timer.stage_ms.get(step, 0.0) for step in ENGINE_STEPS)
        valid = not frame.blind and self._clock() - frame.captured <= self._config.freshness.max_age_s
        return Reading(
            frame.stamp,
            faces,
            tuple(lost),
            timer.stage_ms,
            timer.total_ms,
            engine_ms,
            rung,
            late=timer.total_ms > self.budget.deadline_ms,
            valid=valid,
        )

    def end_silent(self, now: float, utc: float, silence: float) -> list[Reading]:
        """End the tracks of cameras that have delivered nothing for ``silence`` seconds; 0 means every camera.

        Returns:
            A reading without faces and with frame -1 for each camera that has fallen silent since the last time,
            stamped ``now`` and ``utc``.
        """
        readings = []
        for camera in [each for each, newest in self._newest.items() if now - newest >= silence]:
            del self._newest[camera]
            lost = self._trackers[camera].expire(float("inf"))
            self._forget(camera, lost)
            readings.append(Reading(Stamp(camera, -1, now, utc), (), tuple(lost)))
        return readings

    def _forget(self, camera: str, tracks: list[int]) -> None:
        for number in tracks:
            del self._followed[camera, number]

    def _plan(self, frame: Frame, tracker: Tracker, *, put_aside: bool, everything: bool) -> Plan:
        """What the budget allows for this frame."""
        decided = [
            each.vote.decided for (camera, _), each in self._followed.items() if camera == frame.camera
        ]
        return self.budget.plan(
            frame.camera,
            frame.captured,
            len(decided) - sum(decided),
            sum(decided),
            unseen_s=tracker.unseen(frame.captured),
            put_aside=put_aside,
            everything=everything,
        )

    def _try_coarse(self, image: Image) -> float:
        """Find faces coarsely to learn what that costs, in milliseconds."""
        self._reader.find(image, coarse=True)
        spent_ms = self._reader.timer.total_ms
        self.budget.costs.tried(spent_ms)
        return spent_ms

    def _look(
        self, frame: Frame, tracks: list[Track], plan: Plan, match: Matcher
    ) -> tuple[dict[int, Look], int]:
        """Look at the faces that are due for it, as far as the plan and the time left allow.

        Who has waited longest comes first, and of those the largest.

        Returns:
            Looks by the number of their track, and the rung that says what was left out.
        """
        timer, rung = self._reader.timer, plan.rung
        looks: dict[int, Look] = {}
        waiting = []
        for track in tracks:
            followed = self._followed.get((frame.camera, track.number))
            if followed is None:
                labels = self._reader.networks.manifest.face.labels
                followed = _Followed(self._config, labels, frame.captured)
                self._followed[frame.camera, track.number] = followed
            waited = frame.captured - followed.looked
            if not track.coasting and (not followed.vote.decided or waited >= plan.refresh_s):
                waiting.append((waited, track, followed))
        for waited, track, followed in sorted(waiting, key=lambda each: -each[0]):
            decided = followed.vote.decided
            spent = timer.total_ms
            if len(looks) < plan.looks and self.budget.may_look(plan, spent, waited, decided=decided):
                look = looks[track.number] = self._reader.look(frame.image, track.detection)
                _learn(followed, look, frame.captured, match)
                self._keep(track.number, frame.captured, look)
                timer.lap("decide")
                self.budget.costs.looked(timer.total_ms - spent)
            elif plan.rung == TOP and not looks and frame.camera not in self._asides:
                quality = self._reader.cut(frame.image, track.detection)
                chip = self._reader.chip.copy()
                self._asides[frame.camera] = _Aside(track.number, frame.captured, quality, chip)
            else:
                rung = max(rung, 1 if decided else 3)
        return looks, rung

    def _catch_up(self, camera: str, aside: _Aside, match: Matcher) -> None:
        """Look at the chip that the frame before had no time for."""
        followed = self._followed.get((camera, aside.track))
        if followed is None:
            return
        timer = self._reader.timer
        spent = timer.total_ms
        np.copyto(self._reader.chip, aside.chip)
        look = self._reader.read(aside.quality)
        _learn(followed, look, aside.captured, match)
        self._keep(aside.track, aside.captured, look)
        timer.lap("decide")
        self.budget.costs.looked(timer.total_ms - spent)

    def _keep(self, track: int, captured: float, look: Look) -> None:
        """Keep a look that somebody may learn from; the chip is the reader's."""
        if self.looked is not None and look.quality.good:
            self.looked.append(Looked(track, captured, self._reader.chip.copy(), look.logits))

    def _face(self, camera: str, track: Track, look: Look | None) -> Face:
        """The track as a face of the reading."""
        followed = self._followed[camera, track.number]
        return Face(
            track.number,
            track.detection,
            track.coasting,
            followed.quality,
            followed.vote.state,
            followed.vote.match,
            followed.emotion,
            look.embedding if look is not None else None,
        )


def _learn(followed: _Followed, look: Look, captured: float, match: Matcher) -> None:
    """Take in a look at a frame that was ``captured`` then."""
    followed.looked = captured
    followed.quality = look.quality
    followed.emotion = followed.smoother.add(look.logits, captured)
    if look.quality.good:
        followed.vote.add(match(look.embedding))
    else:
        followed.vote.add_poor()
