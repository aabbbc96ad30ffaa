"""The loop: one interval after another, with a line of metrics and a checkpoint behind each.

Every random choice of an interval follows from the seed and the interval's number, so a run that was interrupted and
resumed ends with the same weights, to the bit, as one that was not.
"""

import copy
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.common import checkpoint, distributed
from trainer.common.job import Advance, Batch, Job, TrainingError

CHECKPOINT = checkpoint.NAME
HISTORY = "metrics.jsonl"


def train(job: Job, out: Path, advance: Advance, stop_after: int = 0) -> nn.Module:
    """Train, or go on with the checkpoint in ``out``; returns the (averaged) module in evaluation mode.

    Args:
        job: what to train; a checkpoint must be of the same.
        out: the run's folder.
        advance: told of each step.
        stop_after: end after this interval, as an interruption would; 0 means go on to the last.

    Raises:
        CheckpointError: the checkpoint in ``out`` is unreadable or of another run.
        TrainingError: the loss is no longer a number.
    """
    course, module, world = job.course, job.module, job.world
    averaged = copy.deepcopy(module) if course.ema else module
    average = averaged.state_dict()
    scaler = job.precision.scaler()
    out.mkdir(parents=True, exist_ok=True)
    done = _resume(out / CHECKPOINT, job, averaged, scaler)
    if not done:
        job.begin()
        averaged.load_state_dict(module.state_dict())
    distributed.wait(world)
    if world.first:
        _trim_history(out / HISTORY, done)
    wrapped = distributed.together(module, world, job.sharded)
    what = f"training, {course.unit}s {done + 1} to {course.intervals}"
    for interval in range(done, course.intervals):
        started = time.perf_counter()
        torch.manual_seed(course.seed * 100_003 + interval + 1_000_003 * world.rank)
        seen: dict[str, list[Tensor]] = {}
        module.train()
        for step, batch in enumerate(job.batches(interval), interval * course.steps):
            for name, value in descend(job, wrapped, batch, step, scaler).items():
                seen.setdefault(name, []).append(value)
            if course.ema:
                update_average(average, module.state_dict(), course.ema, step)
            advance(what, 1, (course.intervals - done) * course.steps)
        means = _means(job, seen, interval)
        figures = {}
        if world.first and (interval + 1 == course.intervals or job.evaluates(interval)):
            figures = {name: round(value, 5) for name, value in job.evaluate(averaged.eval()).items()}
        line = {
            course.unit: interval + 1,
            **means,
            "learning_rate": float(f"{job.rate((interval + 1) * course.steps - 1):.5g}"),
            **figures,
            "seconds": round(time.perf_counter() - started, 1),
        }
        _save(out, job, averaged, scaler, line)
        if interval + 1 == stop_after:
            break
    return averaged.eval()


def descend(
    job: Job, module: nn.Module, batch: Batch, step: int, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """One step of descent; returns the batch's losses, not yet waited for."""
    for group in job.optimizer.param_groups:
        group["lr"] = job.rate(step)
    losses = job.losses(module, batch, step)
    job.optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses["loss"]).backward()  # type: ignore[no-untyped-call]
    if job.course.clip:
        scaler.unscale_(job.optimizer)
        _clip(job)
    scaler.step(job.optimizer)
    scaler.update()
    return {name: value.detach() for name, value in losses.items()}


def update_average(
    average: Mapping[str, Tensor], state: Mapping[str, Tensor], decay: float, step: int
) -> None:
    """Move the averaged weights and moments towards ``state``; the first steps count for more."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, tensor in state.items():
            if tensor.is_floating_point():
                average[name].lerp_(tensor, 1 - decay)
            else:
                average[name].copy_(tensor)


def read_history(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics of a run."""
    return [json.loads(line) for line in (out / HISTORY).read_text(encoding="utf-8").splitlines()]


def _means(job: Job, seen: Mapping[str, list[Tensor]], interval: int) -> dict[str, float]:
    """The mean of each loss over the interval and all processes.

    Raises:
        TrainingError: one is not finite. The checkpoint is then still that of the interval before.
    """
    means: dict[str, float] = {}
    for name, values in seen.items():
        local = torch.tensor(np.mean([value.item() for value in values]), dtype=torch.float64)
        means[name] = round(distributed.mean(local.to(job.world.device), job.world).item(), 5)
        if not np.isfinite(means[name]):
            raise TrainingError(
                f"{name} is no number any more in {job.course.unit} {interval + 1}; the checkpoint before it stays. "
                "A lower learning_rate or float32 precision may help; then choose another --out"
            )
    return means


