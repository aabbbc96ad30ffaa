"""Jobs that count steps and not epochs: what follows for all of them from ``RunSettings``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from trainer import quantise
from trainer.common import checkpoint, optimizers
from trainer.common.checkpoint import CheckpointError
from trainer.common.distributed import World, own_rows
from trainer.common.job import Course, Job, warm_cosine
from trainer.common.precision import choose
from trainer.common.settings import ELSEWHERE, RunSettings


class Stepped(Job):
    """A job whose interval is a number of steps.

    Attributes:
        settings: of the run.
    """

    def __init__(self, settings: RunSettings, world: World, digests: Mapping[str, str]) -> None:
        """Take in the settings; ``train_module`` is to follow.

        Args:
            settings: of the run.
            world: this process among those that train together.
            digests: of the data, by name; a checkpoint of others is not continued.
        """
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.world = world
        self.precision = choose(world.device, settings.precision)
        self.course = Course(
            unit="interval",
            intervals=max(1, round(settings.steps / settings.interval)),
            steps=settings.interval,
            samples=settings.batch,
            seed=settings.seed,
            ema=settings.ema,
            clip=settings.clip,
        )
        self.identity = {"config": msgspec.to_builtins(settings), **digests}
        self.elsewhere = ELSEWHERE

    def train_module(self, module: nn.Module) -> None:
        """Train this: it goes to the device, and the optimiser gets its parameters."""
        self.module = module.to(self.world.device)
        self.optimizer = optimizers.make(self.module, self.settings)

    def progress(self, step: int) -> float:
        """Share of the run that is done before a step, 0 to 1."""
        return min(1.0, step / (self.course.intervals * self.course.steps))

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        steps = self.course.intervals * self.course.steps
        return warm_cosine(self.settings.learning_rate, step, self.settings.warmup * steps, steps)

    def evaluates(self, interval: int) -> bool:
        """Every ``evaluate`` intervals."""
        return bool(self.settings.evaluate) and (interval + 1) % self.settings.evaluate == 0


def pixels(images: Tensor) -> Tensor:
    """What backbones read, float32 in -1 to 1, of uint8 pictures."""
    return images.float() / 127.5 - 1


def start_from(module: nn.Module, run: str, part: str) -> None:
    """Give a module the weights that a part of another run's network has.

    Args:
        module: of the same shape.
        run: folder of the run, or a checkpoint.
        part: name of the part, such as ``backbone``.

    Raises:
        CheckpointError: there is no such part, or it has another shape, or is quantised.
    """
    path = checkpoint.file_of(run)
    state, _ = _trained(path)
    weights = {
        name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(f"{part}.")
    }
    if quantise.wrapped(weights):
        raise CheckpointError(
            f"{path} was fine-tuned for whole numbers (quantise); name the run that it began with"
        )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its {part} is not of the shape that is to be trained here; set backbone, side, dim and width as "
            "they were there"
        ) from error


def start_whole(module: nn.Module, run: str, job: Job) -> bool:
    """Give a module all that another run has trained, if that was the same kind of module on the same data.

    Args:
        module: to be trained by ``job``.
        run: folder of the run, or a checkpoint.
        job: whose ``identity``, ``sharded`` and ``world`` are known already.

    Returns:
        Whether it was; if not, the module stays as it is.
    """
    state, meta = _trained(checkpoint.file_of(run))
    like = module.state_dict()
    about = {key: value for key, value in job.identity.items() if key != "config"}
    told = {key: meta.get(key) for key in about}
    if json.dumps(told, sort_keys=True) != json.dumps(about, sort_keys=True) or state.keys() != like.keys():
        return False
    own = {id(parameter) for parameter in job.sharded}
    for name, parameter in module.named_parameters():
        if id(parameter) in own:
            state[name] = own_rows(state[name], parameter, job.world)
    if any(state[name].shape != tensor.shape for name, tensor in like.items()):
        return False
    module.load_state_dict(state)
    return True


def _trained(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a run has trained, averaged where it averages, and what its checkpoint says of it."""
    tensors, meta = checkpoint.load(path)
    return checkpoint.section("average", tensors) or checkpoint.section("model", tensors), meta
