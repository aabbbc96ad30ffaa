"""MobileFaceNet: MobileNetV2's bottlenecks with PReLU, few channels, early halving, a global depthwise convolution.

Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices", 2018,
arXiv:1804.07573.
"""

from torch import Tensor, nn

from trainer.backbones.interface import Backbone, Features
from trainer.backbones.layers import GlobalDepthwise, convolution, halved, initialise, rounded

# Expansion, channels, blocks, stride of the first of them: table 1 of the paper.
_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_STEM = 64
_LAST = 512
_HALVED = 4  # by the stem and the stages
_DIVISOR = 8


class Bottleneck(nn.Module):
    """An inverted residual block (Sandler et al. 2018): wide inside, linear at the end."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = inputs * expansion
        self.main = nn.Sequential(
            convolution(inputs, inside),
            convolution(inside, inside, 3, stride, groups=inside),
            convolution(inside, outputs, active=False),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, ceil(h / stride), ceil(w / stride)]."""
        out: Tensor = self.main(x)
        return out + x if self.residual else out


class MobileFaceNet(Backbone):
    """MobileFaceNet; the published one has width 1, 128 dimensions and 112×112 pixels."""

    def __init__(self, side: int, dim: int, width: float) -> None:
        """Make one with random weights: side of the pictures, length of the summary, factor of all channels."""
        last = rounded(_LAST * width, _DIVISOR)
        super().__init__(side, dim, last)
        channels = rounded(_STEM * width, _DIVISOR)
        self.stem = nn.Sequential(
            convolution(3, channels, 3, 2), convolution(channels, channels, 3, groups=channels)
        )
        blocks = []
        for expansion, full, count, stride in _STAGES:
            outputs = rounded(full * width, _DIVISOR)
            for number in range(count):
                blocks.append(Bottleneck(channels, outputs, stride if number == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = convolution(channels, last)
        self.head = GlobalDepthwise(last, halved(side, _HALVED), dim)
        initialise(self)

    def forward(self, images: Tensor) -> Features:
        """See ``Backbone.forward``."""
        found: Tensor = self.last(self.blocks(self.stem(images)))
        return Features(found, self.head(found))
