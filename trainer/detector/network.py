"""A detector after Tiny SSD (Wong et al. 2018): fire layers, and at three strides a convolution that reads boxes.

Everything is what a microcontroller with a convolution engine runs (MAX7800x): 3×3 and 1×1 convolutions of stride 1,
ReLU, max pooling of 2×2; batch norms are folded into the convolutions. There are no depthwise layers, which the
MAX78000 has not.
"""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainer.losses.detection import anchors

RATIO = 0.76
"""Width over height of every anchor: the median of CenterFace's boxes on LFW; 90 % of them are within 0.7 to 0.85."""
SIZES = {8: (12.0, 17.0, 24.0, 34.0), 16: (48.0, 68.0), 32: (96.0, 136.0, 192.0)}
"""Square root of each anchor's area in pixels, by the stride of the map that it is on: half an octave apart. Whatever
face lies between two sizes and two places overlaps an anchor by about a half, so that it is matched."""
STRIDE = max(SIZES)  # what the sides of the input are multiples of
FACES = 0.01  # share of anchors that a fresh network takes for faces (Lin et al. 2017, section 4.1)


class Maps(NamedTuple):
    """What the network says at one stride.

    Attributes:
        logits: float [n, k, h, w], of a face at each of k anchors.
        offsets: float [n, 4k, h, w], of its box from the anchor, as ``trainer.losses.detection.encode`` has them; an
            anchor's four stand together.
    """

    logits: Tensor
    offsets: Tensor


class TinySsd(nn.Module):
    """The detector, from float RGB [n, 3, H, W] in -1..1, H and W multiples of 32, to maps at strides 8, 16 and 32."""

    def __init__(self, width: float = 1.0) -> None:
        """Random weights.

        Args:
            width: factor of all channels but the heads'; at 1 there are about 200,000 parameters.
        """
        super().__init__()

        def channels(count: int) -> int:
            return max(4, round(count * width / 4) * 4)

        c8, c16, c24, c32, c48, c64, c96 = map(channels, (8, 16, 24, 32, 48, 64, 96))
        self.to_8 = nn.Sequential(
            _Block(3, c8, 3, pooled=True),
            _Block(c8, c16, 3, pooled=True),
            _Block(c16, c32, 3, pooled=True),
            _fire(c32, c16, c48),
            _fire(c48, c16, c48),
            _fire(c48, c16, c48),
        )
        self.to_16 = nn.Sequential(
            nn.MaxPool2d(2), _fire(c48, c24, c64), _fire(c64, c24, c64), _fire(c64, c24, c64)
        )
        self.to_32 = nn.Sequential(
            nn.MaxPool2d(2), _fire(c64, c32, c96), _fire(c96, c32, c96), _fire(c96, c32, c96)
        )
        read = {8: c48, 16: c64, 32: c96}
        self.scores, self.boxes = (
            nn.ModuleDict(
                {
                    str(stride): nn.Conv2d(inputs, each * len(SIZES[stride]), 3, padding=1)
                    for stride, inputs in read.items()
                }
            )
            for each in (1, 4)
        )
        _initialise(self)

    @property
    def first(self) -> nn.Conv2d:
        """The convolution that reads the picture."""
        block = self.to_8[0]
        assert isinstance(block, _Block)  # noqa: S101 - for the type checker
        return block.conv

    def forward(self, images: Tensor) -> dict[int, Maps]:
        """The maps by their stride."""
        found, x = {}, images
        for stride, part in ((8, self.to_8), (16, self.to_16), (32, self.to_32)):
            x = part(x)
            found[stride] = Maps(self.scores[str(stride)](x), self.boxes[str(stride)](x))
        return found


def flat(maps: dict[int, Maps]) -> tuple[Tensor, Tensor]:
    """Logits float [n, a] and offsets float [n, a, 4] of all anchors, in the order of ``all_anchors``."""
    logits = [each.logits.permute(0, 2, 3, 1).flatten(1) for each in maps.values()]
    offsets = [each.offsets.permute(0, 2, 3, 1).reshape(len(each.offsets), -1, 4) for each in maps.values()]
    return torch.cat(logits, 1), torch.cat(offsets, 1)


def all_anchors(height: int, width: int) -> Tensor:
    """The anchors of an input of that size, float32 [a, 4]: centre x, centre y, width, height in pixels."""
    return torch.cat(
        [
            anchors(height // stride, width // stride, stride, sizes, [RATIO])
            for stride, sizes in SIZES.items()
        ]
    )


def fused(network: TinySsd) -> TinySsd:
    """The network, in place, with each batch norm folded into its convolution; in evaluation mode."""
    network.eval()
    for block in network.modules():
        if isinstance(block, _Block) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()
    return network


class _Block(nn.Module):
    """Convolution, if wanted pooling, batch norm, ReLU.

    With the pooling first the norm and the ReLU have a quarter of the numbers to pass. A largest value stays the
    largest through a norm whose factor is above 0; so that of the batch norm is 1 where it pools, and what it would do
    is left to the layer behind.
    """

    conv: nn.Conv2d
    norm: nn.Module

    def __init__(self, inputs: int, outputs: int, kernel: int, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()
        norm = nn.BatchNorm2d(outputs)
        norm.weight.requires_grad_(not pooled)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Float [n, inputs, h, w] to [n, outputs, h, w], h and w halved where it pools."""
        return torch.relu(self.norm(self.pool(self.conv(x))))


def _fire(inputs: int, squeezed: int, outputs: int) -> nn.Module:
    """SqueezeNet's fire layer (Iandola et al. 2016) without its 1×1 expansion: squeeze by 1×1, expand by 3×3."""
    return nn.Sequential(
        OrderedDict(squeeze=_Block(inputs, squeezed, 1), expand=_Block(squeezed, outputs, 3))
    )


def _initialise(network: TinySsd) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    for kind, bias in ((network.scores, -math.log((1 - FACES) / FACES)), (network.boxes, 0.0)):
        for head in kind.values():
            assert isinstance(head, nn.Conv2d)  # noqa: S101 - for the type checker
            assert head.bias is not None  # noqa: S101 - for the type checker
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(head.bias, bias)
