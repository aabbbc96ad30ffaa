"""Which items make up which batch: a function of seed, epoch and step alone.

Nothing here remembers what was drawn. A run that stopped goes on from any step by asking for the batches from there,
and prefetching does no harm. The batch of all processes together is cut in equal parts, one for each rank: as many
processes as you like see the same global batches as one does.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.reading import DataError


@dataclass(frozen=True, slots=True)
class State:
    """A place in the training: ``step`` batches of epoch ``epoch`` have been used."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of each global batch is this process's."""

    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank {self.rank} of {self.ranks}")

    def of(self, whole: int) -> slice:
        """This process's part of ``whole`` things."""
        part = whole // self.ranks
        return slice(self.rank * part, (self.rank + 1) * part)


class Sampler(Protocol):
    """Decides the batches of every epoch."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[list[int]]:
        """This process's batches of an epoch, from batch ``first`` on."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """Every item once an epoch, in random order; what does not fill the last global batch is left out of the epoch.

    Attributes:
        items: in the data set.
        batch: items of a global batch.
        seed: of the order.
        share: this process's part.
        anew: number the items of epoch e from e × ``items`` on, so that a source which draws at random (clips) draws
            anew in each epoch.
    """

    items: int
    batch: int
    seed: int
    share: Share = Share()
    anew: bool = False

    def __post_init__(self) -> None:
        _check_batch(self.batch, self.share)
        if self.items < self.batch:
            raise DataError(
                f"{self.items} items do not fill one batch of {self.batch}; make the batch smaller"
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.items // self.batch

    def batches(self, epoch: int, first: int = 0) -> Iterator[list[int]]:
        """This process's batches of an epoch, from batch ``first`` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.items)
        part = self.share.of(self.batch)
        shift = epoch * self.items if self.anew else 0
        for step in range(first, self.steps):
            yield (order[step * self.batch :][part] + shift).tolist()


class Balanced:
    """P people × K pictures a batch: every person equally often, whatever the number of their pictures.

    The people come in random order, all of them before one comes again (but for those who do not fill a batch); each
    time K of their pictures are drawn, different ones while there are so many. An epoch has about as many pictures as
    the data set.
    """

    def __init__(
        self, labels: NDArray[np.int64], people: int, each: int, seed: int, share: Share | None = None
    ) -> None:
        """Draw from all classes of ``labels``.

        Args:
            labels: int64 [n], the class of each item.
            people: P, in a global batch; a multiple of the number of processes.
            each: K, pictures of each.
            seed: of the order.
            share: this process's part.

        Raises:
            DataError: there are fewer classes than ``people``.
        """
        self.share = share or Share()
        _check_batch(people, self.share)
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
        self._pictures = np.split(order, starts[1:])
        if len(self._pictures) < people:
            raise DataError(f"{len(self._pictures)} people are too few for batches of {people} people each")
        self.people, self.each, self.seed = people, each, seed
        self._items = len(labels)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return max(1, self._items // (self.people * self.each))

    def batches(self, epoch: int, first: int = 0) -> Iterator[list[int]]:
        """This process's batches of an epoch, from batch ``first`` on; a person's pictures stand together."""
        a_round = len(self._pictures) // self.people
        for step in range(first, self.steps):
            number, place = divmod(step, a_round)
            if step == first or place == 0:
                people = np.random.default_rng((self.seed, epoch, 0, number)).permutation(len(self._pictures))
            chosen = people[place * self.people :][: self.people]
            draw = np.random.default_rng((self.seed, epoch, 1, step))
            # Drawn for all processes alike, then cut: the parts fit together.
            batch = [self._of_one(self._pictures[person], draw) for person in chosen]
            yield np.concatenate(batch[self.share.of(self.people)]).tolist()

    def _of_one(self, pictures: NDArray[np.intp], draw: np.random.Generator) -> NDArray[np.intp]:
        rounds = math.ceil(self.each / len(pictures))
        return np.concatenate([draw.permutation(pictures) for _ in range(rounds)])[: self.each]


@dataclass(frozen=True)
class Endless:
    """The batches of one epoch after another, from a place on: for a loader whose workers outlive the epochs."""

    sampler: Sampler
    start: State = State()

    def __iter__(self) -> Iterator[list[int]]:
        state = after(self.sampler, self.start, 0)
        while True:
            yield from self.sampler.batches(state.epoch, state.step)
            state = State(state.epoch + 1, 0)


@dataclass(frozen=True)
class InOrder:
    """Every item once, in order, also those that do not fill the last batch: for evaluation.

    With more than one process, each has its own stretch of the items; their lengths differ by one at most.
    """

    items: int
    batch: int
    share: Share = Share()

    def __len__(self) -> int:
        return math.ceil(len(self._own) / self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self._own), self.batch):
            yield list(self._own[start : start + self.batch])

    @property
    def _own(self) -> range:
        first, end = (
            rank * self.items // self.share.ranks for rank in (self.share.rank, self.share.rank + 1)
        )
        return range(first, end)


def after(sampler: Sampler, state: State, steps: int) -> State:
    """The place ``steps`` batches on."""
    epochs, step = divmod(state.step + steps, sampler.steps)
    return replace(state, epoch=state.epoch + epochs, step=step)


def _check_batch(whole: int, share: Share) -> None:
    if whole < 1 or whole % share.ranks:
        raise DataError(f"a batch of {whole} cannot be shared evenly by {share.ranks} processes")
