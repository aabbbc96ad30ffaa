"""A few recent chips, balanced over tracks and expressions; in memory only. Pure.

Category-balanced sampling with timeliness, as in RoTTA (Yuan et al., "Robust Test-Time Adaptation in Dynamic
Scenarios", CVPR 2023): when the memory is full, the most frequent kind gives up its oldest chip. A kind here is a track
with an expression, so that neither one face nor one expression drives out the others.
"""

from collections import Counter, deque
from collections.abc import Iterator

import numpy as np

from agent.adaptation.types import Sample


class Memory:
    """At most ``size`` samples, none older than ``age_s`` seconds."""

    def __init__(self, size: int, age_s: float) -> None:
        self._size = size
        self._age = age_s
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        """Remember a sample; its chip is copied."""
        while self._samples and sample.at - self._samples[0].at > self._age:
            self._samples.popleft()
        if len(self._samples) >= self._size:
            counts = Counter(map(_kind, self._samples))
            counts[_kind(sample)] += 1  # the newcomer's own kind, if that is the most frequent with it
            most = max(counts.values())
            del self._samples[next(i for i, held in enumerate(self._samples) if counts[_kind(held)] == most)]
        self._samples.append(Sample(np.array(sample.chip), sample.probabilities, sample.track, sample.at))

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        """From the oldest to the newest."""
        return iter(self._samples)

    def clear(self) -> None:
        """Forget all."""
        self._samples.clear()


def _kind(sample: Sample) -> tuple[int, int]:
    return sample.track, int(np.argmax(sample.probabilities))
