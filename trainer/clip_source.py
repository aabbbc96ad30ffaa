"""Clips as training data of a branch: label lists, faces of some frames, and the trunk's feature maps of those."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from calibration.faces import FaceFinder, Image
from calibration.fer2013 import CHIP_SIDE
from engines.errors import UserError
from trainer.augment import augment_chip
from trainer.common.settings import ConfigError
from trainer.config import EmotionConfig
from trainer.data.clips import Clip, ClipFrames, dfew, ferv39k, read_clips
from trainer.data.reading import DataError, Pictures, TooMuchDamageError, fit, rgb
from trainer.data.split import by_share
from trainer.features import SHAPE, new_maps, open_maps
from trainer.map_sources import SPLITS, Float16, Labels, Rows, Source, spread

_FORMAT = 1  # part of the key: raise it when the meaning of a cached file changes


class _Bad(msgspec.Struct, frozen=True):
    """What lies beside a cached file: the rows that hold nothing, and what was wrong with the first of them."""

    rows: list[int]
    report: str


class ClipSource(Source):
    """Clips: an item is the maps [kept, 64, 17, 17] of some of a clip's frames."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an item's maps."""
        return (self.config.clips.kept, *SHAPE)

    @cached_property
    def clips(self) -> dict[str, list[Clip]]:
        """The clips of each split.

        Raises:
            DataError: a label file is missing or wrong, or a split stays empty.
        """
        training, test = listed(self.config)
        twice = {clip.folder for clip in training} & {clip.folder for clip in test}
        if twice:
            raise DataError(
                f"{min(twice)} would be trained on and tested on, and so would {len(twice) - 1} more"
            )
        names = [clip.folder.relative_to(self.config.data).as_posix() for clip in training]
        held_out = set(by_share(names, self.config.clips.held_out).held_out)
        found = {
            "train": [clip for clip, name in zip(training, names, strict=True) if name not in held_out],
            "validation": [clip for clip, name in zip(training, names, strict=True) if name in held_out],
            "test": test,
        }
        for split, clips in found.items():
            if not clips:
                raise DataError(f"{self.config.data}: no clip is left for {split}; change clips.held_out")
        return {
            split: [clips[row] for row in spread(len(clips), self.config.limit)]
            for split, clips in found.items()
        }

    @cached_property
    def data_sha256(self) -> str:
        """SHA-256 over labels, names and sizes of files, and how chips are made of them.

        Raises:
            DataError: a file is missing.
        """
        told: list[object] = [
            _FORMAT,
            self.config.clips.kept,
            self._finder.digest if self._finder else "middle square",
        ]
        for split in SPLITS:
            frames = self._frames(split, None)
            told += [split, frames.labels.tolist(), frames.digest(Path(self.config.data))]
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()

    def labels(self, split: str) -> Labels:
        """Labels int64 [N] of a split."""
        return np.array([clip.label for clip in self.clips[split]], np.int64)

    def maps(self, split: str, version: int | None = None) -> Float16:
        """Feature maps float16 [N, kept, 64, 17, 17] of a split's clips; nothing where a clip cannot be read.

        Raises:
            TooMuchDamageError: that is so of more clips than allowed.
        """
        path, count = self.file(split, version), len(self.clips[split])
        shape = (count, *self.shape)
        if path.is_file():
            self.advance(self.task(split, version), count, count)
            return open_maps(path, shape)
        pictures = Pictures(self._frames(split, version), self.config.clips.damaged)
        with new_maps(path, shape) as out:
            for row in range(count):
                try:
                    out[row] = self._maps_of(pictures, row, version)
                except UserError:
                    pictures.damage.mark(row)
                    if pictures.damage.too_much:
                        raise TooMuchDamageError(pictures.report()) from None
                self.advance(self.task(split, version), 1, count)
            if len(pictures.damage.items) == count:
                raise TooMuchDamageError(pictures.report())
            _bad_file(path).write_bytes(msgspec.json.encode(_Bad(pictures.damage.items, pictures.report())))
        return open_maps(path, shape)

    def good(self, split: str, versions: Iterable[int | None]) -> Rows:
        """Rows of a split whose clips could be read in all these versions, which are there; rising."""
        bad = {row for version in versions for row in _read_bad(self.file(split, version)).rows}
        return np.array([row for row in range(len(self.clips[split])) if row not in bad], np.int64)

    def damage(self) -> str:
        """What could not be read and was passed over, in each variant that was made."""
        versions = [("train", version) for version in range(self.config.versions)]
        reports = [
            (split, _read_bad(self.file(split, version)).report)
            for split, version in [*versions, ("validation", None), ("test", None)]
        ]
        return "\n".join(f"{split}: {report}" for split, report in dict.fromkeys(reports) if report)

    def _maps_of(self, pictures: Pictures, row: int, version: int | None) -> Float16:
        """A clip's maps; all its frames are varied alike, so that its movement stays."""
        chips = [rgb(frame) for frame in pictures.source.read(row)]
        if version is not None:
            chips = [
                augment_chip(chip, self.config.augment, np.random.default_rng((version, row)))
                for chip in chips
            ]
        return self.trunk.features(np.stack(chips)).astype(np.float16)

    def _frames(self, split: str, version: int | None) -> ClipFrames:
        return ClipFrames(
            self.clips[split], CHIP_SIDE, self.config.clips.kept, seed=version, cut=self._face_of
        )

    def _face_of(self, frame: Image, side: int) -> Image:
        """A chip of a frame, both uint8 BGR; the frame's middle where no face is found or none is looked for."""
        if self._finder is not None and (face := self._finder.subject(frame)) is not None:
            return self._finder.aligned(frame, face, side)
        return fit(frame, side)

    @cached_property
    def _finder(self) -> FaceFinder | None:
        """The detector of the trunk's pack.

        Raises:
            ConfigError: the trunk is no pack.
        """
        if not self.config.clips.align:
            return None
        folder = Path(self.config.trunk).expanduser()
        if not folder.is_dir():
            raise ConfigError(
                f"trunk {folder} is no pack, so it has no detector to align faces with; set clips.align=false"
            )
        return FaceFinder(folder, self.config.threads)


def listed(config: EmotionConfig) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on and to test with, as a data set's label files have them.

    Raises:
        DataError: one is missing or wrong.
    """
    root, settings = Path(config.data), config.clips
    if settings.kind == "ferv39k":
        return ferv39k(root, "train"), ferv39k(root, "test")
    if settings.kind == "dfew":
        return (
            dfew(root, settings.fold, "train", settings.folder),
            dfew(root, settings.fold, "test", settings.folder),
        )
    return read_clips(root / settings.train, root, {}), read_clips(root / settings.test, root, {})


def _bad_file(maps: Path) -> Path:
    return maps.with_suffix(".damaged.json")


def _read_bad(maps: Path) -> _Bad:
    """What is told of a cached file; of one that has not been made, nothing."""
    try:
        return msgspec.json.decode(_bad_file(maps).read_bytes(), type=_Bad)
    except FileNotFoundError:
        return _Bad([], "")
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(
            f"{_bad_file(maps)} cannot be read ({error}); delete it and {maps.name}, both are made anew"
        ) from error
