"""Batch norms whose moments are of all processes' images, so that several processes learn as one does.

PyTorch's own SyncBatchNorm runs on GPUs only, and is no BatchNorm2d to who looks for norm layers.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from trainer.backbones.layers import KeptNorm
from trainer.common.distributed import World
from trainer.common.job import TrainingError
from trainer.losses.precision import wide


class SyncedNorm(nn.BatchNorm2d):
    """A batch norm over the images of all processes; in evaluation mode like any other."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that the parent gives it
        """Map float [n, c, …] to the same shape."""
        if not self.training:
            return super().forward(input)
        x = wide(input)
        over = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums: Tensor = _Sum.apply(torch.cat([x.sum(over), count]))  # type: ignore[no-untyped-call]
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        # Not the mean square less the square of the mean: where the mean is large, float32 has nothing left of that.
        centred = x - mean.view(shape)
        squares: Tensor = _Sum.apply(centred.square().sum(over))  # type: ignore[no-untyped-call]
        variance = squares / count
        self._remember(mean.detach(), variance.detach(), float(count))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = centred * scale.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        normed: Tensor = out.to(input.dtype)
        return normed

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running moments, the variance by its unbiased estimate, as BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        share = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Vectors are welcome too."""


def synced(module: nn.Module, world: World) -> nn.Module:
    """The module with every batch norm in it replaced; alone, as it is. Parameters stay the same objects.

    Raises:
        TrainingError: a norm does more than norm, as timm's with an activation inside.
    """
    if world.size == 1:
        return module
    if isinstance(module, KeptNorm):
        return module  # has no moments
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        if type(module) not in {nn.BatchNorm1d, nn.BatchNorm2d}:
            raise TrainingError(
                f"{type(module).__name__} of this backbone cannot be computed over several processes; train in one, or "
                "choose another backbone"
            )
        norm = SyncedNorm(module.num_features, module.eps, module.momentum)
        norm.weight, norm.bias = module.weight, module.bias
        norm.running_mean, norm.running_var = module.running_mean, module.running_var
        norm.num_batches_tracked = module.num_batches_tracked
        return norm.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, synced(child, world))
    return module


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, for whose gradient everyone's is summed."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        out = tensor.clone()
        distributed.all_reduce(out)
        return out

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        out = gradient.clone()
        distributed.all_reduce(out)
        return out
