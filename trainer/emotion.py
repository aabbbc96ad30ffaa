"""The task ``emotion``: train the emotion branch on FER2013 over the frozen trunk.

Every random choice of an epoch follows from the seed and the epoch's number, so a run that was interrupted
and resumed gives the same weights as one that was not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engines.pack import file_digest
from trainer.augment import disturb
from trainer.branch import CLASSES, ClipBranch, EmotionBranch
from trainer.clip_source import ClipSource
from trainer.common import loop
from trainer.common.checkpoint import CheckpointError, file_of
from trainer.common.job import Advance, Batch, Course, Job, TrainingError, warm_cosine
from trainer.common.precision import Precision
from trainer.config import EmotionConfig
from trainer.data.clips import stretches
from trainer.features import SHAPE, open_trunk
from trainer.finished import Answers, Teacher, answers, open_teacher, read_branch, temperature_of
from trainer.losses.targets import mixed, smoothed
from trainer.map_sources import SPLITS, Chosen, Float16, ImageSource, Labels, Maps, Source
from trainer.metrics import measure

_MAPS = 256  # in a forward pass without gradients


@dataclass(frozen=True)
class Data:
    """The feature maps a run works on."""

    source: Source
    train: list[Maps]  # one array [N, 64, 17, 17] a version; of clips [N, kept, 64, 17, 17]
    train_labels: Labels
    validation: Maps
    validation_labels: Labels
    answers: Answers | None = None  # the teachers' mean probabilities [N, 7]

    @cached_property
    def test(self) -> tuple[Maps, Labels]:
        """Maps and labels of the test split, made when they are asked for."""
        maps, good = self.source.maps("test"), self.source.good("test", [None])
        return Chosen(maps, good), self.source.labels("test")[good]


def open_source(config: EmotionConfig, advance: Advance) -> Source:
    """The data set and the trunk, looked at; no feature map is made yet.

    Raises:
        Fer2013Error: the data set of images is missing or wrong.
        DataError: the data set of clips is.
        TrunkError: the face network is missing or wrong.
        TrainingError: teachers are named for clips.
    """
    if config.clips.kind and config.teachers:
        raise TrainingError("teachers answer images, not clips; leave teachers or clips.kind empty")
    cv2.setNumThreads(config.threads)
    kind = ClipSource if config.clips.kind else ImageSource
    source = kind(config, open_trunk(Path(config.trunk).expanduser(), config.threads), advance)
    source.labels("train")  # before anything slow: is it there, and is it what it should be?
    return source


def prepare(config: EmotionConfig, advance: Advance) -> Data:
    """Read the data set and make the feature maps that are not in the cache.

    Raises:
        Fer2013Error: the data set is missing or wrong.
        TrunkError: the face network is.
    """
    return read_data(open_source(config, advance))


def read_data(source: Source) -> Data:
    """The feature maps of a source; those that are not in the cache are made."""
    versions = range(source.config.versions)
    found = [source.maps("train", version) for version in versions]
    validation = source.maps("validation")
    good, good_validation = source.good("train", versions), source.good("validation", [None])
    data = Data(
        source=source,
        train=[Chosen(maps, good) for maps in found],
        train_labels=source.labels("train")[good],
        validation=Chosen(validation, good_validation),
        validation_labels=source.labels("validation")[good_validation],
    )
    return replace(data, answers=teach(data)) if source.config.teachers else data


def open_teachers(config: EmotionConfig) -> list[Teacher]:
    """The branches that teach.

    Raises:
        CheckpointError: a run is unreadable, or of another task.
        TrainingError: a file is missing or no exported branch.
    """
    return [
        open_teacher(path, lambda module, maps: logits_of(module, maps, config)) for path in config.teachers
    ]


def teach(data: Data) -> Answers:
    """The teachers' mean probabilities float32 [N, 7] for the training images.

    A teacher sees some variants of an image, as they are in the cache, neither moved nor holed; the mean of its
    answers holds for all variants.
    """
    source, config = data.source, data.source.config
    views = min(config.teacher_views, config.versions)
    total: Answers = np.zeros((len(data.train_labels), CLASSES), np.float32)
    for teacher in open_teachers(config):
        temperature = temperature_of(teacher, data.validation, data.validation_labels)
        advance = partial(_advance_answers, source.advance, teacher, views * len(total))
        for version in range(views):
            total += answers(
                teacher, data.train[version], temperature, source.file("train", version), advance
            )
    total /= views * len(config.teachers)
    return total


def _advance_answers(advance: Advance, teacher: Teacher, total: int, count: int) -> None:
    advance(f"answers of {teacher.name}", count, total)


class EmotionJob(Job):
    """The emotion branch on the feature maps of FER2013; an interval is an epoch."""

    module: EmotionBranch | ClipBranch
    elsewhere = frozenset({"data", "trunk", "cache", "threads", "start", "teachers"})
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
        if config.start:
            continue_from(frame_branch(self.module), config.start)
        self.optimizer = make_optimizer(self.module, config)
        count = len(source.labels("train"))
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
        if config.teachers or config.start:
            self.identity |= {
                "teachers_sha256": [teacher.sha256 for teacher in open_teachers(config)],
                "start_sha256": file_digest(file_of(config.start)) if config.start else "",
            }
        if config.clips.kind:
            self.score = "validation_war"
        if config.bfloat16:
            self.precision = Precision(torch.device("cpu"), torch.bfloat16)

    @cached_property
    def data(self) -> Data:
        """The feature maps."""
        return self._read()

    def facts(self) -> list[tuple[str, str]]:
        """The data set, and the feature maps that have to be made."""
        clips = self.config.clips
        what = "clips" if clips.kind else "images"
        items = {split: len(self.source.labels(split)) for split in SPLITS}
        maps = [("train", version) for version in range(self.config.versions)] + [("validation", None)]
        missing = [split for split, version in maps if not self.source.file(split, version).is_file()]
        size = sum(items[split] for split in missing) * math.prod(self.source.shape) * 2  # bytes of a float16
        return [
            ("data", f"{self.config.data}, SHA-256 {self.source.data_sha256[:16]}…"),
            *((f"{what}, {split}", f"{count:,}") for split, count in items.items()),
            *([("pooling over time", clips.pooling)] if clips.kind else []),
            ("trunk", f"{self.config.trunk}, SHA-256 {self.source.trunk.sha256[:16]}…"),
            (
                "feature maps to make",
                f"{len(missing)} of {len(maps)}, {size / 1e9:.2f} GB in {self.config.cache}",
            ),
        ]

    def example(self) -> Batch:
        """Maps of noise: the cost is the same, and the real ones may not be made yet."""
        frames = [self.config.clips.frames] if self.config.clips.kind else []
        maps = torch.rand(self.config.batch, *frames, *SHAPE)
        return {"maps": channels_last(maps), "targets": torch.full((self.config.batch, CLASSES), 1 / CLASSES)}

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
        """Accuracy and likelihood on the validation split; of clips, by the names that papers have for them."""
        metrics = measure(logits_of(module, self.data.validation, self.config), self.data.validation_labels)
        if self.config.clips.kind:
            return {
                "validation_war": metrics.accuracy,
                "validation_uar": metrics.balanced_accuracy,
                "validation_nll": metrics.nll,
            }
        return {
            "validation_accuracy": metrics.accuracy,
            "validation_balanced_accuracy": metrics.balanced_accuracy,
            "validation_nll": metrics.nll,
        }


def train(config: EmotionConfig, data: Data, out: Path, advance: Advance, stop_after: int = 0) -> nn.Module:
    """Train on data that are there already; see ``trainer.common.loop.train``."""
    return loop.train(EmotionJob(config, data.source, lambda: data), out, advance, stop_after)


def batches(config: EmotionConfig, data: Data, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches: feature maps float32 [B, 64, 17, 17] and smoothed, mixed targets float32 [B, 7].

    Every image or clip occurs once, in a random variant. Of clips, maps are [B, frames, 64, 17, 17].
    """
    rng = np.random.default_rng((config.seed, epoch))
    count = len(data.train_labels)
    order = rng.permutation(count)
    variant = rng.integers(0, len(data.train), count)
    for start in range(0, count, config.batch):
        chosen = order[start : start + config.batch]
        if len(chosen) == 1:
            continue  # batch normalisation has no moments of one
        drawn = [_disturbed(data.train[variant[i]][i], config, rng) for i in chosen]
        maps = torch.from_numpy(np.stack(drawn)).float()
        targets = smoothed(torch.from_numpy(data.train_labels[chosen]), CLASSES, config.label_smoothing)
        if data.answers is not None:
            targets = torch.lerp(targets, torch.from_numpy(data.answers[chosen]), config.teacher_share)
        maps, targets = mixed(maps, targets, config.mixup, rng)
        yield channels_last(maps), targets


