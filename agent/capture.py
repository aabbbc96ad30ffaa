"""Read frames from what a camera's ``source`` names: a device, a sensor, a file, a folder, an address or a pipeline."""

import logging
import math
import os
import re
import time
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from agent import csi
from agent.config import Camera
from agent.driver_clock import DriverClock
from agent.images import ImageError, read_image
from agent.perception.types import Array, Image
from engines.errors import UserError

log = logging.getLogger(__name__)

# FFmpeg writes to stderr on its own account; OpenCV looks at this variable when it first uses FFmpeg.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_SCHEMES = ("rtsp", "rtsps", "http", "https")
OPEN_S = 10.0  # a camera on the network may take seconds to answer; less than this is no sign of a fault
_EARLY_S = 0.5  # a file whose last frame is further from the promised end than this was cut off
_MAX_FPS = 1000.0  # a greater rate is a time base that was taken for a rate


class CaptureError(UserError):
    """A source cannot be read; the message names it and the remedy.

    Attributes:
        lasting: trying again cannot help.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class Source(Protocol):
    """A place that frames come from. Belongs to one thread.

    Attributes:
        fps: frames a second that it was made for; 0 when it does not say.
        live: frames come when they come, and it may fail and come back; otherwise it is a recording.
        captured: when the frame last read was captured, monotonic seconds; None where its driver does not say.
    """

    fps: float
    live: bool
    captured: float | None

    def read(self) -> Image | None:
        """The next frame, uint8 BGR [height, width, 3]; None at the end. May block as long as the source likes.

        Raises:
            CaptureError: the source broke.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_source(camera: Camera) -> Source:
    """Open what ``camera.source`` names.

    Raises:
        CaptureError: it cannot be opened; says why as far as that can be known.
    """
    source = camera.source
    path = Path(source).expanduser()
    if source.isdecimal():
        return _open_device(Path(f"/dev/video{source}"), camera)
    if source.startswith("/dev/"):
        return _open_device(path, camera)
    if source.startswith(csi.SCHEME):
        return _open_sensor(camera)
    if "://" in source:
        return _open_address(camera)
    if "!" in source and not path.exists():
        return _open_pipeline(
            source, label(source), "try it with gst-launch-1.0, and see that it ends in `appsink`"
        )
    if path.is_dir():
        return ImageFolder(path, camera.fps, loop=camera.loop)
    return VideoFile(path, loop=camera.loop)


