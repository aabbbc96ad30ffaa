"""ResNets of ArcFace: improved residual units, no early pooling, and BN-Dropout-FC-BN behind the last map.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, section 3.1.
"""

from torch import Tensor, nn

from trainer.backbones.interface import Backbone, Features
from trainer.backbones.layers import convolution, halved, initialise, rounded

DEPTHS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Residual units in each of the four stages, by the number of layers that gives the network its name."""

_STAGES = (64, 128, 256, 512)
_DIVISOR = 8
_DROPOUT = 0.4  # as the authors' own code has it


class Unit(nn.Module):
    """An improved residual unit: norm, convolution, norm, PReLU, convolution with the stride, norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(inputs)
        self.main = nn.Sequential(
            convolution(inputs, outputs, 3), convolution(outputs, outputs, 3, stride, active=False)
        )
        self.skip = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else convolution(inputs, outputs, 1, stride, active=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, ceil(h / stride), ceil(w / stride)]."""
        out: Tensor = self.main(self.before(x)) + self.skip(x)
        return out


class ResNetIR(Backbone):
    """A ResNet-IR; the published ones have width 1, 512 dimensions and 112×112 pixels."""

    def __init__(self, depths: tuple[int, ...], side: int, dim: int, width: float) -> None:
        """Make one with random weights.

        Args:
            depths: units in each of the four stages.
            side: of the pictures in pixels.
            dim: length of the summary.
            width: factor of all channels.
        """
        stages = [rounded(channels * width, _DIVISOR) for channels in _STAGES]
        super().__init__(side, dim, stages[-1])
        self.stem = convolution(3, stages[0], 3)
        units, channels = [], stages[0]
        for outputs, depth in zip(stages, depths, strict=True):
            for number in range(depth):
                units.append(Unit(channels, outputs, 2 if number == 0 else 1))
                channels = outputs
        self.units = nn.Sequential(*units)
        self.last = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(_DROPOUT)
        # A convolution as large as the map is the fully connected layer, and what lies behind it an ordinary norm.
        self.head = convolution(channels, dim, halved(side, len(stages)), active=False, padded=False)
        initialise(self)

    def forward(self, images: Tensor) -> Features:
        """See ``Backbone.forward``."""
        found: Tensor = self.last(self.units(self.stem(images)))
        return Features(found, self.head(self.dropout(found)).flatten(1))
