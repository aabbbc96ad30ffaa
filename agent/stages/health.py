"""The health thread: at an interval, looks at every stage and says how the agent is."""

import time
from collections.abc import Callable, Sequence

import psutil

from agent.events import CameraHealth, Event, HealthEvent
from agent.live import Live
from agent.mailbox import Mailbox
from agent.publishing import rfc3339
from agent.stage import Stage
from agent.stages.camera import CameraStage
from agent.stages.perception import PerceptionStage

_MINUTE = 60.0


class HealthStage(Stage):
    """Sends a ``health`` event every ``interval`` seconds."""

    def __init__(
        self,
        interval: float,
        pack_digest: str,
        live: Live,
        cameras: Sequence[CameraStage],
        perception: PerceptionStage,
        others: Sequence[Stage],
        dropped: Callable[[], int],
        notes: tuple[str, ...],
        outbox: Mailbox[Event],
    ) -> None:
        """Watch ``cameras``, ``perception`` and ``others``.

        ``dropped`` counts messages that were not published; ``notes`` are problems that last as long as the daemon.
        """
        super().__init__("health")
        self._interval = interval
        self._pack_digest = pack_digest
        self._live = live
        self._cameras = cameras
        self._perception = perception
        self._others = others
        self._dropped = dropped
        self._notes = notes
        self._outbox = outbox
        self._process = psutil.Process()

    def work(self) -> None:
        """Report until told to stop."""
        started = reported = time.monotonic()
        frames = 0
        self._process.cpu_percent()  # the first call only sets the mark that the next one measures from
        while not self.stopping.wait(min(0.2, max(0.0, reported + self._interval - time.monotonic()))):
            self.beat()
            now = time.monotonic()
            if now - reported < self._interval:
                continue
            seen = self._perception.times.frames
            event = self._report(now, now - started, (seen - frames) / (now - reported))
            reported, frames = now, seen
            self._live.health = event
            self._outbox.put(event)

    def _report(self, now: float, uptime: float, fps: float) -> HealthEvent:
        cameras = tuple(camera.health() for camera in self._cameras)
        snapshot = self._live.snapshot
        return HealthEvent(
            monotonic=now,
            utc=rfc3339(time.time()),
            uptime=round(uptime, 3),
            pack=self._pack_digest,
            people=len(snapshot.names),
            cameras=cameras,
            fps=round(fps, 2),
            frame_ms=self._perception.times.frame_ms(_MINUTE),
            stages={
                stage.name: round(now - stage.beaten, 3)
                for stage in (*self._cameras, self._perception, *self._others)
            },
            rss_mb=round(self._process.memory_info().rss / 2**20, 1),
            cpu_percent=self._process.cpu_percent(),
            dropped=self._dropped(),
            problems=(*self._notes, *_problems(cameras, snapshot.skipped)),
        )


def _problems(cameras: Sequence[CameraHealth], skipped: int) -> tuple[str, ...]:
    """What a person should know, with the remedy."""
    problems = [f"camera {camera.name}: {camera.error}" for camera in cameras if camera.error]
    if skipped:
        problems.append(
            f"{skipped} samples in the gallery come from another pack and are not matched; record these people again"
        )
    return tuple(problems)
