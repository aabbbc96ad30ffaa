"""Measure the chain on a source, one frame after the other."""

import time
from collections.abc import Iterator
from functools import partial

import cv2
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from agent.capture import CaptureError, label, open_source
from agent.config import Camera, Config
from agent.gallery.matcher import match
from agent.gallery.types import Snapshot
from agent.networks import load
from agent.perception.chain import Chain
from agent.perception.types import Frame, Image
from agent.statistics import FrameTimes
from engines import pack as packs

_DEFAULT_FPS = 30.0  # what a source without a rate of its own is taken to have


class Report(msgspec.Struct, frozen=True):
    """Times of one run.

    Attributes:
        frames: frames measured.
        faces: faces in all of them.
        fps: frames a second of chain time.
        overhead: chain time over engine time, ≥ 1.
        budget_ms: the deadline of a frame; 0 without one.
        complete: share of frames from which nothing was left out (rung 0), 0 to 1.
        missed: frames that missed their deadline.
        frame_ms: p50, p95 and p99 of a frame, milliseconds.
        stages: the same for each step, over the frames in which it ran.
    """

    frames: int
    faces: int
    fps: float
    overhead: float
    budget_ms: float
    complete: float
    missed: int
    frame_ms: dict[str, float]
    stages: dict[str, dict[str, float]]


def measure(config: Config, source: str, frames: int, warm_up: int, console: Console) -> Report:
    """Run the chain over ``frames`` frames of ``source``, after ``warm_up`` that are not counted.

    Frames carry the time at which the source would have delivered them, so that what the chain does at intervals it
    does as often as when it runs live.

    Raises:
        PackError, EngineError, CaptureError: as their names say.
    """
    cv2.setNumThreads(1)
    pack = packs.verify(config.pack_path)
    networks = load(pack, config, coarse=config.budget.frame_ms > 0)
    chain = Chain(networks, config, time.monotonic)
    ask = partial(match, snapshot=Snapshot(), threshold=1.0, margin=0.0)
    times = FrameTimes()
    images = _images(source)
    fps = _rate(source)
    began = time.monotonic()
    for index in track(range(-warm_up, frames), "measuring", console=console, transient=True):
        image = next(images)
        reading = chain.process(
            Frame("bench", index + warm_up, began + (index + warm_up) / fps, 0.0, image), ask
        )
        if index >= 0:
            times.add(reading)
    networks.close()
    return Report(
        times.frames,
        times.faces,
        round(times.frames / (times.total_ms / 1e3), 2),
        round(times.overhead, 4),
        config.budget.frame_ms,
        round(times.complete / times.frames, 4),
        times.late(),
        times.frame_ms(),
        times.stage_ms(),
    )


def _rate(source: str) -> float:
    opened = open_source(Camera(name="bench", source=source))
    opened.close()
    return opened.fps or _DEFAULT_FPS


def _images(source: str) -> Iterator[Image]:
    """Frames of ``source`` without end: what ends is opened again."""
    while True:
        opened = open_source(Camera(name="bench", source=source))
        count = 0
        try:
            while (image := opened.read()) is not None:
                count += 1
                yield np.ascontiguousarray(image)
        finally:
            opened.close()
        if not count:
            raise CaptureError(f"{label(source)}: not one frame could be read")
