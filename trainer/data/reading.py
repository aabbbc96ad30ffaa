"""From a source of pictures to tensors: what cannot be read is marked, named and passed over, up to a limit.

A *source* knows where the pictures of a data set are and which class each is of. ``Pictures`` makes a PyTorch data set
of it, ``load`` the batches. Sources and data sets can be pickled: worker processes open files and models themselves.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engines.errors import UserError

T = TypeVar("T")

_NAMED = 10  # damaged items that an error lists


class DataError(UserError):
    """A data set, or one item of it, cannot be used; the message names the file and says what is wrong with it."""


class TooMuchDamageError(DataError):
    """More items than allowed cannot be read; the message lists the first ten."""


class Source(Protocol):
    """Pictures of one size with their classes, numbered from 0. It can be pickled.

    Attributes:
        labels: int64 [n], the class of each item.
    """

    labels: NDArray[np.int64]

    def read(self, index: int) -> NDArray[np.uint8]:
        """The item: uint8 RGB [..., side, side, 3].

        Raises:
            UserError: it cannot be read, or shows no face.
        """
        ...

    def name(self, index: int) -> str:
        """What to call the item in a message: its file, or its place in a file."""
        ...


class Damage:
    """Which items of a data set could not be read, known to all processes that read it.

    Each process sets its own bytes in memory that all share; an item counts once, however often it was tried. A
    pickled copy that does not go to a worker process is on its own.
    """

    def __init__(self, items: int, limit: int) -> None:
        """Nothing is damaged yet.

        Args:
            items: in the data set.
            limit: damaged items that are passed over; one more is an error.
        """
        self.limit = limit
        self._marks = torch.zeros(items, dtype=torch.uint8)
        self._marks.share_memory_()  # type: ignore[no-untyped-call]

    def mark(self, index: int) -> None:
        """Item ``index`` cannot be read."""
        self._marks[index] = 1

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, index: int) -> bool:
        return bool(self._marks[index])

    @property
    def items(self) -> list[int]:
        """The numbers of all damaged items."""
        marked: list[int] = self._marks.nonzero().flatten().tolist()
        return marked

    @property
    def too_much(self) -> bool:
        """There is more of it than the limit."""
        return int(self._marks.sum(dtype=torch.int64)) > self.limit


class Tolerant(Dataset[T]):
    """A PyTorch data set that passes over items which cannot be read.

    In place of such an item stands the next one that can be read, with its own label: batches keep their size, and the
    same files give the same batches. An index beyond the end is the same item once more (see ``samplers.Shuffled``):
    what draws at random, as clips do, draws anew.

    Attributes:
        damage: what could not be read so far.
    """

    def __init__(self, items: int, limit: int) -> None:
        """For ``items`` items, of which ``limit`` may be damaged.

        Raises:
            DataError: there is no item.
        """
        if not items:
            raise DataError("a data set holds no picture at all; name another folder or file")
        self.damage = Damage(items, limit)

    def make(self, index: int) -> T:
        """Read the item; the index may lie beyond the end.

        Raises:
            UserError: it cannot be read; the message names it.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.damage)

    def __getitem__(self, index: int) -> T:
        again, first = divmod(index, len(self))
        for step in range(len(self)):
            item = (first + step) % len(self)
            if item in self.damage:
                continue
            try:
                return self.make(again * len(self) + item)
            except UserError:
                self.damage.mark(item)
                if self.damage.too_much:
                    break
        raise TooMuchDamageError(self.report())

    def report(self) -> str:
        """How many items could not be read, and of the first ten what is wrong with them; empty when all could."""
        items = self.damage.items
        if not items:
            return ""
        lines = [
            f"{len(items)} of {len(self)} items cannot be read; at most {self.damage.limit} are passed over"
        ]
        lines += [f"  {self._what_is_wrong(item)}" for item in items[:_NAMED]]
        if len(items) > _NAMED:
            lines.append(f"  and {len(items) - _NAMED} more")
        return "\n".join(lines)

    def _what_is_wrong(self, item: int) -> str:
        try:
            self.make(item)
        except UserError as error:
            return str(error)
        return f"item {item} could not be read before, now it can"


class Pictures(Tolerant[tuple[Tensor, int]]):
    """A source as a PyTorch data set: an item is uint8 RGB [..., 3, side, side] and its class.

    Attributes:
        source: the pictures.
    """

    def __init__(self, source: Source, limit: int = 100) -> None:
        """Read ``source``.

        Args:
            source: at least one item.
            limit: damaged items that are passed over.

        Raises:
            DataError: the source is empty.
        """
        super().__init__(len(source.labels), limit)
        self.source = source

    def make(self, index: int) -> tuple[Tensor, int]:
        """Picture and class."""
        planes = np.ascontiguousarray(np.moveaxis(self.source.read(index), -1, -3))
        return torch.from_numpy(planes), int(self.source.labels[index % len(self)])


def load(
    items: Tolerant[Any],
    batches: Iterable[list[int]],
    workers: int = 0,
    *,
    collate: Callable[[list[Any]], Any] | None = None,
    pinned: bool = False,
) -> Iterator[Any]:
    """The batches; of ``Pictures``, uint8 RGB [n, ..., 3, side, side] and classes, int64 [n].

    Args:
        items: what to read.
        batches: the numbers of each batch's items, see ``trainer.data.samplers``.
        workers: processes that read; 0 reads in this one. They live as long as the iterator.
        collate: makes a batch of items, where stacking them will not do.
        pinned: put the batches where a GPU fetches them fastest.

    Raises:
        TooMuchDamageError: too many items cannot be read, told as it would be without workers.
    """
    # A worker that is forked while OpenCV has threads waits for them for ever: it has none. To ask for one thread ends
    # the others, and is what the workers want, too: there are as many of them as were asked for.
    cv2.setNumThreads(1)
    loader: DataLoader[Any] = DataLoader(
        items,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pinned,
    )
    try:
        yield from loader
    except TooMuchDamageError as error:
        # Through its frames the error would keep the workers until the garbage collector finds both: it closes their
        # queues first, and then waits 5 seconds for each to end.
        traceback.clear_frames(error.__traceback__)
        # A worker's error arrives with its trace in the text.
        raise TooMuchDamageError(items.report()) from None


def fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The central square of ``image`` [height, width, 3] in another size: [side, side, 3]."""
    height, width = image.shape[:2]
    square = min(height, width)
    if (height, width) != (square, square):
        top, left = (height - square) // 2, (width - square) // 2
        image = image[top : top + square, left : left + square]
    if square == side:
        return image
    # Averaging areas keeps the noise of a large picture from being picked up pixel by pixel.
    way = cv2.INTER_AREA if square > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=way), np.uint8)


def rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BGR as OpenCV reads it to RGB, and back."""
    return np.ascontiguousarray(image[..., ::-1])
