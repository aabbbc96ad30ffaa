"""Decide over a track what a single look cannot: who it is, and which expression."""

from collections import Counter, deque
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.config import Identity
from agent.perception.types import Emotion, Float32, Match

Floating = TypeVar("Floating", bound=np.floating)

_LEAD = 0.05  # by how much another expression must lead before the label changes: stops flicker at a tie


class IdentityVote:
    """The newest looks at one track, and the decision that they carry.

    A person is confirmed when at least ``votes`` of the newest ``window`` good looks, and two thirds of them, name
    that person; the track is unknown when as many name nobody. Between the two the last decision stands, as long as
    it has a third of the looks left. Looks that agree on nothing for a whole window make the track unknown as well,
    and the reason is then ``ambiguous``.

    So one odd look never overturns a decision, unless the window holds but one.
    """

    def __init__(self, settings: Identity) -> None:
        self._settings = settings
        self._looks: deque[Match] = deque(maxlen=settings.window)
        self._poor = 0
        self.state = "seen"
        self.match: Match | None = None

    @property
    def decided(self) -> bool:
        """The track is confirmed or unknown."""
        return self.state != "seen"

    def add_poor(self) -> None:
        """Count a look that the quality gate refused.

        After as many in a row as the window holds, the good looks of before say nothing about the face of now, and
        the track is unknown.
        """
        self._poor += 1
        if self._poor >= self._settings.window:
            self._looks.clear()
            self.state, self.match = "unknown", None

    def add(self, look: Match) -> None:
        """Count a good look and decide anew."""
        self._looks.append(look)
        self._poor = 0
        person, count = Counter(each.person for each in self._looks).most_common(1)[0]
        if count >= self._settings.votes and 3 * count >= 2 * len(self._looks):
            self.state = "unknown" if person is None else "confirmed"
            newest = next(each for each in reversed(self._looks) if each.person == person)
            self.match = newest
        elif self._at_odds():
            self.state, self.match = "unknown", replace(look, person=None, reason="ambiguous")
        elif self.match is not None and self.match.person == look.person:
            self.match = look

    def _at_odds(self) -> bool:
        """The looks support neither a new decision nor the last one."""
        if self.state == "seen":
            return len(self._looks) == self._settings.window
        confirmed = self.match.person if self.match is not None else None
        return confirmed is not None and 3 * sum(each.person == confirmed for each in self._looks) < len(
            self._looks
        )


class EmotionSmoother:
    """Expression probabilities of one track, exponentially averaged over time."""

    def __init__(self, labels: tuple[str, ...], time_constant: float) -> None:
        """Smooth with ``time_constant`` seconds; 0 does not smooth."""
        self._labels = labels
        self._time_constant = time_constant
        self._average: Float32 | None = None
        self._label = 0
        self._updated = 0.0

    def add(self, logits: Float32, now: float) -> Emotion:
        """Take in one look's logits, float32 [labels], at ``now`` seconds; returns the smoothed expression."""
        probabilities = softmax(logits)
        if self._average is None:
            self._average = probabilities
            self._label = int(probabilities.argmax())
        elif self._time_constant == 0:
            self._average = probabilities
        else:
            gain = 1 - np.exp(-max(0.0, now - self._updated) / self._time_constant)
            self._average = self._average + np.float32(gain) * (probabilities - self._average)
        self._updated = now
        best = int(self._average.argmax())
        if self._average[best] > self._average[self._label] + _LEAD:
            self._label = best
        return Emotion(self._labels[self._label], tuple(self._average.tolist()))


def softmax(logits: NDArray[Floating]) -> NDArray[Floating]:
    """Probabilities of logits, along the last axis, in the precision that they have."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), logits.dtype)
