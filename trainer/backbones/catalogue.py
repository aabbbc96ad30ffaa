"""Backbones by name."""

from collections.abc import Callable

from trainer.backbones.ghost import GhostFaceNet
from trainer.backbones.interface import Backbone, BackboneError
from trainer.backbones.mobilefacenet import MobileFaceNet
from trainer.backbones.resnet import DEPTHS, ResNetIR
from trainer.backbones.timm import TimmBackbone
from trainer.backbones.trunk import TrunkBackbone

_TIMM = "timm:"
_TRUNK = "trunk:"
_LEAST_SIDE = 32

_MAKERS: dict[str, Callable[[int, int, float], Backbone]] = {
    "ghostfacenet-v1": lambda *sizes: GhostFaceNet(1, 1, *sizes),
    "ghostfacenet-v1-2": lambda *sizes: GhostFaceNet(1, 2, *sizes),
    "ghostfacenet-v1-plain": lambda *sizes: GhostFaceNet(1, 1, *sizes, ghost=False),
    "ghostfacenet-v1-2-plain": lambda *sizes: GhostFaceNet(1, 2, *sizes, ghost=False),
    "ghostfacenet-v2": lambda *sizes: GhostFaceNet(2, 1, *sizes),
    "ghostfacenet-v2-2": lambda *sizes: GhostFaceNet(2, 2, *sizes),
    "mobilefacenet": MobileFaceNet,
    "ir50": lambda *sizes: ResNetIR(DEPTHS[50], *sizes),
    "ir100": lambda *sizes: ResNetIR(DEPTHS[100], *sizes),
}

NAMES = (*_MAKERS, f"{_TIMM}NAME", f"{_TRUNK}PACK")
"""What ``make`` knows. ``-2`` is GhostFaceNet's own mark for a first convolution of stride 2; in
``-plain`` 1×1 convolutions stand where ghost modules would, to compare with."""


def make(name: str, side: int = 112, dim: int = 128, width: float = 1.0) -> Backbone:
    """A backbone with random weights.

    Args:
        name: one of ``NAMES``; ``timm:efficientnet_b0`` and the like for a model of timm, ``trunk:FOLDER`` for the
            lower layers of a pack's face network.
        side: of the pictures in pixels, 32 at least.
        dim: length of the summary.
        width: factor of all channels, more than 0; models of timm have only 1.

    Raises:
        BackboneError: there is no such backbone, or it cannot be made in this size.
    """
    if side < _LEAST_SIDE or dim < 1 or not 0 < width < float("inf"):
        raise BackboneError(
            f"{name}: side {side}, dim {dim}, width {width:g}; needed are a side of {_LEAST_SIDE} at least, a dim of "
            "1 at least, and a width above 0"
        )
    if name.startswith(_TIMM):
        if width != 1.0:
            raise BackboneError(
                f"{name} comes in one width; set width = 1 and choose a smaller model of timm's"
            )
        return TimmBackbone(name.removeprefix(_TIMM), side, dim)
    if name.startswith(_TRUNK):
        return TrunkBackbone(name.removeprefix(_TRUNK), side, dim, width)
    if name not in _MAKERS:
        raise BackboneError(f"there is no backbone {name!r}; there are {', '.join(NAMES)}")
    return _MAKERS[name](side, dim, width)
