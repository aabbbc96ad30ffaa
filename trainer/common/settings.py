"""The settings of a run, from defaults, a TOML file and ``key=value`` overrides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from engines.errors import UserError

S = TypeVar("S", bound=msgspec.Struct)
Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, lt=1)]
NotNegative = Annotated[float, Meta(ge=0)]


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of range; the message names it."""


class RunSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every task that trains step by step is told. A task's own settings stand beside these.

    Attributes:
        seed: of all random choices. They follow from it and the number of the interval, not from what ran before.
        threads: of PyTorch on the processor; 0 leaves it to PyTorch.
        workers: processes that read images; 0 reads in the training process.
        device: ``auto`` takes the GPU where there is one.
        precision: of the products; ``auto`` is bfloat16 or float16 on a GPU that has it, else float32. Losses are
            computed in float32 always.
        steps: of the whole run.
        batch: images of a step, over all processes.
        interval: steps between two checkpoints; a run that is killed loses at most these.
        evaluate: intervals between two evaluations; 0: only at the end.
        optimizer: SGD with Nesterov's momentum 0.9, or AdamW.
        learning_rate: the peak; linear warm-up, then a cosine to zero.
        warmup: share of the steps in which the rate rises.
        weight_decay: on weights of two dimensions or more; norms and biases have none.
        clip: greatest norm of the gradient; 0 clips nothing.
        ema: decay a step of the averaged weights, which are then what is evaluated and exported; 0 averages nothing.
    """

    seed: Whole = 1
    threads: Whole = 0
    workers: Whole = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    steps: Count = 2000
    batch: Annotated[int, Meta(ge=2)] = 64
    interval: Count = 50
    evaluate: Whole = 10
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.1
    warmup: Share = 0.1
    weight_decay: NotNegative = 5e-4
    clip: NotNegative = 5.0
    ema: Decay = 0.0


ELSEWHERE = frozenset({"threads", "workers", "device"})
"""Settings of ``RunSettings`` that say where a run goes on, not what it computes: one may go on with others."""


def load_settings(kind: type[S], path: Path | None, overrides: list[str]) -> S:
    """Defaults of ``kind``, then what ``read_table`` reads.

    Raises:
        ConfigError: the file cannot be read, or a key or value does not fit.
    """
    return convert(kind, read_table(path, overrides))


def read_table(path: Path | None, overrides: list[str]) -> dict[str, Any]:
    """What is set: by the TOML file, then by the overrides (``steps=5``, ``augment.flip=0``).

    Raises:
        ConfigError: the file cannot be read, or an override is none.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = msgspec.toml.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"config {path} cannot be read: {error}") from error
    for override in overrides:
        _apply(table, override)
    return table


def convert(kind: type[S], table: Mapping[str, Any]) -> S:
    """Settings from a table as TOML has it.

    Raises:
        ConfigError: a key or value does not fit.
    """
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        documented = kind.__module__.replace(".", "/")
        raise ConfigError(f"config: {error}; the keys are documented in {documented}.py") from error


def _apply(table: dict[str, Any], override: str) -> None:
    """Write ``a.b=value`` into a nested table; a value that is no TOML is taken as a string."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected key=value")
    try:
        value = msgspec.toml.decode(f"value = {text}")["value"]
    except msgspec.DecodeError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {parent} is no table")
        table = inner
    table[last] = value
