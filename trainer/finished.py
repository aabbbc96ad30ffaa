"""Finished branches: to go on from, and as teachers, whose answers become part of a new branch's targets.

A branch that learns what branches before it answered, next to the labels, ends above them (born-again networks,
Furlanello et al. 2018): their answers say which expressions a face lies between, which a label cannot, and FER2013's
labels are often wrong.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from engines.pack import file_digest
from trainer.branch import BranchSettings, EmotionBranch
from trainer.common import checkpoint
from trainer.common.checkpoint import CheckpointError
from trainer.common.job import TrainingError
from trainer.export import onnx_logits
from trainer.map_sources import Maps
from trainer.metrics import best_temperature, log_softmax

Answers = NDArray[np.float32]
_BLOCK = 2048  # maps between two reports of progress


@dataclass(frozen=True)
class Teacher:
    """A finished branch.

    Attributes:
        name: for the user.
        sha256: of its file.
        logits: float32 [n, 7] of feature maps float16 [n, 64, 17, 17].
    """

    name: str
    sha256: str
    logits: Callable[[Maps], NDArray[np.float32]]


def read_branch(run: str) -> EmotionBranch:
    """The branch of an ``emotion`` run, its averaged weights if it has any.

    Args:
        run: the run's folder, or a checkpoint.

    Raises:
        CheckpointError: it is unreadable, or of another task.
    """
    path = checkpoint.file_of(run)
    tensors, meta = checkpoint.load(path)
    weights = checkpoint.section("average", tensors) or checkpoint.section("model", tensors)
    if any(name.startswith("branch.") for name in weights):  # of a run on clips
        weights = {
            name.removeprefix("branch."): tensor
            for name, tensor in weights.items()
            if name.startswith("branch.")
        }
    try:
        branch = EmotionBranch(msgspec.convert(meta["config"]["branch"], BranchSettings))
        branch.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError, msgspec.ValidationError) as error:
        raise CheckpointError(
            f"{path} holds no branch of the task emotion; a whole network is one with backbone set"
        ) from error
    return branch.eval()


def open_teacher(path: str, logits_of: Callable[[torch.nn.Module, Maps], NDArray[np.float32]]) -> Teacher:
    """A teacher from a run, or from a branch that was exported.

    Args:
        path: a run's folder, a checkpoint, or an ``.onnx`` that the task ``emotion`` has written.
        logits_of: computes a module's logits.

    Raises:
        CheckpointError: the run is unreadable, or of another task.
        TrainingError: the ``.onnx`` is missing or no exported branch.
    """
    if not path.endswith(".onnx"):
        branch = read_branch(path)
        return Teacher(path, file_digest(checkpoint.file_of(path)), lambda maps: logits_of(branch, maps))
    file = Path(path).expanduser()
    try:
        model = onnx.load(file)
        onnx_logits(model, np.zeros((1, 64, 17, 17), np.float16))
    except Exception as error:  # protobuf's and ONNX Runtime's errors have no common type
        raise TrainingError(f"teacher {path}: no exported emotion branch ({error})") from error
    return Teacher(path, file_digest(file), lambda maps: onnx_logits(model, maps))


def answers(
    teacher: Teacher, maps: Maps, temperature: float, cache: Path, advance: Callable[[int], None]
) -> Answers:
    """A teacher's probabilities float32 [N, 7] of one version of the training images, from the cache if they are there.

    Args:
        teacher: who answers.
        maps: the version's feature maps.
        temperature: divides the logits.
        cache: the file of the maps; the answers lie beside it.
        advance: told how many more maps are answered.
    """
    digest = hashlib.sha256(f"{cache.stem} {teacher.sha256} {temperature:.6f}".encode()).hexdigest()
    path = cache.with_name(f"answers-{digest[:24]}.npy")
    if path.is_file():
        advance(len(maps))
        stored: Answers = np.load(path, allow_pickle=False)
        return stored
    parts = []
    for start in range(0, len(maps), _BLOCK):
        parts.append(teacher.logits(maps[start : start + _BLOCK]))
        advance(len(parts[-1]))
    made = np.exp(log_softmax(np.concatenate(parts) / np.float32(temperature))).astype(np.float32)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, made, allow_pickle=False)
    partial.rename(path)
    return made


def temperature_of(teacher: Teacher, maps: Maps, labels: NDArray[np.int64]) -> float:
    """The divisor of a teacher's logits that fits its answers to the validation split, as the export chooses it."""
    return best_temperature(teacher.logits(maps), labels)
