"""``cabinsense models build``: turn the pack into TensorRT plans."""

import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Backend(str, Enum):
    """Who builds."""

    tensorrt = "tensorrt"
    rtx = "tensorrt-rtx"


class Precision(str, Enum):
    """What the products of a plan run in."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def build(
    backend: Annotated[Backend, typer.Option(help="TensorRT, on the Orin itself, or TensorRT for RTX.")],
    precision: Annotated[
        Precision, typer.Option(help="int8 needs what `cabinsense calibrate int8` makes.")
    ] = Precision.fp16,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder of the pack; without it the one that the configuration names."),
    ] = None,
    compute_capability: Annotated[
        int | None,
        typer.Option(
            help="GPU to build for, such as 86, with tensorrt-rtx; without it the one that is here.",
            min=10,
            max=999,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if a good plan is there.")] = False,
    config: FileOption = None,
) -> None:
    """Build TensorRT plans of both models. Good plans are kept; a bad one is replaced when the new one is whole.

    A new plan has to pass the gate (`cabinsense calibrate gate`) before the agent uses it.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from agent.config import load
    from engines import gates
    from engines.build import Model, choose_target, plan_file
    from engines.pack import verify
    from engines.probe import probe_cuda
    from engines.tensorrt_engine import ensure_running

    settings = load(config)
    pack = verify(source or settings.pack_path)
    capability = (
        None if compute_capability is None else f"{compute_capability // 10}.{compute_capability % 10}"
    )
    target = choose_target(backend.value, capability, probe_cuda().device)
    models = (
        Model(pack.detector, {"H": settings.detector.height, "W": settings.detector.width}),
        Model(pack.face, {"N": 1}),
    )
    report = gates.report_file(pack.path, backend.value, precision.value)
    console = Console(soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    for model in models:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            plan, built = ensure_running(
                model, target, precision.value, _Watch(bars, model.path.name), force=force
            )
        if built:
            report.unlink(missing_ok=True)  # it speaks of another plan
        file = plan_file(model.path, backend.value, precision.value)
        console.print(
            f"{file}: {'built' if built else 'good already'}, {len(plan.payload) / 1e6:.1f} MB", markup=False
        )
        if not plan.key.refittable:
            console.print(
                "  its norm parameters are fixed, so it cannot be adapted: it was built without a GPU",
                markup=False,
            )


class _Watch:
    """Shows each phase of a build as a bar."""

    def __init__(self, bars: "Bars", name: str) -> None:
        self._bars = bars
        self._name = name
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: int, steps: int) -> None:
        with self._lock:
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(f"{self._name}: {phase.lower()}", total=steps)
            self._bars.update(self._tasks[phase], completed=done)
