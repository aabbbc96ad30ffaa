"""How long frames took: bounded memory, read by the health stage and the summaries."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from agent.perception.types import Reading

_KEPT = 10_000  # newest readings that the figures are about: over five minutes at 30 frames a second


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """``p50``, ``p95`` and ``p99``, linearly interpolated; empty without values."""
    array = np.fromiter(values, np.float64)
    if not array.size:
        return {}
    return dict(zip(("p50", "p95", "p99"), np.percentile(array, (50, 95, 99)).round(3).tolist(), strict=True))


class FrameTimes:
    """Times of the newest readings; one thread adds, any thread reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: deque[tuple[float, Reading]] = deque(maxlen=_KEPT)
        self.frames = 0
        self.faces = 0
        self.total_ms = 0.0
        self.engine_ms = 0.0

    def add(self, reading: Reading) -> None:
        """Count a reading."""
        with self._lock:
            self._newest.append((time.monotonic(), reading))
            self.frames += 1
            self.faces += len(reading.faces)
            self.total_ms += reading.total_ms
            self.engine_ms += reading.engine_ms

    @property
    def fps(self) -> float:
        """Readings a second, by the clock on the wall, over those that are kept."""
        kept = self._copy()
        seconds = kept[-1][0] - kept[0][0] if kept else 0.0
        return (len(kept) - 1) / seconds if seconds else 0.0

    @property
    def overhead(self) -> float:
        """Time of all frames over the time that their engines took; 1 is perfect, 0 before the first frame."""
        with self._lock:
            return self.total_ms / self.engine_ms if self.engine_ms else 0.0

    def frame_ms(self, seconds: float = float("inf")) -> dict[str, float]:
        """Percentiles of the time a frame took, over the last ``seconds``."""
        oldest = time.monotonic() - seconds
        return percentiles(reading.total_ms for at, reading in self._copy() if at >= oldest)

    def stage_ms(self) -> dict[str, dict[str, float]]:
        """Percentiles for each step, in the order in which steps first occurred."""
        steps: dict[str, list[float]] = {}
        for _, reading in self._copy():
            _append(steps, reading.stage_ms)
        return {step: percentiles(values) for step, values in steps.items()}

    def _copy(self) -> list[tuple[float, Reading]]:
        with self._lock:
            return list(self._newest)


def _append(steps: dict[str, list[float]], stage_ms: Mapping[str, float]) -> None:
    for step, ms in stage_ms.items():
        steps.setdefault(step, []).append(ms)
