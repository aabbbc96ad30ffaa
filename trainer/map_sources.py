"""Where a branch's training data come from: items with labels, and the trunk's feature maps of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.fer2013 import read_split
from engines.pack import file_digest
from trainer.common.job import Advance
from trainer.config import EmotionConfig
from trainer.data.fer import read_csv
from trainer.features import SHAPE, Trunk, version_features, version_key

Float16 = NDArray[np.float16]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]
SPLITS = ("train", "validation", "test")


class Maps(Protocol):
    """Feature maps float16 [N, …, 64, 17, 17] of a split's items, read from disk when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Float16: ...  # a number or a slice, as numpy takes them


@dataclass(frozen=True)
class Chosen:
    """Some rows of feature maps."""

    maps: Maps
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Float16:
        return self.maps[self.rows[index]]


@dataclass(frozen=True)
class Frames:
    """Feature maps of clips, frame by frame: [clips · kept, 64, 17, 17]."""

    maps: Maps
    kept: int

    def __len__(self) -> int:
        return len(self.maps) * self.kept

    def __getitem__(self, index: slice) -> Float16:
        clips, places = np.divmod(np.arange(len(self))[index], self.kept)
        needed, where = np.unique(clips, return_inverse=True)
        return self.maps[needed][where, places]


@dataclass(frozen=True)
class Source(ABC):
    """A data set's items by split, the trunk, and the cache of feature maps between them.

    Attributes:
        config: the settings.
        trunk: what makes the maps.
        advance: told of the progress.
    """

    config: EmotionConfig
    trunk: Trunk
    advance: Advance

    @property
    @abstractmethod
    def data_sha256(self) -> str:
        """What the data are."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of an item's maps."""

    @abstractmethod
    def labels(self, split: str) -> Labels:
        """Labels int64 [N] of a split."""

    @abstractmethod
    def maps(self, split: str, version: int | None = None) -> Maps:
        """The maps of a split's items, plain or in a random variant."""

    def good(self, split: str, versions: Iterable[int | None]) -> Rows:  # noqa: ARG002 - clips may be damaged
        """Rows of a split whose maps could be made in all these versions, which are there; rising."""
        return np.arange(len(self.labels(split)))

    def damage(self) -> str:
        """What could not be read and was passed over; empty when all could."""
        return ""

    def file(self, split: str, version: int | None = None) -> Path:
        """The cache file of a split's maps, plain or in a random variant."""
        config = self.config
        name = version_key(self.data_sha256, self.trunk.sha256, split, config.augment, version)
        if config.limit:
            name += f"-{config.limit}-of-all"
        return Path(config.cache) / f"{name}.npy"

    def task(self, split: str, version: int | None) -> str:
        """What to call the making of maps in front of the user."""
        variant = "" if version is None else f", variant {version + 1} of {self.config.versions}"
        return f"features of {split}{variant}"


class ImageSource(Source):
    """FER2013: an item is an image's map [64, 17, 17]."""

    shape = SHAPE

    @cached_property
    def data_sha256(self) -> str:
        """SHA-256 of the file."""
        return file_digest(Path(self.config.data))

    @cached_property
    def splits(self) -> dict[str, tuple[NDArray[np.uint8], Labels]]:
        """Images uint8 [N, 48, 48] and labels of each split.

        Raises:
            Fer2013Error: the file is missing or wrong.
        """
        path = Path(self.config.data)
        read = read_csv if path.suffix.lower() == ".csv" else read_split
        found = {}
        for split in SPLITS:
            images, labels = read(path, split)
            chosen = spread(len(labels), self.config.limit)
            found[split] = images[chosen], labels[chosen]
        return found

    def labels(self, split: str) -> Labels:
        """Labels int64 [N] of a split."""
        return self.splits[split][1]

    def maps(self, split: str, version: int | None = None) -> Float16:
        """Feature maps float16 [N, 64, 17, 17] of a split's images, plain or in a random variant."""
        images = self.splits[split][0]
        return version_features(
            self.file(split, version),
            images,
            self.trunk,
            version=version,
            settings=self.config.augment,
            advance=lambda count: self.advance(self.task(split, version), count, len(images)),
        )


def spread(count: int, limit: int) -> Rows:
    """At most ``limit`` of ``count`` rows, all where it is 0, over the whole: a list may be sorted by label."""
    return np.linspace(0, count - 1, min(limit or count, count)).astype(np.int64)
