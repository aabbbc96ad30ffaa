"""A job: what a task has built from its settings, and all that the loop has to know of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from engines.errors import UserError
from trainer.common.distributed import CPU, World
from trainer.common.precision import Precision
from trainer.common.settings import ConfigError

Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how much of it is newly done, out of how much."""

Say = Callable[[str], None]
"""Told a line for the user."""

Batch = Mapping[str, Tensor]
"""Tensors of one step by name, those with a row for each sample."""


class TrainingError(UserError):
    """A run cannot go on; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a run goes: intervals of steps, with a checkpoint behind each.

    Attributes:
        unit: what an interval is called: its key in the metrics.
        intervals: of the whole run.
        steps: of one interval.
        samples: of one step, over all processes.
        seed: of all random choices.
        ema: decay a step of the averaged weights; 0 averages nothing.
        clip: greatest norm of the gradient; 0 clips nothing.
    """

    unit: str
    intervals: int
    steps: int
    samples: int
    seed: int
    ema: float = 0.0
    clip: float = 0.0


class Job(ABC):
    """What is trained, on what, and how.

    Attributes:
        module: all that is trained and saved.
        optimizer: of its parameters.
        course: how long, and with what marks.
        identity: what a checkpoint must share to be continued: settings and digests of the data, as JSON holds them.
        elsewhere: settings in it that say where a run goes on, not what it computes.
        precision: of the network's products, and the device.
        world: this process among those that train together.
        sharded: parameters of which every process has rows of its own.
        score: the figure of ``evaluate`` that the pictures show.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    course: Course
    identity: Mapping[str, object]
    elsewhere: frozenset[str] = frozenset()
    precision: Precision = Precision(CPU)
    world: World = World()
    sharded: Sequence[nn.Parameter] = ()
    score: str = ""

    def begin(self) -> None:
        """Put into the module what is known before the first step; a run that goes on has it in its checkpoint."""
        return

    @abstractmethod
    def facts(self) -> list[tuple[str, str]]:
        """What the plan says of the data: name and value."""

    @abstractmethod
    def example(self) -> Batch:
        """A batch of the shape of every other, on the device."""

    @abstractmethod
    def batches(self, interval: int) -> Iterator[Batch]:
        """This process's part of the batches of an interval, on the device.

        They depend on nothing but the seed, the number of the interval and PyTorch's generator, which is seeded by
        both.
        """

    @abstractmethod
    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """``loss``, which is descended, and whatever else the metrics are to show, all scalars.

        Args:
            module: ``self.module``, or what DDP has wrapped around it.
            batch: from ``batches``.
            step: number of the step in the whole run, from 0.
        """

    @abstractmethod
    def rate(self, step: int) -> float:
        """Learning rate of a step."""

    def evaluates(self, _interval: int) -> bool:
        """Whether there is an evaluation behind this interval; there is one behind the last in any case."""
        return False

    @abstractmethod
    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Figures for the metrics of a module like ``self.module``, in evaluation mode."""


S = TypeVar("S", bound=msgspec.Struct)
J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Task(Generic[S, J]):
    """A task of ``python -m trainer``.

    Attributes:
        settings: what can be set.
        build: the job, from settings, the world and who is told of progress.
        finish: pictures and export behind the last step: job, module in evaluation mode, the run's folder, the file
            to export or None, who is told of progress, who is told the outcome.
        instead: other tasks of the same name, each by the setting that asks for it.
    """

    settings: type[S]
    build: Callable[[S, World, Advance], J]
    finish: Callable[[J, nn.Module, Path, Path | None, Advance, Say], None]
    instead: Mapping[str, "Task[Any, Any]"] = field(default_factory=dict)

    def of(self, table: Mapping[str, object]) -> "Task[Any, Any]":
        """This task, or the one for which a table of settings asks.

        Raises:
            ConfigError: the table has settings of both.
        """
        for key, other in self.instead.items():
            if key in table:
                known = set(other.settings.__struct_fields__)
                foreign = [
                    name for name in table if name in self.settings.__struct_fields__ and name not in known
                ]
                if foreign:
                    raise ConfigError(
                        f"config: {', '.join(foreign)} cannot be had together with {key}; leave out one or the other"
                    )
                return other
        return self


def warm_cosine(peak: float, step: float, warmup: float, steps: float) -> float:
    """A rate that rises linearly over ``warmup`` steps and then falls to zero as a cosine (SGDR without restarts)."""
    if step < warmup:
        return peak * step / warmup
    rest = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
