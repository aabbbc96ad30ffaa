"""Turn the norm layers of a trained network into the factors and addends that a pack's face network has."""

import copy

import torch
from torch import Tensor, nn

from trainer.backbones.interface import BackboneError, norms


class Affine(nn.Module):
    """y = scale · x + shift for each channel: what is left of a norm layer, in the shape in which it is multiplied.

    Attributes:
        scale: float32 [1, channels, 1, 1] for maps, [channels] where channels come last.
        shift: the same.
    """

    def __init__(self, scale: Tensor, shift: Tensor, *, last: bool = False) -> None:
        super().__init__()
        shape = (-1,) if last else (1, -1, 1, 1)
        self.scale = nn.Parameter(scale.detach().float().reshape(shape).clone())
        self.shift = nn.Parameter(shift.detach().float().reshape(shape).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Float32 to the same shape."""
        return x * self.scale + self.shift


def folded(module: nn.Module) -> tuple[nn.Module, dict[str, Affine]]:
    """A copy of ``module`` for inference with an ``Affine`` for each norm layer, and those by the norm layers' names.

    The copy lies in main memory, wherever the network was trained.

    - Batch normalisation with its running moments is nothing else: scale = weight / sqrt(variance + epsilon), shift =
      bias - mean · scale.
    - Layer and group normalisation depend on the picture: they stay, without weight and bias, and these come behind.
    - timm's norm layers that bring an activation along keep it, behind the ``Affine``.

    Raises:
        BackboneError: a norm layer works on something else than one channel at a time, or has no moments.
    """
    changed = copy.deepcopy(module).cpu().eval()
    made = {}
    for name, layer in norms(changed).items():
        before, affine = _split(name, layer)
        made[name] = affine
        act = getattr(layer, "act", None)
        parts = [part for part in (before, affine, act) if isinstance(part, nn.Module)]
        parent, _, child = name.rpartition(".")
        setattr(changed.get_submodule(parent), child, nn.Sequential(*parts))
    return changed, made


def _split(name: str, layer: nn.Module) -> tuple[nn.Module | None, Affine]:
    """What is left of a norm layer in front of its factor and addend, and these."""
    if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
        if layer.running_mean is None or layer.running_var is None:
            raise BackboneError(
                f"the norm {name} has no running moments; train with track_running_stats = True"
            )
        weight, bias = _learnt(layer, layer.num_features)
        scale = weight / torch.sqrt(layer.running_var.double() + layer.eps)
        return None, Affine(scale, bias - layer.running_mean.double() * scale)
    if isinstance(layer, nn.GroupNorm):
        channels, last = layer.num_channels, False
    elif isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        channels = layer.normalized_shape[0]
        last = "2d" not in type(layer).__name__  # timm's LayerNorm2d and its kin take maps, channels first
    else:
        raise BackboneError(f"the norm {name} has no factor for each channel; it cannot be exported")
    weight, bias = _learnt(layer, channels)
    bare = copy.copy(layer)
    bare._parameters = {"weight": None, "bias": None}
    if isinstance(getattr(layer, "act", None), nn.Module):
        bare._modules = {**layer._modules, "act": nn.Identity()}
    return bare, Affine(weight, bias, last=last)


def _learnt(layer: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a norm layer, float64 [channels]; 1 and 0 where it has none."""
    weight, bias = (getattr(layer, kind, None) for kind in ("weight", "bias"))
    return (
        torch.ones(channels, dtype=torch.float64) if weight is None else weight.detach().double(),
        torch.zeros(channels, dtype=torch.float64) if bias is None else bias.detach().double(),
    )
