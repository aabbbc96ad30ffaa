"""Softmax over identities, plain and with ArcFace's angular margin, one or several centres a class.

The margin is a function of the target's cosine alone, so that the head in one process (here) and the head whose classes
are spread over processes (``partial_fc``) share it. pytorch-metric-learning's heads hold all classes in one matrix, and
their margin is fixed when they are made; they are what the tests compare with.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.precision import wide

# Of a fresh centre's values, as in the authors' code. Only directions count; the shorter a centre, the faster it turns.
CENTRE_DEVIATION = 0.01


@dataclass(frozen=True)
class Margin:
    """The settings of a margin softmax at one step; a schedule makes a new one for each.

    Attributes:
        margin: radians, 0..pi/2; 0 is the softmax of normalised vectors (Wang et al. 2017), 0.5 Deng et al. 2019.
        scale: of the cosines, above 0; 64 is Deng et al. 2019, for few classes see ``schedules.least_scale``.
        doubt: cosine to the own class below which a label is doubted, see ``trust``; None: every label is believed.
        softness: width, in cosine, over which doubt sets in, at least 0; 0: doubted samples are dropped.

    Raises:
        ValueError: a value is out of its range.
    """

    margin: float = 0.5
    scale: float = 64.0
    doubt: float | None = None
    softness: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin <= math.pi / 2:
            raise ValueError(f"margin {self.margin} is not within 0..pi/2 radians")
        if self.scale <= 0.0 or self.softness < 0.0:
            raise ValueError("scale must be above 0, softness not below 0")


class Identified(NamedTuple):
    """What a softmax over identities says of a batch; each float [].

    Attributes:
        loss: which is descended.
        cross_entropy: without margin and doubt, so that steps with different margins can be compared; no gradient.
        top1: share of the samples to which no class is nearer than their own; no gradient.
    """

    loss: Tensor
    cross_entropy: Tensor
    top1: Tensor


def cosines(embeddings: Tensor, centres: Tensor) -> Tensor:
    """Cosine of each embedding to each class: to the nearest of its sub-centres (Deng et al. 2020).

    Args:
        embeddings: float [n, d], of any length.
        centres: float [classes, k, d], of any length.

    Returns:
        [n, classes] in -1..1; float32, or float64 where an argument is.
    """
    directions = functional.normalize(wide(centres), dim=2).flatten(0, 1)
    products = wide(functional.normalize(wide(embeddings), dim=1) @ directions.T)
    return products.reshape(-1, *centres.shape[:2]).amax(2).clamp(-1.0, 1.0)


def add_margin(cosine: Tensor, margin: float) -> Tensor:
    """The logit cos(theta + m) for cos(theta), by ArcFace's rule (Deng et al. 2019); any shape.

    Where theta + m passes pi the cosine would rise again and reward the worst samples: there it is cos(theta) -
    m sin m, as in the authors' code, which keeps the logit falling with theta and with m for every m up to pi/2. The
    sine comes from the cosine, not through the angle: the derivative of arccos is infinite at both ends, this one is
    bounded.

    Args:
        cosine: float, -1..1.
        margin: m in radians, 0..pi/2.

    Returns:
        float of the same shape, -1 - pi/2..1.
    """
    # The bound makes the gradient 0, not NaN, where the sine is 0.
    sine = (1.0 - cosine.square()).clamp_min(1e-12).sqrt()
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), moved, cosine - margin * math.sin(margin))


def own_class(values: Tensor, labels: Tensor) -> Tensor:
    """Each row's value in the column of its label, 0 for label -1: float [n] of [n, classes] and int64 [n]."""
    picked = values.gather(1, labels.clamp_min(0)[:, None]).squeeze(1)
    return torch.where(labels >= 0, picked, torch.zeros_like(picked))


def margin_logits(cosine: Tensor, labels: Tensor, margin: Margin) -> Tensor:
    """Logits for cross-entropy: scaled cosines, with the margin in the column of each row's label.

    Args:
        cosine: float [n, classes], -1..1.
        labels: int64 [n], 0..classes - 1; -1 where the sample's class is in none of these columns (sharded classes).
        margin: the settings of this step.

    Returns:
        float [n, classes].
    """
    # No row is left out: on a GPU a choice by mask waits for the device.
    column = labels.clamp_min(0)[:, None]
    target = cosine.gather(1, column)
    moved = torch.where(labels[:, None] >= 0, add_margin(target, margin.margin), target)
    return margin.scale * cosine.scatter(1, column, moved)


