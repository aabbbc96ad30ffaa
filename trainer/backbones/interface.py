"""What every backbone promises: a feature map and a summary of it, and norm layers that can be found by name."""

from typing import NamedTuple

from torch import Tensor, nn

from engines.errors import UserError

NORM_LAYERS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm)
"""Layers whose factor and addend become norm parameters when a network is exported; timm's own derive from these."""


class BackboneError(UserError):
    """A backbone cannot be made or exported; the message names it and the remedy."""


class Features(NamedTuple):
    """What a backbone makes of n pictures.

    Attributes:
        map: float32 [n, channels, height, width], the last feature map, not pooled.
        summary: float32 [n, width], one vector a picture, not normalised.
    """

    map: Tensor
    summary: Tensor


class Backbone(nn.Module):
    """A network from pictures to features.

    Attributes:
        side: side of its pictures in pixels.
        width: length of the summary.
        channels: channels of the map.
    """

    def __init__(self, side: int, width: int, channels: int) -> None:
        super().__init__()
        self.side = side
        self.width = width
        self.channels = channels

    def forward(self, images: Tensor) -> Features:
        """Features of ``images``, float32 RGB [n, 3, side, side] in -1..1."""
        raise NotImplementedError


def norms(module: nn.Module) -> dict[str, nn.Module]:
    """The norm layers of a network by their dotted names, in the order in which they were made.

    An exported graph has ``norm.NAME.scale`` and ``norm.NAME.shift`` for each of them.
    """
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, NORM_LAYERS)}
