"""The batches of a data set, from any step of a run on."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.common.distributed import World
from trainer.data.reading import Pictures, Source, Tolerant, load
from trainer.data.samplers import Endless, Sampler, Share, State, after


def share_of(world: World) -> Share:
    """This process's part of every batch."""
    return Share(world.rank, world.size)


class Stream:
    """The batches of a data set on the device. What reads them stays alive between intervals.

    Attributes:
        items: the data set; its items are tensors and numbers that can be stacked.
    """

    def __init__(self, items: Tolerant[Any], sampler: Sampler, workers: int, device: torch.device) -> None:
        """Read nothing yet.

        Args:
            items: the data set.
            sampler: which of them make up a batch.
            workers: processes that read.
            device: where batches go.
        """
        self.items = items
        self.sampler = sampler
        self._workers, self._device = workers, device
        self._next = -1
        self._running: Iterator[Sequence[Tensor]] = iter(())

    def take(self, first: int, steps: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of some steps: what each item has, stacked.

        Raises:
            TooMuchDamageError: too many items cannot be read.
        """
        if first != self._next:
            start = after(self.sampler, State(), first)
            batches = Endless(self.sampler, start)
            pinned = self._device.type == "cuda"
            self._running = load(self.items, batches, self._workers, pinned=pinned)
        for step in range(first, first + steps):
            # A loader that begins draws from PyTorch's generator, which is to be left as an unbroken run has it.
            with torch.random.fork_rng(devices=[]):
                batch = next(self._running)
            self._next = step + 1
            yield tuple(part.to(self._device, non_blocking=True) for part in batch)


class Feed(Stream):
    """Pictures, uint8 RGB [n, 3, side, side], and their classes, int64 [n]."""

    def __init__(
        self, source: Source, sampler: Sampler, limit: int, workers: int, device: torch.device
    ) -> None:
        """Read nothing yet; ``limit`` pictures of ``source`` may be damaged, for the rest see ``Stream``."""
        super().__init__(Pictures(source, limit), sampler, workers, device)
