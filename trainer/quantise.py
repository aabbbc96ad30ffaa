"""Training that knows it will run in whole numbers: the power-of-two quantiser, and layers that go through it.

Q(x) = round(x 2^n) / 2^n, as microcontrollers with whole-number convolutions have it (MAX7800x): a scale that is a
power of two costs a shift instead of a multiplication. The calibration's INT8 (any scale, per channel) is finer; this
stands beside it. Rounding has a gradient of 0 nearly everywhere, so it is passed straight through (Bengio et al. 2013),
except where a value is beyond the largest number and a small change of it would not be seen.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LAYERS = (nn.Conv2d, nn.Linear)
FINEST = 126  # bits behind the point; float32 has no larger power of two whose inverse is normal
MEMORY = 0.99  # share of the old peak of activations that a step keeps


def power_of_two(x: Tensor, bits: int, width: int = 8) -> Tensor:
    """Q(x) = round(x 2^n) / 2^n, halves to even, within the signed whole numbers of ``width`` bits.

    Args:
        x: float, any shape.
        bits: n, the bits behind the point; negative where even whole numbers are too fine.
        width: of the number, sign included, 2..16.

    Returns:
        float of the same shape, in -2^(width-1-n)..(2^(width-1) - 1) 2^-n; the gradient is 1 within, 0 beyond.
    """
    held = (x * 2.0**bits).clamp(-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    return (held + (held.round() - held).detach()) * 2.0**-bits


def bits_for(peak: float, width: int = 8) -> int:
    """The most bits behind the point with which ``peak`` is still a number: the finest grid that holds the range.

    Args:
        peak: largest magnitude, at least 0; of 0 the finest useful grid is that of 1.
        width: of the number, sign included, 2..16.
    """
    if peak <= 0.0:
        return width - 2
    return min(FINEST, math.floor(math.log2((2 ** (width - 1) - 1) / peak)))


class _Weights(nn.Module):
    """A parametrisation: the layer computes with the quantised weights, the optimiser moves the fine ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, weight: Tensor) -> Tensor:
        return power_of_two(weight, bits_for(float(weight.detach().abs().max()), self.width), self.width)


class Quantised(nn.Module):
    """A convolution or linear layer whose input and weights go through Q on the way.

    The input's grid follows its peak, a running mean over the steps in training mode; in evaluation it stands still.
    """

    peak: Tensor

    def __init__(self, layer: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.layer = layer
        self.width = width
        parametrize.register_parametrization(layer, "weight", _Weights(width))
        self.register_buffer("peak", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        if self.training:
            now = x.detach().abs().max().to(self.peak)
            self.peak.copy_(torch.where(self.peak > 0.0, MEMORY * self.peak + (1.0 - MEMORY) * now, now))
        out: Tensor = self.layer(power_of_two(x, bits_for(float(self.peak), self.width), self.width))
        return out


def prepare(network: nn.Module, width: int = 8) -> None:
    """Wrap every convolution and linear layer below ``network`` in ``Quantised``, in place, to fine-tune it.

    Names of the wrapped layers' tensors change in the state; ``finish`` brings the old ones back.
    """
    for name, child in list(network.named_children()):
        if isinstance(child, LAYERS):
            setattr(network, name, Quantised(child, width))
        elif not isinstance(child, Quantised):
            prepare(child, width)


def finish(network: nn.Module) -> dict[str, int]:
    """Unwrap what ``prepare`` wrapped, in place; the weights that stay are the quantised ones.

    Deep copies of ``network`` are broken by it: PyTorch takes the weight from a class that they share with it.

    Returns:
        The bits behind the point of each layer's input, by the layer's dotted name.
    """
    bits: dict[str, int] = {}
    for name, module in list(network.named_modules()):
        for part, child in list(module.named_children()):
            if isinstance(child, Quantised):
                layer: Any = child.layer
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
                setattr(module, part, layer)
                bits[f"{name}.{part}".removeprefix(".")] = bits_for(float(child.peak), child.width)
    return bits
