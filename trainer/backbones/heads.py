"""What reads a backbone's features: embedding, expression, and the projection of SimCLR."""

import torch
from torch import Tensor, nn

from trainer.backbones.interface import Features
from trainer.backbones.layers import convolution


class MapHead(nn.Module):
    """A head that reads the feature map; any other module reads the summary."""


class EmbeddingHead(nn.Module):
    """A summary brought to another length, such as 128 to 64: a linear layer and its norm."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.point = convolution(width, dim, active=False)

    def forward(self, summary: Tensor) -> Tensor:
        """Map [n, width] to [n, dim], not normalised."""
        out: Tensor = self.point(summary[:, :, None, None])
        return out.flatten(1)


class ExpressionHead(MapHead):
    """Logits of expressions from the mean over the feature map.

    The map, for a summary trained to tell people apart has little left of how they look.
    """

    def __init__(self, channels: int, labels: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, labels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, h, w] to logits [n, labels]."""
        out: Tensor = self.linear(self.dropout(x.mean((2, 3))))
        return out


class ProjectionHead(nn.Sequential):
    """The projection on which SimCLR's loss is computed (Chen et al. 2020): two linear layers; never exported."""

    def __init__(self, width: int, dim: int = 128) -> None:
        super().__init__(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, dim)
        )


def read(head: nn.Module, features: Features) -> Tensor:
    """What ``head`` makes of features: of the map if it is a ``MapHead``, else of the summary."""
    out: Tensor = head(features.map if isinstance(head, MapHead) else features.summary)
    return out


def unit(vectors: Tensor) -> Tensor:
    """Vectors [n, d] brought to length 1."""
    out: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return out
