"""Tensors of all processes in one, with gradients; in a program of one process each function gives back what it got.

What a distributed loss rests on: every process computes the same mean over the samples of all. DistributedDataParallel
then averages the network's gradients over the processes, so embeddings must be handed the number of processes times the
gradient of that mean, as a loss over each process's own samples does by itself.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def place(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) where none are joined."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def gather(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows of all processes, in the order of their ranks: [processes * n, ...] of [n, ...].

    Backward, each process gets the sum over all processes of the gradients for its own rows. Where each computes the
    whole loss from them (NT-Xent), that sum is already the number of processes times the gradient of the loss.

    Args:
        rows: any dtype [n, ...]; n must be the same in every process, or the processes wait for each other for ever.
        group: None for all processes.
    """
    if place(group)[1] == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows, group)  # type: ignore[no-untyped-call]
    return gathered


def add_parts(part: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The sum of all processes' tensors; backward, the gradient of the sum is that of the part.

    For a loss that every process computes alike from parts that differ: d loss / d part is d loss / d sum.
    """
    if place(group)[1] == 1:
        return part
    total: Tensor = _AddParts.apply(part, group)  # type: ignore[no-untyped-call]
    return total


def largest(values: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The element-wise maximum over the processes, without gradient."""
    values = values.detach().clone()
    if place(group)[1] > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX, group=group)
    return values


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        rank, processes = place(group)
        ctx.own = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(processes)]
        dist.all_gather(parts, rows.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()  # autograd may hand the same tensor to others
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.own], None


class _AddParts(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, part: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        total = part.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
