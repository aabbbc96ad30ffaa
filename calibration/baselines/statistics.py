"""Norm layers on the statistics of what is seen in place of the source's; with torch.

A pack's norm layer is y = scale · x + shift, its BN layer folded. It is unfolded here: x is brought to mean 0 and
deviation 1, and scale and shift become those of BN, which is what the papers' methods learn. Steps of one length then
suit all layers: folded factors of the default pack are 0.2 to 14 in the mean of a layer, unfolded ones 0.8 to 1.3.

All layers' moments are measured in one pass in which every layer goes by its own batch: each depends on those before.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from agent.adaptation.network import FaceNetwork, Norm
from calibration.baselines.method import BLOCK, UPDATE, Answer, Chips, Source

_EPS = 1e-5  # of BatchNorm
_PIXELS = "input"

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel, float32 [channels]."""


class Statistics:
    """What one norm layer goes by: moments that are held, or those of the batch at hand.

    Attributes:
        source: moments on clean faces.
        held: moments that answers go by.
        share: how much of the batch is in the moments while it is learnt from, the rest is the source's; None: ``held``
            are used as they are.
        rolls: the rest is not the source's but what was held.
        holds: what was used for a batch is held from then on.
    """

    def __init__(self, source: Moments) -> None:
        self.source = self.held = source
        self.share: float | None = None
        self.rolls = False
        self.holds = True

    def __call__(self, x: Tensor) -> Tensor:
        """``x``, float32 [n, channels, height, width], with mean 0 and deviation 1 in place of the moments in use."""
        mean, variance = self.held
        if self.share is not None:
            rest, share = self.held if self.rolls else self.source, self.share
            batch = zip(rest, moments(x, self.held[0]), strict=True)
            mean, variance = (torch.lerp(old, new, share) for old, new in batch)
            if self.holds:
                self.held = mean.detach(), variance.detach()
        factor = torch.rsqrt(variance + _EPS)
        return x * factor[:, None, None] - (mean * factor)[:, None, None]


def moments(x: Tensor, around: Tensor) -> Moments:
    """Mean and variance of each channel, with gradients.

    The variance comes from squares of what ``x`` is off ``around``: ``torch.var_mean`` takes ten times as long, and
    squares of ``x`` itself would lose digits where the mean is large.

    Args:
        x: float32 [n, channels, height, width].
        around: float32 [channels], about the mean.
    """
    off = x - around[:, None, None]
    mean = off.mean((0, 2, 3))
    variance = (off * off).mean((0, 2, 3)) - mean * mean
    return mean + around, variance.clamp(min=0.0)


class Adaptable:
    """The network with statistics at its norm layers, and what methods do with it.

    Attributes:
        network: the module.
        layers: its norm layers that stand for BN layers, with their statistics.
    """

    def __init__(self, source: Source, known: Mapping[str, Moments]) -> None:
        """Load the network; ``known`` are the source's moments, see ``source_moments``."""
        torch.set_num_threads(source.threads)
        self.network = FaceNetwork(source.model, source.outputs)
        self.network.requires_grad_(False)
        self.layers = {
            name: (norm, Statistics(known[name]))
            for name, norm in self.network.norms.items()
            if name != _PIXELS
        }
        for norm, statistics in self.layers.values():
            _unfold(norm, statistics.source)
            norm.requires_grad_(True)
            norm.renormalise = statistics

    @property
    def parameters(self) -> list[Tensor]:
        """Scale and shift of every layer, unfolded."""
        return [parameter for norm, _ in self.layers.values() for parameter in (norm.scale, norm.shift)]

    @contextmanager
    def on_batch(self, share: float = 1.0, *, rolls: bool = False, holds: bool = True) -> Iterator[None]:
        """Have the layers go by the batch at hand, with gradients through its moments; see ``Statistics``."""
        for _, each in self.layers.values():
            each.share, each.rolls, each.holds = share, rolls, holds
        yield
        for _, each in self.layers.values():
            each.share = None

    @torch.no_grad()
    def answer(self, chips: Chips) -> Answer:
        """Answers with the moments that are held."""
        found = self.network(torch.from_numpy(chips))
        logits = found["emotion"].numpy()
        return logits, found["embedding"].numpy() if "embedding" in found else logits[:, :0]

    def logits(self, chips: Tensor) -> Tensor:
        """Logits to learn from: float32 [n, labels] of uint8 or float32 chips [n, side, side, 3]."""
        logits: Tensor = self.network(chips)["emotion"]
        return logits


@torch.no_grad()
def _unfold(norm: Norm, source: Moments) -> None:
    """Make scale and shift those for inputs of mean 0 and deviation 1, where they were for ones of ``source``."""
    mean, variance = source
    norm.shift.add_(norm.scale * mean)
    norm.scale.mul_(torch.sqrt(variance + _EPS))


@torch.no_grad()
def source_moments(source: Source) -> dict[str, Moments]:
    """Moments of what each norm layer reads, over the source's clean chips."""
    torch.set_num_threads(source.threads)
    network = FaceNetwork(source.model, source.outputs)
    sums: dict[str, list[Tensor]] = {name: [] for name in network.norms}

    def listen(name: str) -> Callable[[Tensor], Tensor]:
        def heard(x: Tensor) -> Tensor:
            sums[name].append(torch.stack([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))]) * len(x))
            return x

        return heard

    for name, norm in network.norms.items():
        norm.renormalise = listen(name)
    for start in range(0, len(source.chips), BLOCK):
        network(torch.from_numpy(source.chips[start : start + BLOCK]))
    found = {}
    for name, parts in sums.items():
        mean, square = torch.stack(parts).sum(0) / len(source.chips)
        found[name] = (mean, torch.clamp(square - mean * mean, min=0.0))
    return found


class BatchNormStatistics:
    """BN statistics: half those of the last chips, half the source's.

    Schneider, Rusak, Eck, Bringmann, Brendel and Bethge, "Improving robustness against common corruptions by covariate
    shift adaptation" (NeurIPS 2020), equation 3, with a prior that weighs as much as the window; Nado et al.,
    "Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift" (2020). Theirs are the moments
    of the batch that is answered, here the batch are the frames before. Window and prior were chosen on FER2013's
    public test: 32 chips with a prior of 16, the paper's for small batches, lost 1 to 7 points more.
    """

    window = prior = 128

    def __init__(self, source: Source, known: Mapping[str, Moments]) -> None:
        self._net = Adaptable(source, known)
        self._batchwise = source.batchwise
        self._recent: deque[Chips] = deque(maxlen=self.window)
        self._since = 0

    def step(self, chips: Chips, *_: object) -> Answer:
        """See ``Method.step``."""
        answers = self._net.answer(chips)
        self._recent.extend(chips.copy())
        self._since += len(chips)
        if self._batchwise or self._since >= UPDATE:
            self._since = 0
            with self._net.on_batch(len(self._recent) / (len(self._recent) + self.prior)):
                self._net.answer(np.stack(self._recent))
        return self._net.answer(chips) if self._batchwise else answers
