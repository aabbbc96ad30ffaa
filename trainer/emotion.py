"""The task ``emotion``: train the emotion branch on FER2013 over the frozen trunk.

Every random choice of an epoch follows from the seed and the epoch's number, so a run that was interrupted
and resumed gives the same weights as one that was not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.fer2013 import read_split
from engines.pack import file_digest
from trainer.augment import disturb
from trainer.branch import CLASSES, EmotionBranch
from trainer.common import loop
from trainer.common.job import Advance, Batch, Course, Job, warm_cosine
from trainer.common.precision import Precision
from trainer.config import EmotionConfig
from trainer.features import SHAPE, Trunk, open_trunk, version_features, version_key
from trainer.metrics import measure

Float16 = NDArray[np.float16]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Where feature maps come from: the data set's file, the trunk, and the cache between them."""

    config: EmotionConfig
    data_sha256: str
    trunk: Trunk
    advance: Advance

    def read(self, split: str) -> tuple[NDArray[np.uint8], Labels]:
        """Images uint8 [N, 48, 48] and labels int64 [N] of a split, as many as ``limit`` allows."""
        images, labels = read_split(Path(self.config.data), split)
        if 0 < self.config.limit < len(labels):
            # Spread over the split: its file may be sorted by label, so the first images may all be of one.
            chosen = np.linspace(0, len(labels) - 1, self.config.limit).astype(np.int64)
            return images[chosen], labels[chosen]
        return images, labels

    def file(self, split: str, version: int | None = None) -> Path:
        """The cache file of a split's maps, plain or in a random variant."""
        config = self.config
        name = version_key(self.data_sha256, self.trunk.sha256, split, config.augment, version)
        if config.limit:
            name += f"-{config.limit}-of-all"
        return Path(config.cache) / f"{name}.npy"

    def maps(self, split: str, images: NDArray[np.uint8], version: int | None = None) -> Float16:
        """Feature maps float16 [N, 64, 17, 17] of a split's images, plain or in a random variant."""
        what = f"features of {split}"
        if version is not None:
            what += f", variant {version + 1} of {self.config.versions}"
        return version_features(
            self.file(split, version),
            images,
            self.trunk,
            version=version,
            settings=self.config.augment,
            advance=lambda count: self.advance(what, count, len(images)),
        )


@dataclass(frozen=True)
class Data:
    """The feature maps a run works on."""

    source: Source
    train: list[Float16]  # one array [N, 64, 17, 17] a version
    train_labels: Labels
    validation: Float16
    validation_labels: Labels


def open_source(config: EmotionConfig, advance: Advance) -> Source:
    """The data set and the trunk, looked at; no feature map is made yet.

    Raises:
        Fer2013Error: the data set is missing or wrong.
        TrunkError: the face network is.
    """
    path = Path(config.data)
    read_split(path, "train")  # before anything slow: is it there, and is it FER2013?
    cv2.setNumThreads(config.threads)
    trunk = open_trunk(Path(config.trunk).expanduser(), config.threads)
    return Source(config, file_digest(path), trunk, advance)


def prepare(config: EmotionConfig, advance: Advance) -> Data:
    """Read the data set and make the feature maps that are not in the cache.

    Raises:
        Fer2013Error: the data set is missing or wrong.
        TrunkError: the face network is.
    """
    return read_data(open_source(config, advance))


def read_data(source: Source) -> Data:
    """The feature maps of a source; those that are not in the cache are made."""
    images, labels = source.read("train")
    validation, validation_labels = source.read("validation")
    return Data(
        source=source,
        train=[source.maps("train", images, version) for version in range(source.config.versions)],
        train_labels=labels,
        validation=source.maps("validation", validation),
        validation_labels=validation_labels,
    )


