"""Which condition holds, by chips that come in one after another. Pure."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Float32
from agent.perception.vote import softmax

LEAST = 5.0
"""Chips' worth of evidence without which nothing is said."""

_HALF_LIFE = 5.0
"""So many newer chips halve the weight of a chip: a second's looks when there is time for five a second. Fewer are made
under load, so it is chips that count and not seconds."""

_HALF_LIFE_S = 60.0
"""As many seconds do the same, however few chips came in them."""

_INDEPENDENT = 4.0
"""So many chips of one scene count as independent of each other: those of one face within seconds are much alike, and
to add up the log-probabilities of all would make sure of what one chip only suggests."""

_NEWEST = 3
"""So many chips that say the same, and something else than all before, are a change: a tunnel, a hand before the face.
Two are not enough: of single chips one in twenty is mistaken for another condition."""

_SURE = 0.95  # how probable they make their condition, to be a change
_APART = 0.6  # and how far all before is from that


class Evidence:
    """A running mean of log-probabilities, in which older chips count for less, and nothing after a change."""

    def __init__(self, conditions: int) -> None:
        """Nothing has been seen yet."""
        self._sum: NDArray[np.float64] = np.zeros(conditions)
        self._at = -math.inf
        self._newest: deque[Float32] = deque(maxlen=_NEWEST)
        self.chips = 0.0

    def add(self, log_posterior: Float32, at: float) -> None:
        """Take in a chip seen ``at``, monotonic seconds; one that is older than the last counts as new as that."""
        passed = max(0.0, at - self._at)
        kept = 0.5 ** (1 / _HALF_LIFE + passed / _HALF_LIFE_S) if math.isfinite(passed) else 0.0
        self._sum = kept * self._sum + log_posterior
        self.chips = kept * self.chips + 1
        self._at = max(self._at, at)
        if passed > _HALF_LIFE_S:
            self._newest.clear()
        self._newest.append(log_posterior)
        if self._changed():
            self._sum, self.chips = np.asarray(np.mean(self._newest, axis=0), np.float64) * LEAST, LEAST

    def _changed(self) -> bool:
        """The newest chips say one and the same condition, and together with the older ones something else."""
        if len(self._newest) < _NEWEST or len({int(each.argmax()) for each in self._newest}) > 1:
            return False
        alone = _likely(np.mean(self._newest, axis=0), _NEWEST)
        together = _likely(self._sum / self.chips, self.chips)
        return bool(alone.max() > _SURE and distance(alone, together) > _APART)

    def shares(self) -> Float32 | None:
        """Float32 [conditions] of sum 1: how probable each is; None before there is enough evidence."""
        if self.chips < LEAST:
            return None
        return np.asarray(_likely(self._sum / self.chips, self.chips), np.float32)


def _likely(mean: NDArray[np.floating], chips: float) -> NDArray[np.float64]:
    """Float64 [conditions] of sum 1: how probable each is, by the mean of the log-probabilities of so many chips."""
    return softmax(mean.astype(np.float64) * min(chips, _INDEPENDENT))


def distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Total variation distance of two distributions, 0 to 1."""
    return float(np.abs(one - other).sum() / 2)