class VideoFile:
    """A recording; starts again at its end when it is to ``loop``."""

    live = False
    captured: float | None = None

    def __init__(self, path: Path, *, loop: bool = False) -> None:
        """Open the file.

        Raises:
            CaptureError: it is missing, empty or no video.
        """
        self._path = path
        self._loop = loop
        self._complained = False
        self._open()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else 0.0

    def read(self) -> Image | None:
        """The next frame; raises where the file ends before its container said it would."""
        image = self._next()
        if image is None:
            try:
                self._check_end()
            except CaptureError as error:
                if not self._loop or not self._frames:
                    raise
                if not self._complained:
                    self._complained = True
                    log.warning("%s", error)
            if self._loop:
                self._capture.release()
                self._open()
                image = self._next()
        return image

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _open(self) -> None:
        self._frames = 0
        self._time_s = 0.0
        _check_file(self._path)
        # Absolute, for FFmpeg takes the beginning of `12:30.mp4` for a protocol.
        self._capture = cv2.VideoCapture(str(self._path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise CaptureError(
                f"{self._path}: not a video that can be read, or one that was cut off; copy it again, or convert it "
                "to H.264 in MP4",
                lasting=True,
            )

    def _next(self) -> Image | None:
        found, image = self._capture.read()
        if not found:
            return None
        self._frames += 1
        self._time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return bgr(image)

    def _check_end(self) -> None:
        """Raise if frames are missing.

        Some containers only let the number of frames be guessed from duration and rate, and the rate may vary: so the
        time of the last frame must fall short, too.
        """
        if not self._frames:
            raise CaptureError(f"{self._path}: holds no frame that can be read; copy it again", lasting=True)
        promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        missing = promised - self._frames
        if missing > 1 and self.fps and (promised - 1) / self.fps - self._time_s > _EARLY_S:
            raise CaptureError(
                f"{self._path}: ends after {self._frames} of {promised:.0f} frames: it is cut off or damaged; copy it "
                "again",
                lasting=True,
            )


class ImageFolder:
    """The images right inside a folder, sorted by name. What is no image is skipped, and said once."""

    live = False
    captured: float | None = None

    def __init__(self, path: Path, fps: float = 0.0, *, loop: bool = False) -> None:
        """List the folder and read its first image.

        Raises:
            CaptureError: the folder cannot be listed, or holds no image.
        """
        self.fps = fps
        self._path = path
        self._loop = loop
        try:
            self._files = sorted(
                each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")
            )
        except OSError as error:
            raise CaptureError(f"{path}: {error.strerror}", lasting=True) from error
        self._position = 0
        self._first: Image | None = (
            self._next()
        )  # a folder without images is told when it is opened, as a bad video is
        if self._first is None:
            raise CaptureError(f"{path}: holds no image that can be read; put images in it", lasting=True)

    def read(self) -> Image | None:
        """The next image that can be read."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        image = self._next()
        if image is None and self._loop:
            self._position = 0
            image = self._next()
            if image is None:
                raise CaptureError(f"{self._path}: its images are gone; put images in it", lasting=True)
        return image

    def close(self) -> None:
        """Nothing is held open."""

    def _next(self) -> Image | None:
        while self._position < len(self._files):
            image = _image_or_none(self._files[self._position])
            if image is not None:
                self._position += 1
                return image
            del self._files[self._position]
        return None


def _image_or_none(path: Path) -> Image | None:
    try:
        return read_image(path)
    except ImageError as error:
        log.warning("%s; skipped", error)
        return None


class LiveSource:
    """A device, an address or a pipeline that OpenCV has opened."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, clock: DriverClock | None = None) -> None:
        """``capture`` is open; with a ``clock`` its frames carry the time of their capture."""
        self._capture = capture
        self._clock = clock
        self.fps = 0.0  # frames come when they come
        self.captured: float | None = None

    def read(self) -> Image | None:
        """The next frame."""
        found, image = self._capture.read()
        if not found:
            return None
        if self._clock:
            self.captured = self._clock.captured(self._capture.get(cv2.CAP_PROP_POS_MSEC), time.monotonic())
        return bgr(image)

    def close(self) -> None:
        """Let go of it."""
        self._capture.release()


def bgr(image: Array) -> Image:
    """A captured image as uint8 BGR [height, width, 3]: infrared cameras give one channel, some pipelines four."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    elif channels == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    return np.asarray(image, np.uint8)


def label(source: str) -> str:
    """The source as it may be shown: without the user, password or query that an address or a pipeline may hold."""
    shown = re.sub(r"\buser-pw=\S+", "user-pw=…", re.sub(r"://[^/\s]*@", "://", source))
    return re.sub(r"(://[^?\s]*)\?[^\s\"']*", r"\1?…", shown)


def _check_file(path: Path) -> None:
    """Raise what is wrong with a file before OpenCV says no more than that something is."""
    try:
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file"
            raise CaptureError(f"{path}: {what}; name a video file or a folder of images", lasting=True)
        with path.open("rb") as stream:
            if not stream.read(1):
                raise CaptureError(f"{path}: the file is empty; copy it again", lasting=True)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}", lasting=True) from error


def _open_device(path: Path, camera: Camera) -> Source:
    if not path.exists():
        there = sorted(str(each) for each in Path("/dev").glob("video*"))
        raise CaptureError(
            f"{path}: no such device; "
            + (f"there are {', '.join(there)}" if there else "no camera is connected")
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise CaptureError(
            f"{path}: no permission; add the user to the group video: `sudo usermod -aG video USER`, then log in again"
        )
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise CaptureError(
            f"{path}: cannot be opened as a camera; another program may hold it (`fuser {path}`), or it is the "
            "second device of a camera that has several"
        )
    wishes = (
        (cv2.CAP_PROP_FRAME_WIDTH, camera.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, camera.height),
        (cv2.CAP_PROP_FPS, camera.fps),
        (cv2.CAP_PROP_BUFFERSIZE, 1),  # the newest frame, not the oldest of four
    )
    for name, value in wishes:
        if value:
            capture.set(name, value)
    return LiveSource(capture, DriverClock())


def _open_address(camera: Camera) -> Source:
    name = label(camera.source)
    scheme = camera.source.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in ("csi", *_SCHEMES))
        raise CaptureError(f"{name}: this kind of address is not known; known are {known}", lasting=True)
    # FFmpeg's own patience ends last: who follows the source has given it up by then, and knows why.
    open_ms, read_ms = round(max(OPEN_S, camera.stall_s) * 1e3), round((camera.stall_s + 1) * 1e3)
    capture = cv2.VideoCapture(
        camera.source,
        cv2.CAP_FFMPEG,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_ms],
    )
    if not capture.isOpened():
        raise CaptureError(
            f"{name}: gives no video; see that the camera is on and reachable, and that address, user and password "
            "are right"
        )
    return LiveSource(capture)


def _open_sensor(camera: Camera) -> Source:
    number = csi.sensor(camera.source)
    if number is None:
        raise CaptureError(
            f"{camera.source}: not a sensor; name it by its number, as in csi://0", lasting=True
        )
    return _open_pipeline(
        csi.pipeline(number, camera.width, camera.height, camera.fps),
        camera.source,
        "see that the sensor is connected and that `systemctl status nvargus-daemon` calls the service active",
    )


def _open_pipeline(pipeline: str, name: str, remedy: str) -> Source:
    """Start a GStreamer pipeline; errors call it ``name``, and advise ``remedy`` if it does not start."""
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise CaptureError(
            f"{name}: this OpenCV was built without GStreamer; use the one of JetPack (python3-opencv), or name a "
            "device or an address",
            lasting=True,
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise CaptureError(f"{name}: the pipeline does not start; {remedy}")
    return LiveSource(capture)
