"""EATA: adaptation without forgetting.

Niu, Wu, Zhang, Chen, Zheng, Zhao and Tan, "Efficient Test-Time Model Adaptation without Forgetting" (ICML 2022).
Entropy of answers that are sure and unlike the average answer so far, with a penalty for leaving the source where the
Fisher information says that it matters.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from agent.adaptation.losses import entropy
from calibration.baselines.entropy import EntropyMethod
from calibration.baselines.method import BLOCK, Source
from calibration.baselines.statistics import Adaptable, Moments

RATE, MOMENTUM = 0.005, 0.9
SURE = 0.4
"""Answers of less entropy than this share of the greatest are sure."""
UNLIKE = 0.4
"""Answers of less cosine to the average than this are not redundant."""
PENALTY = 1.0
"""Weight of the Fisher penalty. These are the paper's values for CIFAR-10, whose number of labels is the nearest."""
_DECAY = 0.9  # of the average answer


class Eata(EntropyMethod):
    """Weighted entropy of chosen answers, and a Fisher penalty."""

    def __init__(
        self, source: Source, known: Mapping[str, Moments], important: Sequence[Tensor], rate: float = RATE
    ) -> None:
        """Start at the source, of whose parameters ``important`` is the Fisher information; see ``fisher``."""
        super().__init__(source, known)
        self._start = [parameter.detach().clone() for parameter in self.net.parameters]
        self._fisher = important
        self._optimiser = torch.optim.SGD(self.net.parameters, lr=rate, momentum=MOMENTUM)
        self._average: Tensor | None = None

    def learn(self, chips: Tensor) -> None:
        """See ``EntropyMethod.learn``."""
        logits = self.net.logits(chips)
        chosen, self._average = choose(logits.detach(), self._average)
        if not len(chosen):
            return
        uncertain = entropy(logits[chosen])
        weight = torch.exp(SURE * math.log(logits.shape[1]) - uncertain.detach())
        loss = (weight * uncertain).mean()
        for parameter, start, importance in zip(self.net.parameters, self._start, self._fisher, strict=True):
            loss = loss + PENALTY * (importance * (parameter - start) ** 2).sum()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()


def choose(logits: Tensor, average: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The answers to learn from, as int64 [m], and the new average answer, float32 [labels].

    Args:
        logits: float32 [n, labels].
        average: of the answers that were chosen before; None before any was.
    """
    sure = torch.nonzero(entropy(logits) < SURE * math.log(logits.shape[1]))[:, 0]
    probabilities = logits[sure].softmax(1)
    if average is not None and len(sure):
        unlike = functional.cosine_similarity(average[None], probabilities).abs() < UNLIKE
        sure, probabilities = sure[unlike], probabilities[unlike]
    if not len(sure):
        return sure, average
    mean = probabilities.mean(0)
    return sure, mean if average is None else _DECAY * average + (1 - _DECAY) * mean


def fisher(source: Source, known: Mapping[str, Moments]) -> list[Tensor]:
    """Diagonal Fisher information of every parameter on source data, labelled by the network itself.

    As in the paper's code: squared gradients of the mean loss of batches, averaged over batches.
    """
    net = Adaptable(source, known)
    found = [torch.zeros_like(parameter) for parameter in net.parameters]
    batches = torch.split(torch.from_numpy(source.chips), BLOCK)
    for batch in batches:
        logits = net.logits(batch)
        loss = functional.cross_entropy(logits, logits.argmax(1))
        gradients = torch.autograd.grad(loss, net.parameters, allow_unused=True)
        for index, gradient in enumerate(gradients):
            if gradient is not None:  # layers that lead to the embedding alone have none
                found[index] += gradient**2 / len(batches)
    return found