class EmotionJob(Job):
    """The emotion branch on the feature maps of FER2013; an interval is an epoch."""

    module: EmotionBranch
    elsewhere = frozenset({"data", "trunk", "cache", "threads"})
    score = "validation_accuracy"

    def __init__(self, config: EmotionConfig, source: Source, read: Callable[[], Data]) -> None:
        """Build the branch.

        Args:
            config: the settings.
            source: of the feature maps.
            read: makes or reads them; called when the first is needed.
        """
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config = config
        self.source = source
        self._read = read
        self.module = new_branch(config)
        self.optimizer = make_optimizer(self.module, config)
        count = len(source.read("train")[1])
        self.course = Course(
            unit="epoch",
            intervals=config.epochs,
            steps=math.ceil(count / config.batch),
            samples=config.batch,
            seed=config.seed,
            ema=config.ema,
        )
        self.identity = {
            "config": msgspec.to_builtins(config),
            "data_sha256": source.data_sha256,
            "trunk_sha256": source.trunk.sha256,
        }
        if config.bfloat16:
            self.precision = Precision(torch.device("cpu"), torch.bfloat16)

    @cached_property
    def data(self) -> Data:
        """The feature maps."""
        return self._read()

    def facts(self) -> list[tuple[str, str]]:
        """The data set, and the feature maps that have to be made."""
        images = {split: len(self.source.read(split)[1]) for split in ("train", "validation", "test")}
        maps = [("train", version) for version in range(self.config.versions)] + [("validation", None)]
        missing = [split for split, version in maps if not self.source.file(split, version).is_file()]
        size = sum(images[split] for split in missing) * math.prod(SHAPE) * np.dtype(np.float16).itemsize
        return [
            ("data", f"{self.config.data}, SHA-256 {self.source.data_sha256[:16]}…"),
            *((f"images, {split}", f"{count:,}") for split, count in images.items()),
            ("trunk", f"{self.config.trunk}, SHA-256 {self.source.trunk.sha256[:16]}…"),
            (
                "feature maps to make",
                f"{len(missing)} of {len(maps)}, {size / 1e9:.2f} GB in {self.config.cache}",
            ),
        ]

    def example(self) -> Batch:
        """Maps of noise: the cost is the same, and the real ones may not be made yet."""
        maps = torch.rand(self.config.batch, *SHAPE).contiguous(memory_format=torch.channels_last)
        return {"maps": maps, "targets": torch.full((self.config.batch, CLASSES), 1 / CLASSES)}

    def batches(self, interval: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        for maps, targets in batches(self.config, self.data, interval):
            yield {"maps": maps, "targets": targets}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Cross-entropy, nats."""
        with self.precision.autocast():
            logits = module(batch["maps"])
        return {"loss": functional.cross_entropy(logits.float(), batch["targets"])}

    def rate(self, step: int) -> float:
        """Linear warm-up over the first epoch, then a cosine to zero."""
        epoch = step / self.course.steps
        return warm_cosine(self.config.learning_rate, epoch, 1, self.config.epochs)

    def evaluates(self, _interval: int) -> bool:
        """Behind every epoch."""
        return True

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy and likelihood on the validation split."""
        metrics = measure(logits_of(module, self.data.validation, self.config), self.data.validation_labels)
        return {
            "validation_accuracy": metrics.accuracy,
            "validation_balanced_accuracy": metrics.balanced_accuracy,
            "validation_nll": metrics.nll,
        }


def train(
    config: EmotionConfig, data: Data, out: Path, advance: Advance, stop_after: int = 0
) -> EmotionBranch:
    """Train on data that are there already; see ``trainer.common.loop.train``."""
    module = loop.train(EmotionJob(config, data.source, lambda: data), out, advance, stop_after)
    assert isinstance(module, EmotionBranch)  # noqa: S101 - for the type checker
    return module


def batches(config: EmotionConfig, data: Data, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches: feature maps float32 [B, 64, 17, 17] and smoothed, mixed targets float32 [B, 7].

    Every image occurs once, in a random variant.
    """
    rng = np.random.default_rng((config.seed, epoch))
    count = len(data.train_labels)
    order = rng.permutation(count)
    variant = rng.integers(0, len(data.train), count)
    for start in range(0, count, config.batch):
        chosen = order[start : start + config.batch]
        if len(chosen) == 1:
            continue  # batch normalisation has no moments of one
        drawn = [disturb(data.train[variant[i]][i], config.map_shift, config.map_erase, rng) for i in chosen]
        maps = torch.from_numpy(np.stack(drawn)).float()
        targets = functional.one_hot(torch.from_numpy(data.train_labels[chosen]), CLASSES).float()
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / CLASSES
        if config.mixup > 0:
            share = torch.from_numpy(rng.beta(config.mixup, config.mixup, len(chosen)).astype(np.float32))
            partner = torch.from_numpy(rng.permutation(len(chosen)))
            maps = torch.lerp(maps[partner], maps, share[:, None, None, None])
            targets = torch.lerp(targets[partner], targets, share[:, None])
        yield maps.contiguous(memory_format=torch.channels_last), targets


def make_optimizer(model: EmotionBranch, config: EmotionConfig) -> torch.optim.AdamW:
    """AdamW with decay on convolution and linear weights; a norm's scale has no reason to be small."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def new_branch(config: EmotionConfig) -> EmotionBranch:
    """An untrained branch, its weights laid out channels last: twice as fast in bfloat16."""
    branch = EmotionBranch(config.branch)
    for parameter in branch.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return branch


def logits_of(model: nn.Module, maps: Float16, config: EmotionConfig) -> NDArray[np.float32]:
    """Logits float32 [N, 7] of feature maps [N, 64, 17, 17]."""
    parts = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        for start in range(0, len(maps), 256):
            block = torch.from_numpy(maps[start : start + 256].astype(np.float32))
            parts.append(model(block.contiguous(memory_format=torch.channels_last)).float().numpy())
    return np.concatenate(parts)
