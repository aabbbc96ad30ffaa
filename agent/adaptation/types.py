"""What passes between the daemon, the worker process and whoever adapts."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Image

Norms = dict[str, NDArray[np.float32]]
"""What adaptation sets, by name, each float32 of one dimension: norm parameters (``norm.LAYER.scale`` or
``norm.LAYER.shift``, [channels]; see ``engines.norms``), and the filter before the network (``chip.filter``)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One chip that was looked at, of a face that was good enough.

    Attributes:
        chip: uint8 BGR [side, side, 3].
        probabilities: of every expression, in the pack's order, as the running model gave them; they add up to 1.
        track: number of the face's track. Two cameras' tracks never have the same one.
        at: when the frame was captured, monotonic seconds.
    """

    chip: Image
    probabilities: tuple[float, ...]
    track: int
    at: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an adapter has decided.

    Attributes:
        accepted: ``norms`` may run from now on; else whatever runs goes on.
        norms: the norm parameters that differ from the source model's; empty: the source model itself.
        reason: why, as a code: ``better``, ``source``, ``confirmed``, ``reset:TRIGGER``, or why it was refused; see
            ``agent.adaptation.guard.judge``.
        figures: the numbers behind it.
        rise: by how much more strictly people are judged while ``norms`` run; see ``agent.adaptation.rise``.
    """

    accepted: bool
    norms: Norms
    reason: str
    figures: dict[str, float]
    rise: float = 0.0


class Adapts(Protocol):
    """Whoever adapts: deterministic for a seed; without threads, clock or files."""

    def observe(self, sample: Sample) -> None:
        """Take in a chip; cheap. The chip is only lent."""
        ...

    def propose(self) -> Proposal | None:
        """A decision, which may take seconds; None when there is nothing to decide yet."""
        ...

    def reset(self, reason: str) -> Proposal:
        """Go back to the source model: the proposal is accepted and its ``norms`` are empty."""
        ...
