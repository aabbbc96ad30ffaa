"""A camera thread: opens its source, stamps its frames, opens it again when it fails."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

import cv2

from agent.capture import OPEN_S, CaptureError, Source, label, open_source
from agent.config import Camera
from agent.events import CameraHealth
from agent.mailbox import Mailbox
from agent.perception.scene import SceneWatch, Sight
from agent.perception.types import Frame, Image, View
from agent.stage import MAY_HANG, Stage

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.2  # before a source that failed is opened again; doubles with each failure in a row
_SLICE_S = 0.1  # how soon a stop, a stall or an end is noticed
_PARTING_S = 0.5  # how long a stop waits for the source to be closed
ADVICE: dict[View, str] = {
    "covered": "nothing is to be seen; uncover the lens, or give it light",
    "frozen": "the picture does not change; disconnect the camera for a moment",
    "dark": "it is too dark to find every face; give it light, or a longer exposure",
    "glare": "the picture is washed out; shade the lens, or give it a shorter exposure",
}
"""What is wrong with a view, and what helps."""
_DEFAULT_FPS = 25.0  # of a recording that does not say how fast it is to be played


class _Reader(threading.Thread):
    """One life of a source, from its opening to its end.

    A thread of its own, because a read that waits for a camera cannot be interrupted: the stage gives a reader up by
    setting ``quit``, and it ends as soon as its read returns.
    """

    def __init__(self, camera: Camera, deliver: Callable[["_Reader", Image, float | None], None]) -> None:
        """``deliver`` gets each frame, and the time of its capture where that is known, in this thread."""
        super().__init__(name=f"{camera.name} reader{MAY_HANG}", daemon=True)
        self.quit = threading.Event()
        self.error: Exception | None = None
        self.live = False
        self.scene = SceneWatch(frozen_s=0)
        self.started = self.progress = time.monotonic()
        self._camera = camera
        self._deliver = deliver
        self._patience = max(OPEN_S, camera.stall_s)

    @property
    def stalled(self) -> bool:
        """The source has been silent for too long."""
        return time.monotonic() - self.progress > self._patience

    def run(self) -> None:
        """Read until the end, a failure or ``quit``."""
        try:
            source = open_source(self._camera)
            try:
                self.live = source.live
                if source.live:  # a recording may well show a still picture
                    self.scene = SceneWatch(self._camera.frozen_s)
                self.progress = time.monotonic()
                self._patience = self._camera.stall_s if source.live else float("inf")
                self._play(source)
            finally:
                source.close()
        except cv2.error as error:
            name = label(self._camera.source)
            self.error = CaptureError(f"{name}: OpenCV gives up: {error.err}", lasting=not self.live)
        except Exception as error:  # the boundary of the thread: the stage says what becomes of it
            self.error = error

    def _play(self, source: Source) -> None:
        """Hand on a live source as it comes, a recording at its own rate."""
        period = 0.0 if source.live else self._period(source.fps)
        due = time.monotonic()
        while not self.quit.is_set() and (image := source.read()) is not None:
            if self.quit.wait(max(0.0, due - time.monotonic())):
                return
            self.progress = time.monotonic()
            self._deliver(self, image, source.captured)
            due = max(due + period, time.monotonic())  # who is late does not hurry to catch up

    def _period(self, fps: float) -> float:
        """Seconds from frame to frame of a recording."""
        if fps := self._camera.fps or fps:
            return 1 / fps
        return 0.0 if self._camera.every_frame else 1 / _DEFAULT_FPS


class CameraStage(Stage):
    """Keeps one camera open and puts its frames into a mailbox."""

    def __init__(self, camera: Camera, box: Mailbox[Frame], before: "CameraStage | None" = None) -> None:
        """Read ``camera`` into ``box``, and go on with the counts of ``before``, in whose place this is put."""
        super().__init__(f"camera {camera.name}")
        self.failed_for_good = False
        self._camera = camera
        self._box = box
        self._lock = threading.Lock()
        self._state: Literal["opening", "open", "failed", "ended"] = "opening"
        self._frames = before.health().frames if before else 0
        self._reopened = before.health().reopened if before else 0
        self._error: str | None = None
        self._reader: _Reader | None = None
        self._sight = Sight()

    def health(self) -> CameraHealth:
        """How the camera is; from any thread."""
        with self._lock:
            return CameraHealth(
                name=self._camera.name,
                state=self._state,
                frames=self._frames,
                dropped=self._box.dropped,
                reopened=self._reopened,
                error=self._error,
                view=self._sight.view,
                exposure=self._sight.exposure,
            )

    def work(self) -> None:
        """Read, and open again what fails, until told to stop or a recording ends."""
        try:
            self._keep_open()
        finally:
            self.release()

    def release(self) -> None:
        """Let the source go."""
        if self._reader:
            self._reader.quit.set()

    def _keep_open(self) -> None:
        wait = _FIRST_WAIT_S
        while not self.stopping.is_set():
            self.beat()
            reader = self._reader = _Reader(self._camera, self._deliver)
            reader.start()
            self._follow(reader)
            if self.stopping.is_set() or self._is_over(reader):
                return
            if reader.progress - reader.started > wait:
                wait = _FIRST_WAIT_S  # it lived longer than we had waited for it
            self._pause(min(wait, self._camera.retry_s))
            wait = min(2 * wait, self._camera.retry_s)

    def _follow(self, reader: _Reader) -> None:
        """Watch a reader until it ends or the stage is told to stop; give it up when it stalls.

        Even a reader that was given up is waited for: so there is never more than one, whatever a driver does.
        """
        while reader.is_alive():
            reader.join(_SLICE_S)
            self.beat()
            if self.stopping.is_set():
                reader.quit.set()
                reader.join(_PARTING_S)
                return
            if reader.is_alive() and reader.stalled and not reader.quit.is_set():
                reader.quit.set()
                silence = time.monotonic() - reader.progress
                self._fail(
                    f"{label(self._camera.source)}: no frame for {silence:.1f} s; see that it is connected"
                )

    def _is_over(self, reader: _Reader) -> bool:
        """Take note of how a reader ended; True if there is no use in another one."""
        error = reader.error
        if isinstance(error, CaptureError):
            self._fail(str(error))
            self.failed_for_good = error.lasting
            return error.lasting
        if error is not None:
            raise error
        if not reader.live:
            with self._lock:
                self._state = "ended"
            return True
        if not reader.quit.is_set():
            self._fail(f"{label(self._camera.source)}: the stream has ended; see that it is connected")
        return False

    def _fail(self, error: str) -> None:
        with self._lock:
            news = error != self._error
            self._state, self._error = "failed", error
            self._sight = Sight()
        if news:  # a camera that stays away is not told at each try
            log.warning("camera %s: %s", self._camera.name, error, extra={"camera": self._camera.name})

    def _pause(self, seconds: float) -> None:
        """Wait before the next try."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0 and not self.stopping.wait(min(rest, _SLICE_S)):
            self.beat()

    def _deliver(self, reader: _Reader, image: Image, captured: float | None) -> None:
        """Stamp a frame and put it into the box; called by the reader."""
        patient = self._camera.every_frame and not reader.live
        sight = reader.scene.look(image, time.monotonic())
        while not reader.quit.is_set():
            now = time.monotonic()
            age = 0.0 if captured is None else now - captured
            frame = Frame(
                self._camera.name, self._frames, now - age, time.time() - age, image, view=sight.view
            )
            with self.acting():
                if not patient:
                    self._box.put(frame)
                elif not self._box.put_when_free(frame, _SLICE_S):
                    continue
            with self._lock:
                returned = self._state != "open" and self._frames > 0
                before, self._sight = self._sight, sight
                self._frames += 1
                self._reopened += returned
                self._state, self._error = "open", None
            if returned:
                log.info("camera %s delivers again", self._camera.name, extra={"camera": self._camera.name})
            if before.view != sight.view:
                self._tell(sight)
            return

    def _tell(self, sight: Sight) -> None:
        if sight.view == "clear":
            log.info("camera %s sees clearly again", self._camera.name, extra={"camera": self._camera.name})
        else:
            message = ADVICE[sight.view]
            log.warning("camera %s: %s", self._camera.name, message, extra={"camera": self._camera.name})
