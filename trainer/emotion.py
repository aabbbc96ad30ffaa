"""The task ``emotion``: train the emotion branch on FER2013 over the frozen trunk.

Every random choice of an epoch follows from the seed and the epoch's number, so a run that was interrupted
and resumed gives the same weights as one that was not.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from calibration.fer2013 import read_split
from trainer import checkpoint
from trainer.augment import disturb
from trainer.branch import CLASSES, EmotionBranch
from trainer.config import EmotionConfig
from trainer.features import Trunk, open_trunk, version_features, version_key
from trainer.metrics import measure

Float16 = NDArray[np.float16]
Labels = NDArray[np.int64]
Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how much of it is newly done, out of how much."""

CHECKPOINT = "checkpoint.npz"
HISTORY = "metrics.jsonl"


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

    def maps(self, split: str, images: NDArray[np.uint8], version: int | None = None) -> Float16:
        """Feature maps float16 [N, 64, 17, 17] of a split's images, plain or in a random variant."""
        config = self.config
        name = version_key(self.data_sha256, self.trunk.sha256, split, config.augment, version)
        if config.limit:
            name += f"-{config.limit}-of-all"
        what = f"features of {split}"
        if version is not None:
            what += f", variant {version + 1} of {config.versions}"
        return version_features(
            Path(config.cache) / f"{name}.npy",
            images,
            self.trunk,
            version=version,
            settings=config.augment,
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


def prepare(config: EmotionConfig, advance: Advance) -> Data:
    """Read the data set and make the feature maps that are not in the cache.

    Raises:
        Fer2013Error: the data set is missing or wrong.
        TrunkError: the face network is.
    """
    path = Path(config.data)
    read_split(path, "train")  # before anything slow: is it there, and is it FER2013?
    cv2.setNumThreads(config.threads)
    source = Source(
        config, file_sha256(path), open_trunk(Path(config.trunk).expanduser(), config.threads), advance
    )
    images, labels = source.read("train")
    validation, validation_labels = source.read("validation")
    return Data(
        source=source,
        train=[source.maps("train", images, version) for version in range(config.versions)],
        train_labels=labels,
        validation=source.maps("validation", validation),
        validation_labels=validation_labels,
    )


def train(
    config: EmotionConfig, data: Data, out: Path, advance: Advance, stop_after: int = 0
) -> EmotionBranch:
    """Train, or go on with the checkpoint in ``out``; returns the averaged model in evaluation mode.

    Writes a checkpoint and a line of metrics after every epoch.

    Args:
        config: the settings; those of a checkpoint must be the same.
        data: from ``prepare``.
        out: the run's folder.
        advance: told of each step.
        stop_after: end after this epoch, as an interruption would; 0 means go on to the last.

    Raises:
        CheckpointError: the checkpoint in ``out`` is unreadable or of another run.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = new_branch(config)
    optimizer = make_optimizer(model, config)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    out.mkdir(parents=True, exist_ok=True)
    identity = {
        "config": msgspec.to_builtins(config),
        "data_sha256": data.source.data_sha256,
        "trunk_sha256": data.source.trunk.sha256,
    }
    done = _resume(out / CHECKPOINT, identity, model, optimizer, average)
    _trim_history(out / HISTORY, done)
    steps = math.ceil(len(data.train_labels) / config.batch)
    for epoch in range(done, config.epochs):
        started = time.perf_counter()
        torch.manual_seed(config.seed * 100_003 + epoch)  # dropout
        losses = []
        for step, (maps, targets) in enumerate(batches(config, data, epoch)):
            rate = learning_rate(config, (epoch * steps + step) / steps)
            losses.append(train_step(model, optimizer, maps, targets, rate, bfloat16=config.bfloat16))
            update_average(average, model.state_dict(), config.ema, epoch * steps + step)
            advance(f"training, epochs {done + 1} to {config.epochs}", 1, (config.epochs - done) * steps)
        metrics = measure(
            logits_of(averaged(config, average), data.validation, config), data.validation_labels
        )
        line = {
            "epoch": epoch + 1,
            "loss": round(float(np.mean(losses)), 5),
            "validation_accuracy": round(metrics.accuracy, 5),
            "validation_balanced_accuracy": round(metrics.balanced_accuracy, 5),
            "validation_nll": round(metrics.nll, 5),
            "seconds": round(time.perf_counter() - started, 1),
        }
        tensors = {
            **checkpoint.prefixed("model", model.state_dict()),
            **checkpoint.prefixed("average", average),
            **checkpoint.prefixed("optimizer", checkpoint.optimizer_tensors(optimizer)),
        }
        with (out / HISTORY).open("a", encoding="utf-8") as history:
            history.write(json.dumps(line) + "\n")
        checkpoint.save(out / CHECKPOINT, tensors, {**identity, "epoch": epoch + 1})
        if epoch + 1 == stop_after:
            break
    return averaged(config, average)


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


def train_step(
    model: EmotionBranch,
    optimizer: torch.optim.Optimizer,
    maps: Tensor,
    targets: Tensor,
    rate: float,
    *,
    bfloat16: bool,
) -> float:
    """One step of descent; returns the batch's loss (cross-entropy, nats)."""
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        logits = model(maps)
    loss = functional.cross_entropy(logits.float(), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


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


def learning_rate(config: EmotionConfig, epoch: float) -> float:
    """Rate at a point in the run, in epochs: linear warm-up over the first, then a cosine to zero."""
    if epoch < 1:
        return config.learning_rate * epoch
    rest = (epoch - 1) / max(config.epochs - 1, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def update_average(average: dict[str, Tensor], state: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move the averaged weights and moments towards ``state``; the first steps count for more."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, tensor in state.items():
            if tensor.is_floating_point():
                average[name].lerp_(tensor, 1 - decay)
            else:
                average[name].copy_(tensor)


def new_branch(config: EmotionConfig) -> EmotionBranch:
    """An untrained branch, its weights laid out channels last: twice as fast in bfloat16."""
    branch = EmotionBranch(config.branch)
    for parameter in branch.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return branch


def averaged(config: EmotionConfig, average: Mapping[str, Tensor]) -> EmotionBranch:
    """A model with the averaged weights, in evaluation mode."""
    model = new_branch(config)
    model.load_state_dict(dict(average))
    model.eval()
    return model


def logits_of(model: EmotionBranch, maps: Float16, config: EmotionConfig) -> NDArray[np.float32]:
    """Logits float32 [N, 7] of feature maps [N, 64, 17, 17]."""
    parts = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        for start in range(0, len(maps), 256):
            block = torch.from_numpy(maps[start : start + 256].astype(np.float32))
            parts.append(model(block.contiguous(memory_format=torch.channels_last)).float().numpy())
    return np.concatenate(parts)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _resume(
    path: Path,
    identity: dict[str, Any],
    model: EmotionBranch,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> int:
    """Put a checkpoint's state into model, optimiser and average; returns its epochs, 0 if there is none."""
    if not path.is_file():
        return 0
    tensors, meta = checkpoint.load(path)
    for key, value in identity.items():
        # Where the files lie and how many threads run may change between sessions; what is computed may not.
        if _relevant(meta.get(key)) != _relevant(value):
            raise checkpoint.CheckpointError(
                f"{path} was made with another {key.replace('_', ' ')}; choose another --out or delete it"
            )
    model.load_state_dict(checkpoint.section("model", tensors))
    checkpoint.load_optimizer(optimizer, checkpoint.section("optimizer", tensors))
    average.update(checkpoint.section("average", tensors))
    return int(meta["epoch"])


def _relevant(value: object) -> str:
    """A comparable text of a checkpoint's field, without the settings that do not change the result."""
    if isinstance(value, dict):
        value = {
            key: entry for key, entry in value.items() if key not in {"data", "trunk", "cache", "threads"}
        }
    return json.dumps(value, sort_keys=True)


def _trim_history(path: Path, epochs: int) -> None:
    """Keep the first ``epochs`` lines: a run cut off between history and checkpoint repeats an epoch."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:epochs] if path.is_file() else []
    path.write_text("".join(lines), encoding="utf-8")
