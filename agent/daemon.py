"""The daemon: the table of stages, started, watched and stopped in order."""

import logging
import threading
import time

import cv2

from agent.config import Config, ConfigError
from agent.enrolment import agreement_floor
from agent.events import Event
from agent.live import Live
from agent.mailbox import Mailbox
from agent.networks import load
from agent.notify import Notifier
from agent.perception.chain import Chain
from agent.perception.types import Frame, Reading
from agent.stage import Stage
from agent.stages.camera import CameraStage
from agent.stages.control import ControlStage
from agent.stages.health import HealthStage
from agent.stages.perception import PerceptionStage
from agent.stages.publisher import PublisherStage
from engines.errors import UserError
from engines.pack import Pack

log = logging.getLogger(__name__)

_QUEUE = 256  # readings or events that may wait for the publisher: seconds of work, kilobytes of memory
_STOP_S = 1.8  # all stages together; systemd and users are promised two seconds
_STALL_S = 5.0  # a stage that has not beaten for so long is not well


class DaemonError(UserError):
    """The daemon cannot go on; the message says which part failed and why."""


class Daemon:
    """All stages of the agent."""

    def __init__(
        self,
        config: Config,
        pack: Pack,
        live: Live,
        watch: Mailbox[Reading] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        """Load the pack and lay out the stages; nothing runs yet.

        Args:
            config: must name at least one camera.
            pack: verified.
            live: what stages share; its snapshot is the gallery as it is now.
            watch: gets every reading too, for a display.
            notifier: tells the service manager how the daemon is.

        Raises:
            ConfigError: no camera is configured.
            EngineError: a model does not load.
        """
        if not config.cameras:
            raise ConfigError(
                "no camera is configured; add a [[cameras]] table with name and source to the configuration, "
                "or try `cabinsense run --sample`"
            )
        cv2.setNumThreads(
            1
        )  # its images are small, and a second pool of threads would fight the engines' own
        self._stopping = threading.Event()
        self._notifier = notifier or Notifier()
        self._networks = load(pack, config)
        chain = Chain(self._networks, config, time.monotonic)
        digest = pack.manifest.digest
        threshold = config.identity.threshold
        if threshold is None:
            threshold = pack.manifest.face.threshold

        frames = threading.Condition()
        boxes = [Mailbox[Frame](1, frames) for _ in config.cameras]
        messages = threading.Condition()
        readings = Mailbox[Reading](_QUEUE, messages)
        self._readings = readings
        self._outbox = Mailbox[Event](_QUEUE, messages)
        outlets = [readings] if watch is None else [readings, watch]

        self.cameras = [CameraStage(camera, box) for camera, box in zip(config.cameras, boxes, strict=True)]
        self.perception = PerceptionStage(config, chain, threshold, live, boxes, frames, outlets)
        self.publisher = PublisherStage(config, pack.manifest.face.labels, readings, self._outbox)
        floor = agreement_floor(pack.manifest.face.threshold)
        control = ControlStage(config, digest, live, self._outbox, floor)
        health = HealthStage(
            config.events.health_s,
            digest,
            live,
            self.cameras,
            self.perception,
            (self.publisher, control),
            lambda: self.publisher.dropped,
            self._networks.notes,
            self._outbox,
        )
        # In the order of their start; they stop from sources to sinks, so that what was read is still published.
        self._stages: tuple[Stage, ...] = (self.publisher, control, self.perception, health, *self.cameras)
        self._stop_order: tuple[tuple[Stage, ...], ...] = (
            (*self.cameras, health),
            (self.perception,),
            (control,),
            (self.publisher,),
        )
        self._boxes = boxes

    def stop(self) -> None:
        """Ask the daemon to end; may be called from a signal handler."""
        self._stopping.set()

    def dropped_frames(self) -> int:
        """Frames of all cameras that were replaced by a newer one before they were looked at."""
        return sum(camera.health().dropped for camera in self.cameras)

    def run(self) -> None:
        """Run until ``stop`` is called or every camera has ended; then stop all stages within two seconds.

        Raises:
            DaemonError: a stage failed, or no camera can ever deliver.
        """
        for stage in self._stages:
            stage.start()
        try:
            while not self._stopping.wait(0.1) and not self._finished():
                self._tell(time.monotonic())
        finally:
            self._notifier.stopping()
            self._shut_down()

    def _tell(self, now: float) -> None:
        well = all(stage.alive and now - stage.beaten < _STALL_S for stage in self._stages)
        times = self.perception.times
        status = f"{times.fps:.1f} frames a second"
        self._notifier.tell(now, ready=times.frames > 0, well=well, status=status)

    def _finished(self) -> bool:
        """Every camera has ended and every frame been read; raises DaemonError where something broke."""
        for stage in self._stages:
            if stage.failure is not None:
                raise DaemonError(f"stage {stage.name} failed: {stage.failure}") from stage.failure
        if any(camera.alive for camera in self.cameras) or any(len(box) for box in self._boxes):
            return False
        failed = [str(camera.health().error) for camera in self.cameras if camera.failed_for_good]
        if failed:
            raise DaemonError("; ".join(failed))
        return True

    def _shut_down(self) -> None:
        deadline = time.monotonic() + _STOP_S
        for group in self._stop_order:
            for stage in group:
                stage.stop()
            for stage in group:
                if not stage.join(max(0.0, deadline - time.monotonic())):
                    log.warning("stage %s did not stop in time", stage.name)
