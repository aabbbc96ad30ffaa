"""Which condition holds, by chips that come in one after another. Pure."""

import math

import numpy as np

from agent.perception.types import Float32

LEAST = 6.0
"""Chips' worth of evidence without which nothing is said."""

_INDEPENDENT = 4.0
"""So many chips of one scene count as independent of each other: those of one face within seconds are much alike, and
to add up the log-probabilities of all would make sure of what one chip only suggests."""


class Evidence:
    """A running mean of log-probabilities, in which older chips count for less."""

    def __init__(self, conditions: int, half_life_s: float) -> None:
        """Nothing has been seen yet; ``half_life_s`` seconds halve the weight of what was seen."""
        self._half_life = half_life_s
        self._sum = np.zeros(conditions, np.float64)
        self._at = -math.inf
        self.chips = 0.0

    def add(self, log_posterior: Float32, at: float) -> None:
        """Take in a chip seen ``at``, monotonic seconds; one that is older than the last counts as new as that."""
        kept = 0.5 ** (max(0.0, at - self._at) / self._half_life) if math.isfinite(self._at) else 0.0
        self._sum = kept * self._sum + log_posterior
        self.chips = kept * self.chips + 1
        self._at = max(self._at, at)

    def shares(self) -> Float32 | None:
        """Float32 [conditions] of sum 1: how probable each is; None before there is enough evidence."""
        if self.chips < LEAST:
            return None
        logits = self._sum / self.chips * _INDEPENDENT
        likely = np.exp(logits - logits.max())
        return np.asarray(likely / likely.sum(), np.float32)
