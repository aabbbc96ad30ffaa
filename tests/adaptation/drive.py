"""Faces that go by an adapter as they would in a car."""

import numpy as np

from agent.adaptation.types import Adapts, Sample
from agent.perception.vote import softmax
from calibration.corruptions import corrupt

LOOKS_S = 0.2  # between two looks, as the daemon makes them


class Drive:
    """Shows faces to an adapter and asks for a decision once a second, as the worker does."""

    def __init__(self, adapter: Adapts, template: np.ndarray) -> None:
        self.adapter, self.template = adapter, template
        self.decisions: list = []
        self.at = 0.0
        self.looks = 0

    def through(self, faces: list[np.ndarray], count: int, kind: str = "", severity: int = 3) -> dict:
        """So many looks; the norms that run then."""
        for _ in range(count):
            chip = faces[self.looks % len(faces)]
            if kind:
                chip = corrupt(chip, kind, severity, 0, str(self.looks), self.template)
            flat = tuple(softmax(np.zeros(7, np.float32)).tolist())
            self.adapter.observe(Sample(chip, flat, self.looks, self.at))
            self.looks += 1
            self.at += LOOKS_S
            if self.looks % 5 == 0 and (decision := self.adapter.propose()) is not None:
                self.decisions.append(decision)
        accepted = [each for each in self.decisions if each.accepted]
        return accepted[-1].norms if accepted else {}
