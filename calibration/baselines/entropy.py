"""What the methods that minimise entropy have in common; with torch.

As published they normalise by the batch, answer it and learn from it. Here a block is answered with the moments of the
last batch; once ``UPDATE`` frames have gathered, they are the next batch to learn from.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from calibration.baselines.method import UPDATE, Answer, Chips, Source
from calibration.baselines.statistics import Adaptable, Moments


class EntropyMethod(ABC):
    """Answers block by block, and learns from past frames on their own statistics."""

    def __init__(self, source: Source, known: Mapping[str, Moments]) -> None:
        self.net = Adaptable(source, known)
        self._batchwise = source.batchwise
        self._waiting: list[Chips] = []

    def step(self, chips: Chips, *_: object) -> Answer:
        """See ``Method.step``."""
        answers = self.net.answer(chips)
        self._waiting.append(chips)
        if self._batchwise or sum(map(len, self._waiting)) >= UPDATE:
            with self.net.on_batch():
                self.learn(torch.from_numpy(np.concatenate(self._waiting)))
            self._waiting.clear()
        return self.net.answer(chips) if self._batchwise else answers

    @abstractmethod
    def learn(self, chips: Tensor) -> None:
        """One update from a batch, uint8 [n, side, side, 3], normalised by its own statistics."""
