"""RoTTA: Yuan, Xie and Li, "Robust Test-Time Adaptation in Dynamic Scenarios" (CVPR 2023).

A memory balanced over predicted labels that forgets the old and the uncertain, norm statistics that follow it slowly,
and a student that learns from a teacher, its own running average, which answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agent.perception.vote import softmax
from calibration.baselines.method import UPDATE, Answer, Chips, Source
from calibration.baselines.statistics import Adaptable, Moments

CAPACITY = 32
"""Chips in memory, as many as frames from one update to the next; the paper has 64 of both, and longer streams."""
FOLLOW = 0.2
"""How far the statistics of norm layers go towards those of the memory in an update. The paper has 0.05, and some
thousand updates instead of ten; see docs/adaptation.md."""
TEACHER = 0.001
"""How far the teacher goes towards the student in an update."""
RATE = 1e-3


@dataclass
class Kept:
    """A chip in memory; its age in frames grows."""

    chip: Chips
    label: int
    uncertainty: float
    age: int = 0


class Memory:
    """The paper's category-balanced sampling with timeliness and uncertainty (CSTU)."""

    def __init__(self, labels: int, capacity: int = CAPACITY) -> None:
        self._labels, self._capacity = labels, capacity
        self.kept: list[Kept] = []

    def add(self, chip: Chips, label: int, uncertainty: float) -> None:
        """Take a chip in where it is worth more than what would have to go; all others get older."""
        new = Kept(chip, label, uncertainty)
        counts = np.bincount([each.label for each in self.kept], minlength=self._labels)
        if counts[label] < self._capacity / self._labels:
            full = len(self.kept) >= self._capacity
            crowded = set(np.flatnonzero(counts == counts.max()).tolist()) if full else set()
        else:
            crowded = {label}
        rivals = [each for each in self.kept if each.label in crowded]
        worst = max(rivals, key=self._worth_less, default=None)
        if worst is None or self._worth_less(worst) > self._worth_less(new):
            self.kept = [each for each in self.kept if each is not worst] + [new]
        for each in self.kept:
            each.age += 1

    def _worth_less(self, each: Kept) -> float:
        age = 1 / (1 + math.exp(-each.age / self._capacity))
        return age + each.uncertainty / math.log(self._labels)

    def weights(self) -> Tensor:
        """How much each chip counts in an update: the young count more."""
        ages = torch.tensor([each.age / self._capacity for each in self.kept])
        return torch.exp(-ages) / (1 + torch.exp(-ages))


class Rotta:
    """The teacher answers; the student learns from the memory."""

    def __init__(
        self, source: Source, known: Mapping[str, Moments], labels: int, seed: int, rate: float = RATE
    ) -> None:
        self._teacher, self._student = Adaptable(source, known), Adaptable(source, known)
        self._memory = Memory(labels)
        self._random = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.Adam(self._student.parameters, lr=rate)
        self._since = 0

    def step(self, chips: Chips, *_: object) -> Answer:
        """See ``Method.step``; with the teacher's running average there is no more to gain from the block itself."""
        answers = self._teacher.answer(chips)
        for chip, probabilities in zip(chips, softmax(answers[0]), strict=True):
            uncertainty = float(-(probabilities * np.log(probabilities + 1e-12)).sum())
            self._memory.add(chip.copy(), int(probabilities.argmax()), uncertainty)
            self._since += 1
        if self._since >= UPDATE:
            self._since = 0
            self._learn()
        return answers

    def _learn(self) -> None:
        chips = torch.from_numpy(np.stack([each.chip for each in self._memory.kept]))
        with torch.no_grad(), self._teacher.on_batch(FOLLOW, rolls=True):
            target = self._teacher.logits(chips).softmax(1)
        with self._student.on_batch(FOLLOW, rolls=True):
            logits = self._student.logits(strongly_varied(chips, self._random))
        loss = (self._memory.weights() * -(target * logits.log_softmax(1)).sum(1)).mean()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        approach(self._teacher.parameters, self._student.parameters, TEACHER)


@torch.no_grad()
def approach(teacher: Sequence[Tensor], student: Sequence[Tensor], share: float) -> None:
    """Move the teacher towards the student."""
    for slow, quick in zip(teacher, student, strict=True):
        slow.lerp_(quick, share)


def strongly_varied(chips: Tensor, random: torch.Generator) -> Tensor:
    """Chips, uint8 [n, side, side, 3], in other light, place and size, some mirrored, with noise; float32.

    The paper's augmentation is that of CoTTA (Wang et al., CVPR 2022); this one is of the same kind and strength.
    """
    count = len(chips)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    image = chips.permute(0, 3, 1, 2) / 255.0
    angle, scale = drawn(-0.26, 0.26), drawn(0.95, 1.05)
    mirrored = torch.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([mirrored * cos, -sin, drawn(-0.06, 0.06)], 1)]
    rows.append(torch.stack([mirrored * sin, cos, drawn(-0.06, 0.06)], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(image.shape), align_corners=False)
    image = functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    gamma, contrast, light = (
        each[:, None, None, None] for each in (drawn(0.7, 1.3), drawn(0.7, 1.3), drawn(0.6, 1.4))
    )
    image = image.clamp(min=1e-6) ** gamma * light
    middle = image.mean((1, 2, 3), keepdim=True)
    image = middle + contrast * (image - middle)
    image = image + 0.005 * torch.randn(image.shape, generator=random)
    return (255 * image.clamp(0, 1)).permute(0, 2, 3, 1)
