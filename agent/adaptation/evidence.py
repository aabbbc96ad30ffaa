"""Which condition holds, by chips that come in one after another. Pure."""

import math

import numpy as np

from agent.perception.types import Float32

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


class Evidence:
    """A running mean of log-probabilities, in which older chips count for less."""

    def __init__(self, conditions: int) -> None:
        """Nothing has been seen yet."""
        self._sum = np.zeros(conditions, np.float64)
        self._at = -math.inf
        self.chips = 0.0

    def add(self, log_posterior: Float32, at: float) -> None:
        """Take in a chip seen ``at``, monotonic seconds; one that is older than the last counts as new as that."""
        passed = max(0.0, at - self._at)
        kept = 0.5 ** (1 / _HALF_LIFE + passed / _HALF_LIFE_S) if math.isfinite(passed) else 0.0
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
