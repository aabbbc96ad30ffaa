"""Parts that several backbones are made of."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def rounded(channels: float, divisor: int) -> int:
    """A number of channels brought to a multiple of ``divisor``, never more than a tenth below (MobileNetV2's rule)."""
    whole = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return whole + divisor if whole < 0.9 * channels else whole


def halved(side: int, times: int) -> int:
    """The side of a map after so many layers of stride 2 whose padding is half of their odd kernel."""
    for _ in range(times):
        side = -(-side // 2)
    return side


def convolution(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    active: bool = True,
    padded: bool = True,
) -> nn.Sequential:
    """A convolution without bias (``conv``), its norm (``norm``) and, where it is active, a PReLU (``act``).

    Args:
        inputs: channels that it reads.
        outputs: channels that it makes.
        kernel: its side or sides, odd where it is padded.
        stride: 1 keeps the size of the map, 2 halves it.
        groups: as many as ``inputs`` for a depthwise one.
        active: append the PReLU, one slope a channel (He et al. 2015).
        padded: with zeros, half of the kernel on each side.
    """
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if padded else 0
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=False),
        norm=nn.BatchNorm2d(outputs),
    )
    if active:
        layers["act"] = nn.PReLU(outputs)
    return nn.Sequential(layers)


class KeptNorm(nn.BatchNorm2d):
    """The norm layer of a finished network: a factor and an addend, learnt further, and no moments of the batch."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        """Take factor and addend float32 [channels]."""
        super().__init__(len(scale))
        with torch.no_grad():
            self.weight.copy_(scale)
            self.bias.copy_(shift)
            if self.running_var is not None:
                self.running_var.fill_(
                    1 - self.eps
                )  # so that an export, which divides by its root, divides by 1

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, h, w] to the same shape."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class GlobalDepthwise(nn.Module):
    """From map to summary: a depthwise convolution as large as the map, then a 1×1 one; behind each a norm alone.

    MobileFaceNet's global depthwise convolution (Chen et al. 2018, section 3.2), and GhostFaceNet's modified GDC, which
    is that with a convolution in the place of the dense layer (Alansari et al. 2023).
    """

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.depthwise = convolution(channels, channels, side, groups=channels, active=False, padded=False)
        self.point = convolution(channels, width, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, side, side] to [n, width]."""
        out: Tensor = self.point(self.depthwise(x))
        return out.flatten(1)


def initialise(module: nn.Module) -> None:
    """Give every convolution random weights that keep the variance of gradients (He et al. 2015, for slope 0.25)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.25, mode="fan_out")
