"""The health thread: at an interval, looks at every stage and says how the agent is."""

import time
from collections.abc import Sequence
from typing import Protocol

import psutil

from agent import heat
from agent.events import CameraHealth, Event, HealthEvent
from agent.live import Live
from agent.mailbox import Mailbox
from agent.publishing import rfc3339
from agent.stage import Stage
from agent.stages.camera import ADVICE, CameraStage
from agent.statistics import FrameTimes, Growth
from agent.words import counted

_MINUTE = 60.0
_MOSTLY = 0.5  # share of the last minute in trouble from which it is told as a problem


class Watched(Protocol):
    """What the stage looks at: the daemon, as far as it can be seen from here.

    Attributes:
        started: when it was made, monotonic seconds.
        times: of the frames.
    """

    started: float
    times: FrameTimes

    @property
    def cameras(self) -> Sequence[CameraStage]:
        """The camera stages."""
        ...

    @property
    def restarts(self) -> dict[str, int]:
        """How often each stage was started anew."""
        ...

    @property
    def dropped(self) -> int:
        """Messages that were not published."""
        ...

    @property
    def stalled(self) -> int:
        """Times that a subscriber began to miss messages."""
        ...

    def dropped_frames(self) -> int:
        """Frames of all cameras that were replaced by a newer one before they were looked at."""
        ...

    def ages(self, now: float) -> dict[str, float]:
        """Seconds since the last sign of life of each stage."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Problems that last."""
        ...


class HealthStage(Stage):
    """Sends a ``health`` event every ``events.health_s`` seconds."""

    def __init__(self, pack_digest: str, live: Live, watched: Watched, outbox: Mailbox[Event]) -> None:
        """Say how ``watched`` is, into ``live`` and ``outbox``."""
        super().__init__("health")
        self._pack_digest = pack_digest
        self._live = live
        self._watched = watched
        self._outbox = outbox
        self._process = psutil.Process()
        self._thermometer = heat.Thermometer()
        self._drops = Growth(_MINUTE)

    def work(self) -> None:
        """Report until told to stop."""
        reported = time.monotonic()
        frames = self._watched.times.frames
        self._process.cpu_percent()  # the first call only sets the mark that the next one measures from
        while not self.stopping.wait(min(0.2, max(0.0, reported + self._interval - time.monotonic()))):
            self.beat()
            now = time.monotonic()
            self._thermometer.look(now)
            self._live.budget_share = heat.share(
                self._thermometer.zones, self._thermometer.mode, self._live.config.budget.power_modes
            )
            dropped_frames = self._drops.of(self._watched.dropped_frames(), now)
            if now - reported < self._interval:
                continue
            seen = self._watched.times.frames
            event = self._report(now, (seen - frames) / (now - reported), dropped_frames)
            reported, frames = now, seen
            with self.acting():
                self._live.health = event
                self._outbox.put(event)

    @property
    def _interval(self) -> float:
        return self._live.config.events.health_s

    def _report(self, now: float, fps: float, dropped_frames: int) -> HealthEvent:
        watched = self._watched
        times, budget = watched.times, self._live.config.budget
        cameras = tuple(camera.health() for camera in watched.cameras)
        snapshot = self._live.snapshot
        return HealthEvent(
            monotonic=now,
            utc=rfc3339(time.time()),
            uptime=round(now - watched.started, 3),
            pack=self._pack_digest,
            people=len(snapshot.names),
            cameras=cameras,
            fps=round(fps, 2),
            frame_ms=times.frame_ms(_MINUTE),
            missed=times.late(_MINUTE),
            dropped_frames=dropped_frames,
            rung=times.rung,
            budget_ms=round(self._live.budget_share * budget.frame_ms, 3) or None,
            celsius={zone.name: zone.celsius for zone in self._thermometer.zones},
            power_mode=self._thermometer.mode,
            stages={name: round(age, 3) for name, age in watched.ages(now).items()},
            restarts=watched.restarts,
            adaptation=self._live.adaptation,
            rss_mb=round(self._process.memory_info().rss / 2**20, 1),
            cpu_percent=self._process.cpu_percent(),
            dropped=watched.dropped,
            stalled=watched.stalled,
            problems=(
                *watched.notes(),
                *_problems(cameras, snapshot.skipped, gallery_readable=self._live.gallery_readable),
                *_shortage(times, budget.frame_ms),
            ),
        )


def _problems(cameras: Sequence[CameraHealth], skipped: int, *, gallery_readable: bool) -> tuple[str, ...]:
    """What a person should know, with the remedy."""
    problems = [f"camera {camera.name}: {camera.error}" for camera in cameras if camera.error]
    problems += [
        f"camera {camera.name}: {ADVICE[camera.view]}" for camera in cameras if camera.view != "clear"
    ]
    if not gallery_readable:
        problems.append(
            "nobody is recognised, for the gallery cannot be read; the log of the daemon says why"
        )
    if skipped:
        problems.append(
            f"{counted(skipped, 'sample')} of another pack in the gallery, not matched; `cabinsense gallery re-enrol` "
            "makes such samples anew from photographs, and who has none must be recorded again"
        )
    return tuple(problems)


def _shortage(times: FrameTimes, frame_ms: float) -> tuple[str, ...]:
    """What a person should know when the budget is too small for the machine."""
    blind = times.blind(_MINUTE)
    if blind <= _MOSTLY:
        return ()
    return (
        f"in {blind:.0%} of the frames of the last minute there was no time to look for faces; give the agent more "
        f"of the machine, or raise budget.frame_ms ({frame_ms:g})",
    )
