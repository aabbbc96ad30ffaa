"""A small convolutional network that reads five points from a chip."""

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.backbones.layers import rounded

POINTS = 5
HALVED = 16
"""The side of a chip is a multiple of this: the network halves it four times."""

_STEM = 16
# Channels of each stage behind the stem; each halves the map and goes on with a residual layer.
_STAGES = (32, 64, 80)
_LAST = 24  # channels of the map that the points are read from
_DIVISOR = 8


class _Residual(nn.Module):
    """A convolution whose outcome is added to what it has read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = _layer(channels, channels, active=False)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, h, w] to the same shape."""
        out: Tensor = self.act(x + self.main(x))
        return out


class LandmarkNet(nn.Module):
    """From chips to points.

    Plain convolutions and ReLU, which every engine runs and every compiler fuses; the points are read by a dense layer
    over the last map, written as a convolution as large as the map.

    Attributes:
        side: of the chips, pixels.
    """

    def __init__(self, side: int, width: float, usual: NDArray[np.floating]) -> None:
        """Make one with random weights.

        Args:
            side: of the chips, pixels; a multiple of ``HALVED``.
            width: factor of all channels.
            usual: float [5, 2], where the points usually lie, pixels; an untrained network says so of every chip.
        """
        super().__init__()
        self.side = side
        channels = rounded(_STEM * width, _DIVISOR)
        self.stem = _layer(3, channels, stride=2)
        stages = []
        for full in _STAGES:
            outputs = rounded(full * width, _DIVISOR)
            stages.append(nn.Sequential(_layer(channels, outputs, stride=2), _Residual(outputs)))
            channels = outputs
        self.stages = nn.Sequential(*stages)
        last = rounded(_LAST * width, _DIVISOR)
        self.last = _layer(channels, last, kernel=1)
        self.points = nn.Conv2d(last, 2 * POINTS, side // HALVED)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.points.weight)
        pixels = torch.from_numpy(np.asarray(usual, np.float32)).flatten()
        self.points.bias = nn.Parameter((pixels + 0.5) / side - 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Points float32 [n, 10] in pixels, x and y in turn, of chips float32 RGB [n, 3, side, side] in -1 to 1."""
        parts: Tensor = self.points(self.last(self.stages(self.stem(images)))).mean((2, 3))
        return (parts + 0.5) * self.side - 0.5


def _layer(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, active: bool = True
) -> nn.Sequential:
    """A padded convolution without bias, its norm and, where it is active, a ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm=nn.BatchNorm2d(outputs),
    )
    if active:
        layers["act"] = nn.ReLU()
    return nn.Sequential(layers)