def _clip(job: Job) -> None:
    """Shorten the gradient to ``clip``, by the same factor on all processes."""
    own = {id(parameter) for parameter in job.sharded}
    parts: dict[bool, list[Tensor]] = {False: [], True: []}
    for parameter in job.module.parameters():
        if parameter.grad is not None:
            parts[id(parameter) in own].append(parameter.grad)
    square = torch.nn.utils.get_total_norm(parts[False]).square()
    if job.sharded:
        rows = torch.nn.utils.get_total_norm(parts[True]).square().to(job.world.device)
        square = square + distributed.total(rows, job.world)
    torch.nn.utils.clip_grads_with_norm_(job.module.parameters(), job.course.clip, square.sqrt())


def _save(
    out: Path, job: Job, averaged: nn.Module, scaler: torch.amp.GradScaler, line: Mapping[str, object]
) -> None:
    """Append a line of metrics and replace the checkpoint; the first process does, the others hand in their rows."""
    world = job.world
    sharded_names, sharded_numbers = _sharded(job)

    def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: distributed.gather_rows(tensor, world) if name in sharded_names else tensor
            for name, tensor in tensors.items()
        }

    tensors = checkpoint.prefixed("model", whole(job.module.state_dict()))
    if job.course.ema:
        tensors |= checkpoint.prefixed("average", whole(averaged.state_dict()))
    state = {
        key: distributed.gather_rows(value, world)
        if value.ndim and int(key.partition("/")[0]) in sharded_numbers
        else value
        for key, value in checkpoint.optimizer_tensors(job.optimizer).items()
    }
    tensors |= checkpoint.prefixed("optimizer", state)
    if world.first:
        with (out / HISTORY).open("a", encoding="utf-8") as history:
            history.write(json.dumps(line) + "\n")
        meta = {**job.identity, job.course.unit: line[job.course.unit], "scaler": scaler.state_dict()}
        checkpoint.save(out / CHECKPOINT, tensors, meta)
    distributed.wait(world)


def _resume(path: Path, job: Job, averaged: nn.Module, scaler: torch.amp.GradScaler) -> int:
    """Put a checkpoint's state into the job; returns its intervals, 0 if there is none."""
    if not path.is_file():
        return 0
    world = job.world
    tensors, meta = checkpoint.load(path)
    for key, value in job.identity.items():
        # Where the files lie and how many threads run may change between sessions; what is computed may not.
        if _relevant(meta.get(key), job.elsewhere) != _relevant(value, job.elsewhere):
            raise checkpoint.CheckpointError(
                f"{path} was made with another {key.replace('_', ' ')}; choose another --out or delete it"
            )
    sharded_names, sharded_numbers = _sharded(job)
    for section, module in (("model", job.module), ("average", averaged)):
        like = module.state_dict()
        if section == "model" or job.course.ema:
            state = checkpoint.section(section, tensors)
            module.load_state_dict(
                {
                    name: distributed.own_rows(tensor, like[name], world) if name in sharded_names else tensor
                    for name, tensor in state.items()
                }
            )
    parameters = [each for group in job.optimizer.param_groups for each in group["params"]]
    checkpoint.load_optimizer(
        job.optimizer,
        {
            key: distributed.own_rows(value, parameters[int(key.partition("/")[0])], world)
            if value.ndim and int(key.partition("/")[0]) in sharded_numbers
            else value
            for key, value in checkpoint.section("optimizer", tensors).items()
        },
    )
    if meta.get("scaler"):
        scaler.load_state_dict(meta["scaler"])
    return int(meta[job.course.unit])


def _sharded(job: Job) -> tuple[set[str], set[int]]:
    """Names of the sharded parameters in the module, and their numbers in the optimiser."""
    own = {id(parameter) for parameter in job.sharded}
    names = {name for name, parameter in job.module.named_parameters() if id(parameter) in own}
    ordered = (each for group in job.optimizer.param_groups for each in group["params"])
    return names, {number for number, parameter in enumerate(ordered) if id(parameter) in own}


def _relevant(value: object, elsewhere: frozenset[str]) -> str:
    """A comparable text of a checkpoint's field, without the settings that do not change the result."""
    if isinstance(value, dict):
        value = {key: entry for key, entry in value.items() if key not in elsewhere}
    return json.dumps(value, sort_keys=True)


def _trim_history(path: Path, intervals: int) -> None:
    """Keep the first ``intervals`` lines: a run cut off between history and checkpoint repeats an interval."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:intervals] if path.is_file() else []
    path.write_text("".join(lines), encoding="utf-8")