def weighted_mean(losses: Tensor, cosine: Tensor, margin: Margin) -> Tensor:
    """Mean over all samples of their losses, each times its trust where there is doubt.

    The divisor is the number of samples, not the sum of trust: a dropped sample counts as one that is right already,
    and processes that drop different numbers still weigh each sample alike.

    Args:
        losses: float [n].
        cosine: float [n], to the own class, without margin.
        margin: the settings of this step.

    Returns:
        float [].
    """
    if margin.doubt is None:
        return losses.mean()
    return (losses * trust(cosine, margin.doubt, margin.softness)).mean()


def trust(cosine: Tensor, doubt: float, softness: float) -> Tensor:
    """How far a sample's label is believed, by its cosine to its own class; no gradient passes.

    For late in training: then the cosines of clean and of wrongly labelled samples have parted, early on they have not
    (Hu et al. 2019, Noise-Tolerant Paradigm for Training Face Recognition CNNs). Dropping beyond a fixed angle is of
    Deng et al. 2020 (75 degrees, a cosine of 0.26, between two trainings; see ``label_noise``); the sigmoid is ours.
    With sub-centres the cosine is that to the nearest one.

    Args:
        cosine: float [n], -1..1.
        doubt: cosine below which a label is doubted.
        softness: 0, or s: trust grows from 0.27 at ``doubt - s`` to 0.73 at ``doubt + s``.

    Returns:
        float [n], 0..1; 0 or 1 where softness is 0.
    """
    above = cosine.detach() - doubt
    return torch.sigmoid(above / softness) if softness > 0.0 else (above >= 0.0).to(cosine.dtype)


@torch.no_grad()
def without_margin(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and top-1, float [] each, of logits float [n, classes] and labels int64 [n]; see ``Identified``."""
    top1 = own_class(logits, labels) >= logits.amax(1)
    return functional.cross_entropy(logits, labels), top1.to(logits.dtype).mean()


def fresh_centres(classes: int, subcentres: int, dim: int, generator: torch.Generator | None) -> nn.Parameter:
    """Random class centres, float32 [classes, subcentres, dim]."""
    return nn.Parameter(torch.randn(classes, subcentres, dim, generator=generator) * CENTRE_DEVIATION)


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al. 2019), with ``subcentres`` above 1 sub-centre ArcFace (Deng et al. 2020).

    Sub-centres are one of the answers to label noise: what does not fit a class's main centre gathers about another.
    """

    def __init__(
        self, classes: int, dim: int, subcentres: int = 1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.centres = fresh_centres(classes, subcentres, dim, generator)

    def forward(self, embeddings: Tensor, labels: Tensor, margin: Margin) -> Tensor:
        """Mean loss float [] of embeddings float [n, dim], of any length, and labels int64 [n]."""
        return self.identify(embeddings, labels, margin).loss

    def identify(self, embeddings: Tensor, labels: Tensor, margin: Margin) -> Identified:
        """The loss, and what it is without the margin; arguments as of ``forward``."""
        cosine = cosines(embeddings, self.centres)
        losses = functional.cross_entropy(margin_logits(cosine, labels, margin), labels, reduction="none")
        loss = weighted_mean(losses, own_class(cosine, labels), margin)
        return Identified(loss, *without_margin(margin.scale * cosine, labels))


class Softmax(nn.Module):
    """The plain linear classifier and its cross-entropy: what the margin is measured against."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, classes)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss float [] of embeddings float [n, dim] and labels int64 [n]."""
        return self.identify(embeddings, labels).loss

    def identify(self, embeddings: Tensor, labels: Tensor) -> Identified:
        """The loss, twice, for there is no margin, and top-1; arguments as of ``forward``."""
        logits = wide(self.layer(embeddings))
        return Identified(functional.cross_entropy(logits, labels), *without_margin(logits, labels))
