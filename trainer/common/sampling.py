"""Which samples a step sees: pure arithmetic on the seed and the step's number."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.common.distributed import World
from trainer.common.settings import ConfigError


def drawn(
    count: int, batch: int, seed: int, first: int, steps: int, world: World
) -> Iterator[NDArray[np.int64]]:
    """This process's samples of some steps: every epoch a new order, its last part of a batch left out.

    Args:
        count: of all samples.
        batch: samples of a step over all processes.
        seed: of the orders.
        first: number of the first step.
        steps: how many.
        world: this process takes every ``world.size``-th sample of a batch, from number ``world.rank`` on.

    Raises:
        ConfigError: there are fewer samples than a batch needs, or it cannot be shared evenly.
    """
    check(count, batch, world)
    epoch_steps = count // batch
    order: NDArray[np.int64] = np.zeros(0, np.int64)
    ordered = -1
    for step in range(first, first + steps):
        epoch, position = divmod(step, epoch_steps)
        if epoch != ordered:
            order, ordered = np.random.default_rng((seed, epoch)).permutation(count), epoch
        yield order[position * batch : (position + 1) * batch][world.rank :: world.size]


def check(count: int, batch: int, world: World) -> None:
    """See that there is a batch of samples, and that the processes get equal parts of it.

    Raises:
        ConfigError: there is not, or they do not.
    """
    if count < batch:
        raise ConfigError(f"batch = {batch}, but there are {count} samples; choose a smaller batch")
    if batch % world.size or batch // world.size < 2:
        raise ConfigError(
            f"batch = {batch} for {world.size} processes; choose a multiple of it, at least two samples each"
        )
