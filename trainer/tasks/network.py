"""The network that a task trains: which backbone, how large, and with which first weights."""

from typing import Annotated

from msgspec import Meta

from trainer.backbones import Backbone, make
from trainer.common.settings import Count, Positive, RunSettings
from trainer.common.stepped import start_from


class NetworkSettings(RunSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The backbone that is trained.

    Attributes:
        backbone: a name in ``trainer.backbones.NAMES``.
        side: of its pictures, pixels.
        dim: length of the summary, which is the embedding where people are told apart.
        width: factor of all channels.
        start: a run, or its checkpoint, whose backbone is the start; empty: random weights.
    """

    backbone: str = "mobilefacenet"
    side: Annotated[int, Meta(ge=32, le=512)] = 112
    dim: Count = 128
    width: Positive = 1.0
    start: str = ""


def first_backbone(settings: NetworkSettings) -> Backbone:
    """The backbone with its first weights.

    Raises:
        BackboneError: there is no such backbone, or not in this size.
        CheckpointError: the run to start from has none of this shape.
    """
    backbone = make(settings.backbone, settings.side, settings.dim, settings.width)
    if settings.start:
        start_from(backbone, settings.start, "backbone")
    return backbone
