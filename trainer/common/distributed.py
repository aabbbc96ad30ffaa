"""Several processes that train one network, as ``torchrun`` starts them; one process needs none of this."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.common.settings import ConfigError

CPU = torch.device("cpu")
_PATIENCE = timedelta(hours=2)  # the others wait while the first evaluates


@dataclass(frozen=True)
class World:
    """This process among all that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """This process is the one that writes and tells."""
        return self.rank == 0


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[World]:
    """The world that ``torchrun`` has made, or one process where it has not.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('device = "cuda", but PyTorch finds no GPU; use device = "auto"')
    chosen = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if "WORLD_SIZE" not in os.environ:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), chosen)
    finally:
        distributed.destroy_process_group()


def together(module: nn.Module, world: World, sharded: Sequence[nn.Parameter]) -> nn.Module:
    """The module as DDP wraps it: gradients are averaged over the processes, but for sharded parameters.

    Args:
        module: the same on all processes, but for ``sharded``.
        world: of this process; alone, the module comes back as it is.
        sharded: parameters of which every process has rows of its own.
    """
    if world.size == 1:
        return module
    own = {id(parameter) for parameter in sharded}
    ignored = [name for name, parameter in module.named_parameters() if id(parameter) in own]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ignored)  # type: ignore[no-untyped-call]
    # Norms' moments are the same everywhere already, see ``synced_norm``, so nothing has to be broadcast.
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)


def mean(value: Tensor, world: World) -> Tensor:
    """The mean of a number over all processes."""
    if world.size > 1:
        distributed.all_reduce(value)
        value = value / world.size
    return value


def total(value: Tensor, world: World) -> Tensor:
    """The sum of a tensor over all processes."""
    if world.size > 1:
        distributed.all_reduce(value)
    return value


def wait(world: World) -> None:
    """Go on when all processes have come here."""
    if world.size > 1:
        distributed.barrier()


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """All processes' rows, one process after the other, on the first; elsewhere the own ones."""
    if world.size == 1:
        return rows
    counts = _counts(rows, world)
    if not world.first:
        distributed.send(rows.contiguous(), dst=0)
        return rows
    parts = [rows]
    for rank in range(1, world.size):
        part = rows.new_empty((counts[rank], *rows.shape[1:]))
        distributed.recv(part, src=rank)
        parts.append(part)
    return torch.cat(parts)


def own_rows(rows: Tensor, like: Tensor, world: World) -> Tensor:
    """Of the rows that ``gather_rows`` gave those of this process, whose number ``like`` has."""
    if world.size == 1:
        return rows
    start = sum(_counts(like, world)[: world.rank])
    return rows[start : start + len(like)]


def _counts(rows: Tensor, world: World) -> list[int]:
    """How many rows each process has."""
    counts = torch.zeros(world.size, dtype=torch.int64, device=world.device)
    counts[world.rank] = len(rows)
    distributed.all_reduce(counts)
    return [int(count) for count in counts]
