"""Tent: less entropy.

Wang, Shelhamer, Liu, Olshausen and Darrell, "Tent: Fully Test-Time Adaptation by Entropy Minimization" (ICLR 2021).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from agent.adaptation.losses import entropy
from calibration.baselines.entropy import EntropyMethod
from calibration.baselines.method import Source
from calibration.baselines.statistics import Moments

RATE = 5e-3
"""Of Adam. The paper has 0.001 for small images, on streams fifty times as long; see docs/adaptation.md."""


class Tent(EntropyMethod):
    """One step of Adam on the mean entropy of each batch."""

    def __init__(self, source: Source, known: Mapping[str, Moments], rate: float = RATE) -> None:
        super().__init__(source, known)
        self._optimiser = torch.optim.Adam(self.net.parameters, lr=rate)

    def learn(self, chips: Tensor) -> None:
        """See ``EntropyMethod.learn``."""
        loss = entropy(self.net.logits(chips)).mean()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
