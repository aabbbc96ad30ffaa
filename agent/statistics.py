"""How long frames took: bounded memory, read by the health stage and the summaries."""

import threading
import time
from bisect import bisect_left
from collections import deque
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Reading

_KEPT = 10_000  # newest readings that the figures are about: over five minutes at 30 frames a second


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    """``p50``, ``p95`` and ``p99``, linearly interpolated; empty without values."""
    if not values.size:
        return {}
    return dict(
        zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)).round(3).tolist(), strict=True)
    )


BOUNDS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, float("inf"))
"""Upper bounds of the histogram's buckets, seconds: fine around the budget of 20 ms and a camera's 33 ms."""


class _Ring:
    """The newest numbers of a series, in memory that is allocated once."""

    def __init__(self) -> None:
        self._values: NDArray[np.float64] = np.zeros(_KEPT, np.float64)
        self._count = 0

    def add(self, value: float) -> None:
        """Put in a number; a full ring forgets its oldest."""
        self._values[self._count % _KEPT] = value
        self._count += 1

    def values(self) -> NDArray[np.float64]:
        """A copy of the numbers, oldest first."""
        oldest_first: NDArray[np.float64] = np.roll(self._values, -(self._count % _KEPT))
        return oldest_first if self._count >= _KEPT else self._values[: self._count].copy()


class FrameTimes:
    """Times of the newest readings; one thread adds, any thread reads.

    Attributes:
        frames: readings so far.
        faces: faces in all of them.
        missed: those that missed their deadline.
        rung: of the newest.
        complete: readings from which nothing was left out: those of rung 0.
        total_ms: time that all of them took.
        engine_ms: the part of it spent inside the engines.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = _Ring()
        self._frame_ms = _Ring()
        self._late = _Ring()
        self._blind = _Ring()
        self._stage_ms: dict[str, _Ring] = {}
        self.frames = 0
        self.faces = 0
        self.missed = 0
        self.rung = 0
        self.complete = 0
        self._buckets = [0] * len(BOUNDS)
        self.total_ms = 0.0
        self.engine_ms = 0.0

    def add(self, reading: Reading) -> None:
        """Count a reading."""
        with self._lock:
            self._at.add(time.monotonic())
            self._frame_ms.add(reading.total_ms)
            self._late.add(reading.late)
            self._blind.add("detect" not in reading.stage_ms)
            for step, ms in reading.stage_ms.items():
                self._stage_ms.setdefault(step, _Ring()).add(ms)
            self.frames += 1
            self.faces += len(reading.faces)
            self.missed += reading.late
            self.rung = reading.rung
            self.complete += reading.rung == 0
            self._buckets[bisect_left(BOUNDS, reading.total_ms / 1e3)] += 1
            self.total_ms += reading.total_ms
            self.engine_ms += reading.engine_ms

    @property
    def fps(self) -> float:
        """Readings a second, by the clock on the wall, over those that are kept."""
        with self._lock:
            at = self._at.values()
        return float((len(at) - 1) / (at[-1] - at[0])) if len(at) > 1 else 0.0

    def histogram(self) -> tuple[dict[str, int], float]:
        """How many readings took at most so many seconds, by bound as Prometheus writes it; and the sum of seconds."""
        with self._lock:
            counts, seconds = accumulate(self._buckets.copy()), self.total_ms / 1e3
        return dict(zip(map(_written, BOUNDS), counts, strict=True)), seconds

    @property
    def overhead(self) -> float:
        """Time of all frames over the time that their engines took; 1 is perfect, 0 before the first frame."""
        with self._lock:
            return self.total_ms / self.engine_ms if self.engine_ms else 0.0

    def frame_ms(self, seconds: float = float("inf")) -> dict[str, float]:
        """Percentiles of the time a frame took, over the last ``seconds``."""
        with self._lock:
            at, ms = self._at.values(), self._frame_ms.values()
        return percentiles(ms[at >= time.monotonic() - seconds])

    def late(self, seconds: float = float("inf")) -> int:
        """Frames that missed their deadline, over the last ``seconds``."""
        with self._lock:
            at, late = self._at.values(), self._late.values()
        return int(late[at >= time.monotonic() - seconds].sum())

    def blind(self, seconds: float = float("inf")) -> float:
        """Share of the frames of the last ``seconds`` in which faces were not looked for, 0 to 1."""
        with self._lock:
            at, blind = self._at.values(), self._blind.values()
        lately = blind[at >= time.monotonic() - seconds]
        return float(lately.mean()) if lately.size else 0.0

    def stage_ms(self) -> dict[str, dict[str, float]]:
        """Percentiles for each step, in the order in which steps first occurred."""
        with self._lock:
            steps = {step: ring.values() for step, ring in self._stage_ms.items()}
        return {step: percentiles(values) for step, values in steps.items()}


class Growth:
    """How much a count has grown of late."""

    def __init__(self, seconds: float) -> None:
        """Look back so many seconds."""
        self._seconds = seconds
        self._counts: deque[tuple[float, int]] = deque()

    def of(self, count: int, now: float) -> int:
        """The growth up to ``count``, which was counted ``now``; ask more often than the time looked back.

        Args:
            count: never shrinks.
            now: seconds; never runs backwards.
        """
        while self._counts and self._counts[0][0] < now - self._seconds:
            self._counts.popleft()
        self._counts.append((now, count))
        return count - self._counts[0][1]


def _written(bound: float) -> str:
    """A bucket's bound as Prometheus writes it."""
    return "+Inf" if bound == float("inf") else str(bound)
