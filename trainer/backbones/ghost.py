"""GhostFaceNet V1 and V2: GhostNets with PReLU, convolutional squeeze-and-excitation and a modified GDC.

- Alansari et al., "GhostFaceNets: Lightweight Face Recognition Model From Cheap Operations", IEEE Access 11, 2023.
- Ghost modules: Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020.
- The DFC attention of V2: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.interface import Backbone, Features
from trainer.backbones.layers import GlobalDepthwise, convolution, halved, initialise, rounded

# Kernel, channels inside, channels out, squeeze-and-excitation, stride: table 1 of GhostNet. In GhostFaceNet V1, as its
# authors' own code has it, the last line has 512 channels inside.
_BLOCKS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)
_LAST_INSIDE_V1 = 512
_STEM = 16
_HALVED = 4  # by the blocks
_WITHOUT_ATTENTION = 2  # the first blocks of V2 have none: attention over large maps costs more than it gives
_DIVISOR = 4
_SQUEEZE = 0.25


class GhostModule(nn.Module):
    """Half of the channels by a 1×1 convolution, the other half from those by a cheap depthwise one."""

    def __init__(self, inputs: int, outputs: int, *, active: bool, attention: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = convolution(inputs, half, active=active)
        self.cheap = convolution(half, half, 3, groups=half, active=active)
        self.attention = DecoupledAttention(inputs, outputs) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, h, w]."""
        primary = self.primary(x)
        out = torch.cat([primary, self.cheap(primary)], 1)
        return out if self.attention is None else out * self.attention(x)


def _features(inputs: int, outputs: int, *, active: bool, attention: bool, ghost: bool) -> nn.Module:
    """A ghost module, or the ordinary 1×1 convolution that it stands for."""
    if ghost:
        return GhostModule(inputs, outputs, active=active, attention=attention)
    return convolution(inputs, outputs, active=active)


class DecoupledAttention(nn.Module):
    """DFC attention: what lies in the same row and column, at half the resolution, weighs each cell and channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.point = convolution(inputs, outputs, active=False)
        self.row = convolution(outputs, outputs, (1, 5), groups=outputs, active=False)
        self.column = convolution(outputs, outputs, (5, 1), groups=outputs, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weights in 0..1, [n, outputs, h, w], for what a ghost module makes of ``x`` [n, inputs, h, w]."""
        weights = torch.sigmoid(self.column(self.row(self.point(functional.avg_pool2d(x, 2)))))
        size = (int(x.shape[2]), int(x.shape[3]))  # plain numbers, so that an export does not compute them
        return functional.interpolate(weights, size=size, mode="nearest")


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) of 1×1 convolutions, with a PReLU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = rounded(channels * _SQUEEZE, _DIVISOR)
        self.squeeze = nn.Conv2d(channels, inner, 1)
        self.act = nn.PReLU(inner)
        self.excite = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, h, w] to the same shape."""
        weight = self.excite(self.act(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * functional.hardsigmoid(weight)


class Bottleneck(nn.Module):
    """A residual block of two ghost modules, or two 1×1 convolutions; a stride lies between them."""

    def __init__(
        self,
        inputs: int,
        inside: int,
        outputs: int,
        kernel: int,
        stride: int,
        *,
        excited: bool,
        attention: bool,
        ghost: bool,
    ) -> None:
        super().__init__()
        steps = [_features(inputs, inside, active=True, attention=attention, ghost=ghost)]
        if stride > 1:
            steps.append(convolution(inside, inside, kernel, stride, groups=inside, active=False))
        if excited:
            steps.append(SqueezeExcitation(inside))
        steps.append(_features(inside, outputs, active=False, attention=False, ghost=ghost))
        self.main = nn.Sequential(*steps)
        self.skip = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                convolution(inputs, inputs, kernel, stride, groups=inputs, active=False),
                convolution(inputs, outputs, active=False),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, ceil(h / stride), ceil(w / stride)]."""
        out: Tensor = self.main(x) + self.skip(x)
        return out


class GhostFaceNet(Backbone):
    """GhostFaceNet; the published ones have width 1.3, 512 dimensions and 112×112 pixels."""

    def __init__(
        self, version: int, stride: int, side: int, dim: int, width: float, *, ghost: bool = True
    ) -> None:
        """Make one with random weights.

        Args:
            version: 1, or 2 for the one with DFC attention.
            stride: of the first convolution: 1, or 2 for a quarter of the cost.
            side: of the pictures in pixels.
            dim: length of the summary.
            width: factor of all channels.
            ghost: with ghost modules; without, 1×1 convolutions (and no attention) stand in their places, to show what
                ghost modules cost or save.
        """
        blocks = list(_BLOCKS)
        if version == 1:
            kernel, _, out, excited, step = blocks[-1]
            blocks[-1] = (kernel, _LAST_INSIDE_V1, out, excited, step)
        last = rounded(blocks[-1][1] * width, _DIVISOR)
        super().__init__(side, dim, last)
        channels = rounded(_STEM * width, _DIVISOR)
        self.stem = convolution(3, channels, 3, stride)
        made = []
        for number, (kernel, inside, out, excited, step) in enumerate(blocks):
            inner, outputs = rounded(inside * width, _DIVISOR), rounded(out * width, _DIVISOR)
            attention = version == 2 and number >= _WITHOUT_ATTENTION
            made.append(
                Bottleneck(
                    channels,
                    inner,
                    outputs,
                    kernel,
                    step,
                    excited=excited,
                    attention=attention,
                    ghost=ghost,
                )
            )
            channels = outputs
        self.blocks = nn.Sequential(*made)
        self.last = convolution(channels, last)
        self.head = GlobalDepthwise(last, halved(side, _HALVED + stride - 1), dim)
        initialise(self)

    def forward(self, images: Tensor) -> Features:
        """See ``Backbone.forward``."""
        found: Tensor = self.last(self.blocks(self.stem(images)))
        return Features(found, self.head(found))
