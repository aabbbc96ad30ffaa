"""The daemon: the table of stages, started, watched, started anew and stopped in order."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2

from agent import logs
from agent.config import Camera, Config, ConfigError
from agent.events import CameraHealth, Event
from agent.gallery.threshold import in_force
from agent.live import Live
from agent.mailbox import Mailbox
from agent.notify import Notifier
from agent.perception.types import Frame, Reading
from agent.reload import Reloader
from agent.sockets import open_doors
from agent.stage import Stage
from agent.stages.button import ButtonStage
from agent.stages.camera import CameraStage
from agent.stages.control import ControlStage
from agent.stages.health import HealthStage
from agent.stages.metrics import MetricsStage
from agent.stages.perception import PerceptionStage
from agent.stages.publisher import PublisherStage
from agent.statistics import FrameTimes
from agent.supervisor import Supervisor, Trouble, Vital
from agent.words import counted
from engines.errors import UserError
from engines.pack import Pack

log = logging.getLogger(__name__)

_QUEUE = 256  # readings or events that may wait for the publisher: seconds of work, kilobytes of memory
_STOP_S = 1.8  # all stages together; systemd and users are promised two seconds
_TICK_S = 0.1  # how often the stages are looked at
_STARTING_TICK_S = 0.01  # until they have all been started
_PARTING_S = 0.3  # how long a stage that is given up may go on with what it is doing

SINK, RECORDER, READER, SOURCE = range(4)
"""Ranks: see ``Post``."""


class DaemonError(UserError):
    """The daemon cannot go on; the message says which part failed and why."""


@dataclass(frozen=True, slots=True)
class Post:
    """One row of the table: a stage that is to be there, whichever one holds the post just now.

    Attributes:
        name: as in health events and in the log.
        rank: stages start from the lowest rank to the highest, each when those below are up, and stop the other way
            round, so that what was read is still published. So a second daemon, which finds the sockets taken, is
            refused before it has touched a camera, and no frame waits for models to be loaded.
        make: makes the stage; gets the one it takes the place of, which was given up, or None at first.
        waits: it may wait for the disk, or for an engine to be built, so ``supervision.disk_s`` is its limit in place
            of ``stall_s``.
    """

    name: str
    rank: int
    make: Callable[[Any], Stage]
    waits: bool = False


class Daemon:
    """All stages of the agent."""

    def __init__(
        self,
        config: Config,
        pack: Pack,
        live: Live,
        watch: Mailbox[Reading] | None = None,
        notifier: Notifier | None = None,
        read: Callable[[], Config] | None = None,
    ) -> None:
        """Lay out the stages; nothing runs yet.

        Args:
            config: must name at least one camera.
            pack: verified.
            live: what stages share; its snapshot is the gallery as it is now.
            watch: gets every reading too, for a display.
            notifier: tells the service manager how the daemon is.
            read: gives the configuration as it is later, when the daemon is told to read it again.

        Raises:
            ConfigError: no camera is configured.
        """
        if not config.cameras:
            raise ConfigError(
                "no camera is configured; add a [[cameras]] table with name and source to the configuration, "
                "or try `cabinsense run --sample`"
            )
        cv2.setNumThreads(
            1
        )  # its images are small, and a second pool of threads would fight the engines' own
        self.started = time.monotonic()
        self.times = FrameTimes()
        self._config = config
        self._pack = pack
        self._live = live
        live.config = config
        self._notifier = notifier or Notifier()
        self._stopping = threading.Event()
        self._reloading = threading.Event()
        self._reloader = Reloader(read or (lambda: config), live)
        live.reload = self._reloader.reload
        self._supervisor = Supervisor(config.supervision)

        self._arrival = threading.Condition()
        self._boxes = {camera.name: Mailbox[Frame](1, self._arrival) for camera in config.cameras}
        messages = threading.Condition()
        self._readings = Mailbox[Reading](_QUEUE, messages)
        self._outbox = Mailbox[Event](_QUEUE, messages)
        self._outlets = [self._readings] if watch is None else [self._readings, watch]

        self._stages: dict[str, Stage] = {}
        self.posts = self._table()
        self._given_up: list[Stage] = []

    def _table(self) -> tuple[Post, ...]:
        """Every stage of the daemon, in the order of their start."""
        return (
            Post("publisher", SINK, self._publisher),
            Post("control", RECORDER, self._control, waits=True),
            Post("perception", READER, self._perception),
            *([Post("adaptation", SOURCE, self._adaptation, waits=True)] if self._adapts else []),
            Post("health", SOURCE, self._health),
            *([Post("button", SOURCE, self._button)] if self._config.button.line else []),
            *([Post("metrics", SOURCE, self._metrics)] if self._config.metrics.listen else []),
            *(
                Post(f"camera {camera.name}", SOURCE, partial(self._camera, camera))
                for camera in self._config.cameras
            ),
        )

    def _publisher(self, before: PublisherStage | None) -> PublisherStage:
        labels = self._pack.manifest.face.labels
        return PublisherStage(self._config, labels, self._live, self._readings, self._outbox, before)

    def _control(self, _: Stage | None) -> ControlStage:
        manifest = self._pack.manifest
        return ControlStage(self._config, manifest.digest, self._live, self._outbox, manifest.face.threshold)

    def _perception(self, before: PerceptionStage | None) -> PerceptionStage:
        boxes = tuple(self._boxes.values())
        return PerceptionStage(
            self._config, self._pack, self._live, boxes, self._arrival, self._outlets, self.times, before
        )

    @property
    def _adapts(self) -> bool:
        """The adaptation is on, or was once."""
        return self._config.adaptation.tier != "off" or "adaptation" in self._stages

    def _adaptation(self, _: Stage | None) -> Stage:
        from agent.stages.adaptation import AdaptationStage  # noqa: PLC0415 - as long to import as all the others

        names = [camera.name for camera in self._config.cameras]
        return AdaptationStage(self._pack, self._live, self._outbox, self._camera_health, names)

    def _camera_health(self) -> list[CameraHealth]:
        return [camera.health() for camera in self.cameras]

    def _button(self, _: Stage | None) -> ButtonStage:
        return ButtonStage(self._config.button, self._live)

    def _health(self, _: Stage | None) -> HealthStage:
        return HealthStage(self._pack.manifest.digest, self._live, self, self._outbox)

    def _metrics(self, _: Stage | None) -> Stage:
        try:
            from agent.metrics import CONTENT_TYPE, Exposition  # noqa: PLC0415
        except ImportError as error:
            raise DaemonError(
                f"metrics.listen is set, but the figures need prometheus-client ({error}); "
                "`pip install 'cabinsense[metrics]'`, or leave metrics.listen out"
            ) from error
        return MetricsStage(self._config.metrics, Exposition(self._live, self.times).text, CONTENT_TYPE)

    def _camera(self, camera: Camera, before: CameraStage | None) -> CameraStage:
        return CameraStage(camera, self._boxes[camera.name], before)

    @property
    def cameras(self) -> list[CameraStage]:
        """The camera stages that have been started."""
        return [stage for stage in self._stages.copy().values() if isinstance(stage, CameraStage)]

    @property
    def restarts(self) -> dict[str, int]:
        """How often each stage was started anew; those that never were are left out."""
        return dict(self._supervisor.restarts)

    @property
    def dropped(self) -> int:
        """Readings and events that fell out of their mailboxes before they could be published."""
        publisher = self._stages.get("publisher")
        return publisher.dropped if isinstance(publisher, PublisherStage) else 0

    @property
    def stalled(self) -> int:
        """Times that a subscriber was so slow that it began to miss messages."""
        publisher = self._stages.get("publisher")
        return publisher.stalled if isinstance(publisher, PublisherStage) else 0

    def ages(self, now: float) -> dict[str, float]:
        """Seconds since the last sign of life of each stage."""
        return {name: stage.age(now) for name, stage in self._stages.copy().items()}

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the daemon runs."""
        perception = self._stages.get("perception")
        notes = perception.notes if isinstance(perception, PerceptionStage) else ()
        broken = [stage.problem for stage in self._stages.copy().values() if stage.problem]
        return (
            *notes,
            *broken,
            *self._outgrown(),
            *open_doors(self._config),
            *self._reloader.problems(),
        )

    def _outgrown(self) -> tuple[str, ...]:
        """That there are more people than the threshold was chosen for, if there are."""
        known, face = self._live.snapshot, self._pack.manifest.face
        threshold = in_force(self._live.config.identity, face, len(known.names), known.calibrated)
        if not threshold.outgrown:
            return ()
        return (
            f"{threshold.people} people are enrolled, but the threshold is chosen for {threshold.most} at most: "
            "strangers may be given a name; `cabinsense calibrate threshold` chooses another",
        )

    def dropped_frames(self) -> int:
        """Frames of all cameras that were replaced by a newer one before they were looked at."""
        return sum(box.dropped for box in self._boxes.values())

    def stop(self) -> None:
        """Ask the daemon to end; may be called from a signal handler."""
        self._stopping.set()

    def reload(self) -> None:
        """Ask the daemon to read its configuration again; may be called from a signal handler."""
        self._reloading.set()

    def run(self) -> None:
        """Run until ``stop`` is called or every camera has ended; then stop all stages within two seconds.

        Raises:
            DaemonError: a stage failed and could not be started anew, or no camera can ever deliver.
            UserError: a stage could not begin: a socket is taken, a model does not load.
        """
        try:
            while not self._stopping.is_set() and not self._finished():
                self._start()
                self._reload()
                well = self._supervise(time.monotonic())
                self._notifier.tell(
                    time.monotonic(), ready=self.times.frames > 0, well=well, status=self._status()
                )
                self._stopping.wait(_TICK_S if len(self._stages) == len(self.posts) else _STARTING_TICK_S)
        finally:
            self._notifier.stopping()
            self._shut_down()

    def _start(self) -> None:
        """Start what has not been started and may be: once everything of a lower rank is up."""
        for post in self.posts:
            if post.name in self._stages:
                continue
            below = [self._stages.get(each.name) for each in self.posts if each.rank < post.rank]
            if not all(stage and stage.beaten for stage in below):
                return
            stage = post.make(None)
            self._stages[post.name] = stage
            stage.start()

    def _reload(self) -> None:
        """Read the configuration again if that was asked for, and take over what concerns the daemon itself."""
        if self._reloading.is_set():
            self._reloading.clear()
            self._notifier.reloading()
            with contextlib.suppress(ConfigError):  # it was logged, and health says so
                self._reloader.reload()
            self._notifier.reloaded()
        if self._config is not self._live.config:
            self._config = self._live.config
            self.posts = self._table()  # the adaptation may have been turned on
            self._supervisor.settings = self._config.supervision
            logs.set_level(self._config.log.level)

    def _supervise(self, now: float) -> bool:
        """Look at every stage, and start anew what is not well; True if nothing was wrong.

        Raises:
            DaemonError: as ``run``.
        """
        vitals = {post.name: self._vital(post) for post in self.posts if post.name in self._stages}
        troubles = self._supervisor.judge(vitals, now)
        for post in self.posts:
            if post.name in troubles:
                self._replace(post, troubles[post.name], now)
        return not troubles

    def _vital(self, post: Post) -> Vital:
        """What the supervisor is to know of a stage."""
        stage, settings = self._stages[post.name], self._supervisor.settings
        alive = stage.alive  # before ``ended``: a stage that ends in between is not dead
        stall_s = settings.disk_s if post.waits else settings.stall_s
        first = not self._supervisor.restarts[post.name]
        return Vital(alive, stage.ended, stage.started, stage.beaten, stall_s, first)

    def _replace(self, post: Post, trouble: Trouble, now: float) -> None:
        """Put a new stage in the place of one that has died or hangs."""
        stage = self._stages[post.name]
        what = _describe(post, stage, trouble)
        if trouble.hopeless:
            if isinstance(stage.failure, UserError):
                raise stage.failure
            raise DaemonError(f"{what} before it had begun to work") from stage.failure
        self._given_up = [each for each in self._given_up if each.alive]
        if not self._supervisor.may_restart(post.name, len(self._given_up), now):
            settings = self._supervisor.settings
            often = counted(settings.restarts, "time")
            raise DaemonError(
                f"{what}, and stages were started anew {often} within {settings.window_s:g} s already; see the log"
            ) from stage.failure
        if not stage.give_up(_PARTING_S):
            raise DaemonError(
                f"{what}, with its hands on a file or socket that a new one needs; only a new process can help"
            )
        self._given_up.append(stage)
        log.error("%s; it is started anew", what, extra={"stage": post.name})
        successor = post.make(stage)
        self._stages[post.name] = successor
        successor.start()

    def _status(self) -> str:
        """How the daemon is, in a few words."""
        waiting = "; a new configuration waits for a restart" if self._reloader.waiting else ""
        if not self.times.frames:
            errors = [error for camera in self.cameras if (error := camera.health().error)]
            return ("; ".join(errors) or "waiting for the first frame") + waiting
        fps = self._live.health.fps if self._live.health else self.times.fps
        return f"rung {self.times.rung}, {fps:.1f} frames a second{waiting}"

    def _finished(self) -> bool:
        """Every camera has ended and every frame been read; raises DaemonError where none can ever deliver."""
        cameras = self.cameras
        if len(cameras) < len(self._config.cameras) or not all(camera.ended for camera in cameras):
            return False
        if any(len(box) for box in self._boxes.values()):
            return False
        failed = [str(camera.health().error) for camera in cameras if camera.failed_for_good]
        if failed:
            raise DaemonError("; ".join(failed))
        return True

    def _shut_down(self) -> None:
        deadline = time.monotonic() + _STOP_S
        for rank in sorted({post.rank for post in self.posts}, reverse=True):
            stages = [
                self._stages[post.name]
                for post in self.posts
                if post.rank == rank and post.name in self._stages
            ]
            for stage in stages:
                stage.stop()
            for stage in stages:
                if not stage.join(max(0.0, deadline - time.monotonic())):
                    log.warning("stage %s did not stop in time", stage.name)
                    stage.let_hang()


def _describe(post: Post, stage: Stage, trouble: Trouble) -> str:
    """What happened to a stage."""
    if trouble.how == "stalled":
        return f"stage {post.name} has shown no sign of life for {stage.age(time.monotonic()):.1f} s"
    return f"stage {post.name} failed: {stage.failure or 'its thread was ended'}"