def _disturbed(maps: Float16, config: EmotionConfig, rng: np.random.Generator) -> Float16:
    """An image's map moved and holed; of a clip, random frames of equal stretches, all alike."""
    if config.clips.kind:
        maps = maps[stretches(len(maps), config.clips.frames, rng)]
    moved = disturb(maps.reshape(-1, *maps.shape[-2:]), config.map_shift, config.map_erase, rng)
    return moved.reshape(maps.shape)


def channels_last(maps: Tensor) -> Tensor:
    """Feature maps laid out so that convolutions are quick; clips' are, once they lie frame by frame."""
    return maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps


def make_optimizer(model: nn.Module, config: EmotionConfig) -> torch.optim.AdamW:
    """AdamW with decay on convolution and linear weights; a norm's scale has no reason to be small."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def new_branch(config: EmotionConfig) -> EmotionBranch | ClipBranch:
    """An untrained branch, its weights laid out channels last: twice as fast in bfloat16."""
    clips = config.clips
    branch = ClipBranch(config.branch, clips.pooling) if clips.kind else EmotionBranch(config.branch)
    for parameter in branch.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return branch


def frame_branch(module: nn.Module) -> EmotionBranch:
    """What a module makes of a single frame."""
    branch = module.branch if isinstance(module, ClipBranch) else module
    assert isinstance(branch, EmotionBranch)  # noqa: S101 - for the type checker
    return branch


def continue_from(branch: EmotionBranch, run: str) -> None:
    """Give a branch the weights of a run's.

    Raises:
        CheckpointError: the run is unreadable, of another task, or its branch has another shape.
    """
    try:
        branch.load_state_dict(read_branch(run).state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"{file_of(run)}: its branch has another shape; set branch as it was there"
        ) from error


def logits_of(model: nn.Module, maps: Maps, config: EmotionConfig) -> NDArray[np.float32]:
    """Logits float32 [N, 7] of feature maps [N, 64, 17, 17]; of clips' [N, kept, 64, 17, 17], by middle frames."""
    parts = []
    chosen = stretches(config.clips.kept, config.clips.frames, None)
    step = max(1, _MAPS // len(chosen)) if isinstance(model, ClipBranch) else _MAPS
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        for start in range(0, len(maps), step):
            block = maps[start : start + step]
            if isinstance(model, ClipBranch):
                block = block[:, chosen]
            floats = channels_last(torch.from_numpy(block.astype(np.float32)))
            parts.append(model(floats).float().numpy())
    return np.concatenate(parts)
