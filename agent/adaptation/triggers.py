"""What makes an adaptation pointless: another camera picture, another driver. Pure; fed with what others have seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.events import CameraHealth
from agent.perception.types import Reading, View

Trigger = Literal["camera", "scene", "driver"]


class CameraWatch:
    """Notices that a camera was opened again, or sees in another way than before."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, View]] = {}

    def look(self, cameras: Sequence[CameraHealth]) -> Trigger | None:
        """What has happened since the last look; the first one notices nothing."""
        now = {camera.name: (camera.reopened, camera.view) for camera in cameras}
        before, self._known = self._known, now
        if any(now[name][0] != before[name][0] for name in now.keys() & before.keys()):
            return "camera"
        return "scene" if any(now[name] != before[name] for name in now.keys() & before.keys()) else None


@dataclass(frozen=True, slots=True)
class _Who:
    """A face that was decided about: a person, or nobody known."""

    track: int
    person: str | None


class DriverWatch:
    """Notices that somebody else sits before a camera.

    It follows one decided face of each camera, the largest at first. Once that track has ended, the next decided face
    takes its place; if it is somebody else, the driver has changed. Of two people whom nobody knows it cannot tell
    whether they are the same, and takes them for that: what an adaptation has learned is about light more than about
    who is lit.
    """

    def __init__(self) -> None:
        self._followed: dict[str, _Who] = {}

    def look(self, reading: Reading) -> Trigger | None:
        """``driver`` when with this reading somebody else is there."""
        followed = self._followed.get(reading.frame.camera)
        decided = [face for face in reading.faces if face.state != "seen"]
        if followed is not None and any(face.track == followed.track for face in reading.faces):
            decided = [face for face in decided if face.track == followed.track]
        if not decided:
            return None
        face = decided[0]
        person = face.match.person if face.state == "confirmed" and face.match is not None else None
        self._followed[reading.frame.camera] = _Who(face.track, person)
        if followed is None or followed.person == person:
            return None
        # Who is recognised at last, or not recognised any more, is still the same while the track goes on.
        return None if face.track == followed.track and None in {person, followed.person} else "driver"


def track_number(cameras: Sequence[str], camera: str, track: int) -> int:
    """A number for the ``track`` of a camera that no track of another one has; each camera counts its own from 1."""
    return track * len(cameras) + cameras.index(camera)
