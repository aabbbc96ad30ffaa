"""The emotion branch: residual convolutions on the trunk's feature map, mean over the map, seven logits."""

from typing import Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

IN_CHANNELS = 64
IN_SIDE = 17
CLASSES = 7

Pooling = Literal["mean", "max", "attention"]
"""What is made of a clip's frames."""


class BranchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The branch's shape."""

    stages: tuple[tuple[int, int], ...] = (
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
    )  # channels and stride of each block
    attention: bool = True  # squeeze-and-excitation (Hu et al. 2018) at the end of each block
    dropout: float = 0.3  # of the pooled vector

    def __post_init__(self) -> None:
        if not self.stages or any(channels < 8 or stride not in {1, 2} for channels, stride in self.stages):
            raise ValueError("branch.stages needs blocks of at least 8 channels and stride 1 or 2")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError("branch.dropout must be in [0, 1)")


class Convolution(nn.Module):
    """A convolution and the norm behind it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W']."""
        out: Tensor = self.norm(self.conv(x))
        return out


class Attention(nn.Module):
    """Squeeze-and-excitation: each channel is weighted by what all channels' means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 8)
        self.excite = nn.Linear(channels // 8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        weight = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3))))))
        return x * weight[:, :, None, None]


class Block(nn.Module):
    """A residual block (He et al. 2016); its skip averages before it strides (ResNet-D, He et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int, attention: bool) -> None:
        super().__init__()
        self.stride = stride
        self.a = Convolution(inputs, outputs, 3, stride)
        self.b = Convolution(outputs, outputs, 3)
        self.attention = Attention(outputs) if attention else None
        self.skip = Convolution(inputs, outputs, 1) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        main: Tensor = self.b(functional.relu(self.a(x)))
        if self.attention is not None:
            main = self.attention(main)
        if self.skip is not None:
            if self.stride == 2:
                x = functional.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
            x = self.skip(x)
        return functional.relu(main + x)


class EmotionBranch(nn.Module):
    """From the trunk's feature map to the logits of ``calibration.fer2013.LABELS``."""

    def __init__(self, settings: BranchSettings) -> None:
        super().__init__()
        self.input = nn.BatchNorm2d(
            IN_CHANNELS
        )  # also where adaptation may undo a shift of the trunk's statistics
        blocks, channels = [], IN_CHANNELS
        for outputs, stride in settings.stages:
            blocks.append(Block(channels, outputs, stride, settings.attention))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [N, 64, 17, 17] to logits [N, 7]."""
        return self.read(self.vectors(features))

    def vectors(self, features: Tensor) -> Tensor:
        """What the logits are read from, float [N, channels of the last block]."""
        x = self.input(features)
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = x.mean((2, 3))
        return pooled

    def read(self, vectors: Tensor) -> Tensor:
        """Logits [N, 7] of vectors."""
        logits: Tensor = self.head(self.dropout(vectors))
        return logits


class ClipBranch(nn.Module):
    """The branch on some frames of a clip, pooled over time; of a single frame it makes what the branch alone makes.

    The mean over time of the vectors gives the mean of the frames' logits. The weights of ``attention`` are a softmax
    over the frames of a linear layer's answers.
    """

    def __init__(self, settings: BranchSettings, pooling: Pooling) -> None:
        super().__init__()
        self.branch = EmotionBranch(settings)
        self.pooling = pooling
        self.weight = nn.Linear(settings.stages[-1][0], 1) if pooling == "attention" else None

    def forward(self, features: Tensor) -> Tensor:
        """Map features float [N, frames, 64, 17, 17] to logits [N, 7]."""
        count, frames = features.shape[:2]
        flat = features.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        vectors = self.branch.vectors(flat).view(count, frames, -1)
        if self.weight is not None:
            pooled = (self.weight(vectors).softmax(dim=1) * vectors).sum(dim=1)
        else:
            pooled = vectors.amax(dim=1) if self.pooling == "max" else vectors.mean(dim=1)
        return self.branch.read(pooled)


def multiply_adds(settings: BranchSettings) -> int:
    """Multiply-adds of the convolutions for one face, the measure of the branch's cost."""
    total, channels, side = 0, IN_CHANNELS, IN_SIDE
    for outputs, stride in settings.stages:
        side = -(-side // stride)
        total += side * side * outputs * 9 * (channels + outputs)
        if stride != 1 or channels != outputs:
            total += side * side * outputs * channels
        channels = outputs
    return total
