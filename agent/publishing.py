"""Turn readings into events: every frame is told, of identities and expressions only what has changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal, TypedDict, cast

from agent import driver
from agent.config import Driver as DriverSettings
from agent.events import (
    DriverEvent,
    EmotionEvent,
    Event,
    FaceEvent,
    FaceReport,
    IdentityEvent,
    Pose,
    QualityReport,
)
from agent.perception import types
from agent.perception.types import Face, Quality, Reading

State = Literal["seen", "confirmed", "unknown"]
_DRIVER_S = (
    1.0  # how often the driver is told even if nothing has changed: the pose has, and silence is a sign
)


@dataclass(frozen=True, slots=True)
class _Said:
    """Something that subscribers were told, and whether it could be believed."""

    what: tuple[str, str | None]
    valid: bool

    def outdated_by(self, what: tuple[str, str | None], *, valid: bool) -> bool:
        """``what`` is to be told: it is something else, or now it may be believed."""
        return what != self.what or (valid and not self.valid)


@dataclass(slots=True)
class _Told:
    """What subscribers know of one track."""

    identity: _Said
    emotion: _Said | None = None

    def doubted(self) -> "_Told":
        """The same, as if it had not been believed, so that it is told again."""
        return _Told(replace(self.identity, valid=False), self.emotion and replace(self.emotion, valid=False))


class Origin(TypedDict):
    """The fields that every event of a reading has."""

    monotonic: float
    utc: str
    camera: str
    frame: int
    valid: bool


class Narrator:
    """Knows what has been said of each track, and says what is new.

    What was said while it was not valid is said again once it may be believed: a subscriber that leaves out messages
    that are not valid misses nothing.
    """

    def __init__(self, labels: Sequence[str], before: "Narrator | None" = None) -> None:
        """A narrator who says all that is known again after ``before``, of whom nobody knows what got through.

        Args:
            labels: the expressions in the order of ``Emotion.probabilities``.
            before: the one in whose place this is put.
        """
        self._labels = tuple(labels)
        self._told: dict[str, dict[int, _Told]] = {
            camera: {track: known.doubted() for track, known in tracks.items()}
            for camera, tracks in (before._told.items() if before else ())
        }

    def events(self, reading: Reading) -> list[Event]:
        """The events of one reading, in the order in which they are to be sent.

        The face event comes first, then what has changed face by face, then the tracks that have ended. A reading
        that is about no frame, because its camera is silent, has no face event. The readings
        of a camera must come in order. A reading holds every living track, so one that is missing from it has ended:
        that is told even when the reading that said so was dropped.
        """
        origin = _origin(reading)
        told = self._told.setdefault(reading.frame.camera, {})
        events: list[Event] = [] if reading.frame.index < 0 else [_face_event(reading, origin)]
        for face in reading.faces:
            events += self._changes(face, origin, told)
        for track in sorted(told.keys() - {face.track for face in reading.faces}):
            _, person = told.pop(track).identity.what
            events.append(IdentityEvent(**origin, track=track, change="lost", person=person))
        return events

    def _changes(self, face: Face, origin: Origin, told: dict[int, _Told]) -> list[Event]:
        """What is new about one face."""
        changes: list[Event] = []
        valid = origin["valid"]
        known = told.get(face.track)
        if known is None:
            changes.append(IdentityEvent(**origin, track=face.track, change="seen"))
            known = told[face.track] = _Told(_Said(("seen", None), valid))
        identity = face.state, _person(face)
        if known.identity.outdated_by(identity, valid=valid):
            known.identity = _Said(identity, valid)
            changes.append(_identity_event(face, origin))
        if face.emotion is not None:
            emotion = face.emotion.label, None
            if known.emotion is None or known.emotion.outdated_by(emotion, valid=valid):
                known.emotion = _Said(emotion, valid)
                shares = zip(self._labels, face.emotion.probabilities, strict=True)
                probabilities = {label: round(share, 4) for label, share in shares}
                changes.append(
                    EmotionEvent(
                        **origin, track=face.track, label=face.emotion.label, probabilities=probabilities
                    )
                )
        return changes


class DriverNarrator:
    """Watches the driver, and says what is new."""

    def __init__(self, before: "DriverNarrator | None" = None) -> None:
        """One who knows what ``before``, in whose place this is put, has seen, and says it again."""
        self._watch: driver.Watch | None = before._watch if before else None
        self._told: driver.Driver | None = None
        self._told_at = 0.0

    def event(self, reading: Reading, settings: DriverSettings) -> DriverEvent | None:
        """What is to be told after a reading of the driver's camera; None: nothing new."""
        self._watch = driver.advance(self._watch, reading, settings)
        known, now = self._watch.driver, self._watch.at
        # What was only measured anew, or not measured in this frame, is no news.
        news = self._told is None or _lasting(known) != _lasting(self._told)
        due = not 0 <= now - self._told_at < _DRIVER_S and (reading.valid or known.present is None)
        if not news and not due:
            return None
        self._told, self._told_at = known, now
        return DriverEvent(
            **_origin(replace(reading, valid=True)),
            present=known.present,
            track=known.track,
            state=cast("State | None", known.state),
            person=known.person,
            emotion=known.emotion,
            pose=_pose(known.pose) if known.pose else None,
            attention=known.attention,
            since=known.since,
            away_s=round(known.away_s, 2),
            warning=known.warning,
            reason=known.reason,
        )


