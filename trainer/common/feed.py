"""The batches of a data set, from any step of a run on."""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.common.distributed import World
from trainer.data.reading import Pictures, Source, load
from trainer.data.samplers import Endless, Sampler, Share, State, after


def share_of(world: World) -> Share:
    """This process's part of every batch."""
    return Share(world.rank, world.size)


class Feed:
    """Pictures and classes on the device. What reads them stays alive between intervals."""

    def __init__(
        self, source: Source, sampler: Sampler, limit: int, workers: int, device: torch.device
    ) -> None:
        """Read nothing yet.

        Args:
            source: where the pictures are.
            sampler: which of them make up a batch.
            limit: pictures that may be damaged.
            workers: processes that read.
            device: where batches go.
        """
        self.pictures = Pictures(source, limit)
        self.sampler = sampler
        self._workers, self._device = workers, device
        self._next = -1
        self._running: Iterator[tuple[Tensor, Tensor]] = iter(())

    def take(self, first: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of some steps: uint8 RGB [n, 3, side, side] and int64 [n].

        Raises:
            TooMuchDamageError: too many pictures cannot be read.
        """
        if first != self._next:
            start = after(self.sampler, State(), first)
            batches = Endless(self.sampler, start)
            pinned = self._device.type == "cuda"
            self._running = load(self.pictures, batches, self._workers, pinned=pinned)
        for step in range(first, first + steps):
            # A loader that begins draws from PyTorch's generator, which is to be left as an unbroken run has it.
            with torch.random.fork_rng(devices=[]):
                images, labels = next(self._running)
            self._next = step + 1
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)
