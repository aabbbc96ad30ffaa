"""The head over identities: a softmax, plain or with a margin, its classes in one process or spread over several."""

from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from trainer.common.distributed import World
from trainer.common.settings import Count, NotNegative, Positive, Share
from trainer.data.augment import generator
from trainer.losses.margin import CENTRE_DEVIATION, ArcFace, Identified, Margin, Softmax
from trainer.losses.partial_fc import PartialFC, shard
from trainer.losses.schedules import ramp

_BLOCK = 4096  # classes whose first centres are drawn at once


class HeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How identities are told apart.

    Attributes:
        kind: ``arcface`` on cosines with a margin, or the plain linear ``softmax`` that it is measured against.
        subcentres: of a class; above 1 it is sub-centre ArcFace.
        margin: radians, from ``margin_from`` on; before, it grows from 0.
        margin_from: share of the run.
        scale: of the cosines; with few identities less than the 64 of the paper (``trainer.losses.schedules``).
        doubt: cosine to the own class below which a label is doubted in the last part of the run; -1 doubts none.
        doubt_from: share of the run from which labels are doubted.
        softness: width in cosine over which doubt sets in; 0 drops doubted samples.
        class_share: of the classes that take part in a step, those of the batch always.
    """

    kind: Literal["arcface", "softmax"] = "arcface"
    subcentres: Count = 1
    margin: Annotated[float, Meta(ge=0, le=1.5)] = 0.5
    margin_from: Share = 0.3
    scale: Positive = 32.0
    doubt: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    doubt_from: Share = 0.7
    softness: NotNegative = 0.0
    class_share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class IdentityHead(nn.Module):
    """From embeddings to the loss over identities."""

    def __init__(self, settings: HeadSettings, classes: int, dim: int, seed: int, world: World) -> None:
        """Make it.

        Args:
            settings: how.
            classes: how many identities.
            dim: length of an embedding.
            seed: of the first centres, the same ones however many processes share the classes.
            world: this process; several share the classes of a margin softmax.
        """
        super().__init__()
        self._settings = settings
        self.layer: Softmax | ArcFace | PartialFC
        if settings.kind == "softmax":
            self.layer = Softmax(classes, dim)
            return
        if world.size > 1 or settings.class_share < 1:
            self.layer = PartialFC(classes, dim, settings.subcentres, settings.class_share)
        else:
            self.layer = ArcFace(classes, dim, settings.subcentres)
        _draw_centres(self.layer.centres, shard(classes, world.rank, world.size), classes, seed)

    @property
    def sharded(self) -> list[nn.Parameter]:
        """Parameters of which every process has rows of its own."""
        return [self.layer.centres] if isinstance(self.layer, PartialFC) else []

    def forward(self, embeddings: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Mean loss float [] of embeddings float [n, dim] and labels int64 [n], when so much of the run is done."""
        return self.identify(embeddings, labels, progress).loss

    def identify(self, embeddings: Tensor, labels: Tensor, progress: float) -> Identified:
        """The loss, and what it is without the margin that grows; arguments as of ``forward``."""
        if isinstance(self.layer, Softmax):
            return self.layer.identify(embeddings.float(), labels)
        return self.layer.identify(embeddings.float(), labels, self.margin(progress))

    @torch.no_grad()
    def begin(self, vectors: Tensor, labels: Tensor) -> None:
        """Let the centres of each class be near the mean of its vectors; a plain softmax stays as it is.

        Args:
            vectors: float32 [n, dim] of length 1, of every class at least one.
            labels: int64 [n], classes without gaps.
        """
        if isinstance(self.layer, Softmax):
            return
        sums = vectors.new_zeros(int(labels.max()) + 1, vectors.shape[1]).index_add_(0, labels, vectors)
        own = self.layer.own if isinstance(self.layer, PartialFC) else range(len(sums))
        means = functional.normalize(sums, dim=1)[own.start : own.stop]
        self.layer.centres.add_(means[:, None].to(self.layer.centres.device))

    def margin(self, progress: float) -> Margin:
        """The margin softmax's settings at a place in the run."""
        settings = self._settings
        doubted = settings.doubt > -1 and progress >= settings.doubt_from
        return Margin(
            margin=ramp(progress, 0.0, settings.margin, 0.0, settings.margin_from),
            scale=settings.scale,
            doubt=settings.doubt if doubted else None,
            softness=settings.softness,
        )


def _draw_centres(centres: nn.Parameter, own: range, classes: int, seed: int) -> None:
    """Fill the centres of the classes ``own``, without ever holding those of all ``classes``."""
    for start in range(0, classes, _BLOCK):
        block = range(max(start, own.start), min(start + _BLOCK, own.stop))
        if block:
            count = min(_BLOCK, classes - start)
            drawn = torch.randn(count, *centres.shape[1:], generator=generator(seed, start))
            rows = drawn[block.start - start : block.stop - start]
            centres.data[block.start - own.start : block.stop - own.start] = rows * CENTRE_DEVIATION