def _lasting(known: driver.Driver) -> driver.Driver:
    """The driver without what every frame changes."""
    return replace(known, pose=None, away_s=0.0)


def rfc3339(utc: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(utc, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _origin(reading: Reading) -> Origin:
    frame = reading.frame
    return {
        "monotonic": frame.captured,
        "utc": rfc3339(frame.utc),
        "camera": frame.camera,
        "frame": frame.index,
        "valid": reading.valid,
    }


def _person(face: Face) -> str | None:
    return face.match.person if face.state == "confirmed" and face.match is not None else None


def _face_event(reading: Reading, origin: Origin) -> FaceEvent:
    return FaceEvent(
        **origin,
        faces=tuple(_face_report(face) for face in reading.faces),
        stage_ms={step: round(ms, 3) for step, ms in reading.stage_ms.items()},
        total_ms=round(reading.total_ms, 3),
        rung=reading.rung,
        view=reading.frame.view,
        late=reading.late,
    )


def _face_report(face: Face) -> FaceReport:
    """A face in the digits that mean something: a hundredth of a pixel, a tenth of a degree."""
    detection, quality = face.detection, face.quality
    x1, y1, x2, y2 = detection.box
    return FaceReport(
        track=face.track,
        box=(round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)),
        score=round(detection.score, 4),
        landmarks=tuple((round(x, 2), round(y, 2)) for x, y in detection.landmarks.tolist()),
        coasting=face.coasting,
        state=cast("State", face.state),
        person=_person(face),
        emotion=face.emotion.label if face.emotion is not None else None,
        quality=quality_report(quality) if quality is not None else None,
        pose=pose_report(quality) if quality is not None else None,
    )


def quality_report(quality: Quality) -> QualityReport:
    """The quality of a face in the digits that mean something."""
    return QualityReport(
        size=round(quality.size, 2),
        sharpness=round(quality.sharpness, 2),
        brightness=round(quality.brightness, 2),
        contrast=round(quality.contrast, 2),
        reasons=quality.reasons,
    )


def pose_report(quality: Quality) -> Pose:
    """The head pose in the digits that mean something."""
    return _pose(quality.pose)


def _pose(pose: types.Pose) -> Pose:
    return Pose(yaw=round(pose.yaw, 1), pitch=round(pose.pitch, 1), roll=round(pose.roll, 1))


def _identity_event(face: Face, origin: Origin) -> IdentityEvent:
    """The state of ``face`` with what it rests on."""
    change = cast("State", face.state)
    match = face.match
    if match is None:
        poor = change == "unknown" and face.quality is not None and not face.quality.good
        return IdentityEvent(
            **origin, track=face.track, change=change, reason="poor_quality" if poor else None
        )
    return IdentityEvent(
        **origin,
        track=face.track,
        change=change,
        person=_person(face),
        score=_cosine(match.score),
        threshold=round(match.threshold, 6),
        second=_cosine(match.second),
        reason=match.reason if change == "unknown" else None,
    )


def _cosine(value: float) -> float | None:
    """A cosine; -1 stands for a template that does not exist."""
    return round(value, 6) if value > -1 else None
