"""The plan of a run (``--dry-run``): what it would train on what, and what that would cost here."""

import time
from collections.abc import Iterable, Sequence

import psutil
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.common.job import Batch, Job, TrainingError
from trainer.common.loop import descend

_SMALL = 4
_TIMED = 3


def make(job: Job) -> list[tuple[str, str]]:
    """The plan, as names and values; takes a few real steps to know the time, which are thrown away with the job.

    Raises:
        TrainingError: the run does not fit into the memory that is free.
    """
    course, device = job.course, job.precision.device
    batch = job.example()
    here = max(len(tensor) for tensor in batch.values())
    small = {name: tensor[:_SMALL] for name, tensor in batch.items()}
    job.module.train()
    flops, saved = _forward_cost(job, small)
    weights = _bytes(job.module.parameters())
    # Weights, their gradients, one or two moments and the average; what the forward pass keeps for the backward one.
    moments = 2 if isinstance(job.optimizer, torch.optim.Adam) else 1
    needed = weights * (2 + moments + bool(course.ema)) + saved * here // min(_SMALL, here)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise TrainingError(
            f"a step needs about {_size(needed)} and {_size(free)} are free on {device}; a smaller batch needs less"
        )
    seconds = _time(job, batch)
    steps = course.intervals * course.steps
    return [
        *job.facts(),
        ("batch", ", ".join(f"{name} {_shape(tensor)}" for name, tensor in batch.items())),
        *((f"parameters, {name}", f"{count:,}") for name, count in _parts(job.module)),
        ("FLOPs a sample, forward", f"{flops / min(_SMALL, here) / 1e6:,.1f} million"),
        ("memory of a step", f"about {_size(needed)}, {_size(free)} free"),
        ("device and precision", f"{device}, {str(job.precision.dtype).removeprefix('torch.')}"),
        ("processes", str(job.world.size)),
        ("steps", f"{steps:,} of {course.samples} samples, a checkpoint every {course.steps}"),
        (
            "time",
            f"{_duration(seconds * steps)} ({1000 * seconds:.0f} ms a step), without reading and evaluations",
        ),
    ]


def _forward_cost(job: Job, batch: Batch) -> tuple[int, int]:
    """FLOPs of a forward pass, and bytes that it keeps for the backward one."""
    kept: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in job.module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = job.losses(job.module, batch, 0)
    del losses
    return counter.get_total_flops(), sum(kept.values())


def _time(job: Job, batch: Batch) -> float:
    """Median seconds of a step, the first left out."""
    scaler = job.precision.scaler()
    taken = []
    for step in range(1 + _TIMED):
        started = time.perf_counter()
        descend(job, job.module, batch, step, scaler)["loss"].item()
        taken.append(time.perf_counter() - started)
    return sorted(taken[1:])[_TIMED // 2]


def _parts(module: nn.Module) -> list[tuple[str, int]]:
    """Parameters of the module's parts, and of all."""
    parts = [(name, sum(p.numel() for p in child.parameters())) for name, child in module.named_children()]
    return [*parts, ("all", sum(p.numel() for p in module.parameters()))]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    units: Sequence[tuple[str, float]] = (("days", 86_400), ("h", 3600), ("min", 60))
    for name, length in units:
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} s"
