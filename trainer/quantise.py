"""Training that knows it will run in whole numbers: the power-of-two quantiser, and layers that go through it.

Q(x) = round(x 2^n) / 2^n, as microcontrollers with whole-number convolutions have it (MAX7800x): a scale that is a
power of two costs a shift instead of a multiplication. The calibration's INT8 (any scale, per channel) is finer; this
stands beside it. Rounding has a gradient of 0 nearly everywhere, so it is passed straight through (Bengio et al. 2013),
except where a value is beyond the largest number and a small change of it would not be seen.
"""

import copy
import math
from collections.abc import Collection
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engines.errors import UserError
from trainer.losses.processes import largest

N = TypeVar("N", bound=nn.Module)

LAYERS = (nn.Conv2d, nn.Linear)
FINEST = 126  # bits behind the point; float32 has no larger power of two whose inverse is normal
NO_START = "quantise fine-tunes a trained network: name its run with start"
MEMORY = 0.99  # share of the old peak of activations that a step keeps


class QuantisationError(UserError):
    """A network cannot be trained for whole numbers; the message says why and what to do."""


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


class Quantised(nn.Module):
    """A convolution or linear layer whose input and weights go through Q on the way; the optimiser moves the fine ones.

    The input's grid follows its peak, a running mean over the steps in training mode; in evaluation it stands still.

    Attributes:
        layer: the layer itself.
        width: bits of a number, sign included.
        peak: largest magnitude of the input, float32 [].
    """

    peak: Tensor

    def __init__(self, layer: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.layer = layer
        self.width = width
        self.register_buffer("peak", torch.zeros(()))

    def on_grid(self) -> Tensor:
        """The weights as the layer computes with them."""
        fine = self.layer.get_parameter("weight")
        return power_of_two(fine, bits_for(float(fine.detach().abs().max()), self.width), self.width)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        if self.training:
            now = largest(x.abs().max().to(self.peak))
            self.peak.copy_(torch.where(self.peak > 0.0, MEMORY * self.peak + (1.0 - MEMORY) * now, now))
        rounded = power_of_two(x, bits_for(float(self.peak), self.width), self.width)
        out: Tensor = functional_call(self.layer, {"weight": self.on_grid()}, (rounded,))
        return out


def prepare(network: nn.Module, width: int = 8) -> None:
    """Wrap every convolution and linear layer below ``network`` in ``Quantised``, in place, to fine-tune it.

    Names of the wrapped layers' tensors change in the state; ``finish`` brings the old ones back.

    Raises:
        QuantisationError: a layer is of a kind derived from these, which may do more to its weights than multiply.
    """
    for name, module in list(network.named_modules()):
        for part, child in list(module.named_children()):
            if not isinstance(child, LAYERS) or isinstance(module, Quantised):
                continue
            if type(child) not in LAYERS:
                raise QuantisationError(
                    f"{f'{name}.{part}'.removeprefix('.')} is a {type(child).__name__}: what it computes cannot be "
                    "rounded from outside; choose another backbone, or leave quantise out"
                )
            setattr(module, part, Quantised(child, width))


def try_out(network: nn.Module, x: Tensor) -> None:
    """Run what ``prepare`` has wrapped once, in evaluation mode; its mode is as before then.

    Raises:
        QuantisationError: it reads weights of a wrapped layer without calling the layer.
    """
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(x)
    except AttributeError as error:
        raise QuantisationError(
            f"this network reads its layers' weights past the layers ({error}), so nothing can be rounded on the way; "
            "choose another backbone, or leave quantise out"
        ) from error
    network.train(training)


def finish(network: nn.Module) -> dict[str, int]:
    """Unwrap what ``prepare`` wrapped, in place; the weights that stay are the quantised ones.

    Returns:
        The bits behind the point of each layer's input, by the layer's dotted name.
    """
    bits: dict[str, int] = {}
    for name, module in list(network.named_modules()):
        for part, child in list(module.named_children()):
            if isinstance(child, Quantised):
                with torch.no_grad():
                    child.layer.get_parameter("weight").copy_(child.on_grid())
                setattr(module, part, child.layer)
                bits[f"{name}.{part}".removeprefix(".")] = bits_for(float(child.peak), child.width)
    return bits


def deployable(network: N) -> tuple[N, dict[str, int]]:
    """A copy in evaluation mode, unwrapped, and what ``finish`` says; one that was not wrapped has no bits."""
    made = copy.deepcopy(network).eval()
    return made, finish(made)


def wrapped(names: Collection[str]) -> bool:
    """Whether a state with these names is that of a network that ``prepare`` has changed."""
    return any(
        f"{name.removesuffix('peak')}layer.weight" in names for name in names if name.endswith(".peak")
    )
