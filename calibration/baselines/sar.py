"""SAR: sharpness-aware and reliable.

Niu, Wu, Zhang, Wen, Chen, Zhao and Tan, "Towards Stable Test-Time Adaptation in Dynamic Wild World" (ICLR 2023).
Entropy of sure answers at the worst point nearby (sharpness-aware: Foret et al., ICLR 2021), and back to the source
when the entropy has become so small that the network has collapsed.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from agent.adaptation.losses import entropy
from calibration.baselines.entropy import EntropyMethod
from calibration.baselines.method import Source
from calibration.baselines.statistics import Moments

RATE, MOMENTUM = 1e-3, 0.9
"""The rate is the paper's for ViT; its 0.00025 for ResNet-50 is for streams of 50,000 images."""
SURE = 0.4
"""Answers of less entropy than this share of the greatest are sure."""
RADIUS = 0.05
"""Of the neighbourhood in which the worst point is sought."""
COLLAPSED = 0.2
"""Average entropy in nats below which all is forgotten. The paper has it for 1,000 labels."""
_DECAY = 0.9  # of that average


class Sar(EntropyMethod):
    """Two passes for each update: up to the worst point nearby, and down from there."""

    def __init__(self, source: Source, known: Mapping[str, Moments], rate: float = RATE) -> None:
        super().__init__(source, known)
        self._start = [parameter.detach().clone() for parameter in self.net.parameters]
        self._rate = rate
        self._forget()

    def _forget(self) -> None:
        self._optimiser = torch.optim.SGD(self.net.parameters, lr=self._rate, momentum=MOMENTUM)
        self._average: float | None = None

    def learn(self, chips: Tensor) -> None:
        """See ``EntropyMethod.learn``."""
        logits = self.net.logits(chips)
        first = entropy(logits)
        limit = SURE * math.log(logits.shape[1])
        sure = first < limit
        if not sure.any():
            return
        self._optimiser.zero_grad()
        first[sure].mean().backward()  # type: ignore[no-untyped-call]
        chosen = chips[sure]
        moved = climb(self.net.parameters)
        with self.net.on_batch(holds=False):
            second = entropy(self.net.logits(chosen))
        still = second.detach() < limit
        self._optimiser.zero_grad()
        if still.any():
            loss = second[still].mean()
            loss.backward()  # type: ignore[no-untyped-call]
            now = float(loss.detach())
            self._average = now if self._average is None else _DECAY * self._average + (1 - _DECAY) * now
        descend(self.net.parameters, moved, self._optimiser.step)
        if self._average is not None and self._average < COLLAPSED:
            with torch.no_grad():
                for parameter, start in zip(self.net.parameters, self._start, strict=True):
                    parameter.copy_(start)
            self._forget()


@torch.no_grad()
def climb(parameters: Sequence[Tensor], radius: float = RADIUS) -> list[Tensor]:
    """Move along the gradient to the edge of the neighbourhood; what was added to each parameter."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    length = torch.stack([gradient.norm() for gradient in gradients]).norm()
    moved = [radius * gradient / (length + 1e-12) for gradient in gradients]
    for parameter, step in zip(parameters, moved, strict=True):
        parameter.add_(step)
    return moved


@torch.no_grad()
def descend(parameters: Sequence[Tensor], moved: Sequence[Tensor], step: Callable[[], object]) -> None:
    """Go back to where the climb began, and take a step with the gradient found up there."""
    for parameter, added in zip(parameters, moved, strict=True):
        parameter.sub_(added)
    step()
