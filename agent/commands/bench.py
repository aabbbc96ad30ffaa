"""``cabinsense bench``: how long the chain takes for each frame, and matching for each look."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import blas
from agent.commands.config import FileOption
from agent.words import counted
from engines.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from agent.adaptation.benchmark import AdaptationReport
    from agent.gallery.benchmark import GalleryReport, Timing

_WARM_UP = (
    20  # frames before the figures begin: the first runs of an engine allocate and choose their kernels
)


class Tier(str, Enum):
    """The tiers of adaptation, for the command line."""

    STATISTICS = "statistics"
    GRADIENT = "gradient"


class MemoryTooSmallError(UserError):
    """There is no memory for what was asked; the message says what helps."""


app = typer.Typer(invoke_without_command=True)


@app.callback()
def bench(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Option(help="Video, folder, device or address; else the sample clip.", show_default=False),
    ] = None,
    frames: Annotated[
        int, typer.Option(help="Frames to measure; a file starts again at its end.", min=1)
    ] = 300,
    adaptation: Annotated[
        Tier | None,
        typer.Option(
            help="Instead, run the daemon at the source's own rate, with adaptation off and at this tier in turn.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="With --adaptation: times that each side has its turn.", min=1, max=100)
    ] = 6,
    config: FileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Run the chain on a source as fast as it goes.

    Frames are read before their time starts to count, as the camera thread does while the chain runs. `overhead` is
    the time of the frames over the time spent inside the engines.
    """
    if context.invoked_subcommand is not None:
        return
    blas.use_one_thread()
    import msgspec
    from rich.console import Console

    from agent.benchmark import measure
    from agent.config import load
    from agent.samples import clip

    settings = load(config)
    if adaptation is not None:
        from agent.adaptation.benchmark import compare
        from engines.torch_extra import check_torch

        if adaptation is Tier.GRADIENT:
            check_torch("--adaptation gradient", "measure --adaptation statistics")
        _tell_comparison(
            compare(settings, adaptation.value, source or str(clip()), frames, rounds, Console(stderr=True)),
            as_json=as_json,
        )
        return
    report = measure(settings, source or str(clip()), frames, _WARM_UP, Console(stderr=True))
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    from agent.commands.display import times_table

    Console().print(times_table({**report.stages, "frame": report.frame_ms}))
    typer.echo(
        f"{counted(report.frames, 'frame')}, {counted(report.faces, 'face')}, {report.fps:.1f} frames a second, "
        f"overhead {report.overhead:.3f}"
    )
    if report.budget_ms:
        typer.echo(
            f"budget {report.budget_ms:g} ms: {report.complete:.2%} of the frames complete, "
            f"{report.missed} missed their deadline"
        )


def _tell_comparison(report: "AdaptationReport", *, as_json: bool) -> None:
    import msgspec
    from rich.console import Console
    from rich.table import Table

    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    table = Table("adaptation", "frames", "p50, ms", "p99, ms", "dropped")
    for name, side in (("off", report.off), (report.tier, report.on)):
        table.add_row(name, str(side.frames), f"{side.p50:.2f}", f"{side.p99:.2f}", str(side.dropped))
    Console().print(table)
    ratios = sorted(report.rounds)
    decisions = ", ".join(f"{count} {reason}" for reason, count in report.decisions.items()) or "none"
    typer.echo(
        f"p99 × {report.on.p99 / report.off.p99:.3f}; round by round {ratios[0]:.3f} to {ratios[-1]:.3f}, median "
        f"{ratios[len(ratios) // 2]:.3f}\ndecisions: {decisions}\nload of the machine {report.load[0]:g}, then "
        f"{report.load[1]:g}"
    )
    if report.swaps:
        middle, most = report.swap_ms
        typer.echo(f"{report.swaps} changes of engines, {middle:.3f} ms each, {most:.3f} at most")


@app.command()
def gallery(
    up_to: Annotated[int, typer.Option(help="Templates in the largest gallery.", min=10)] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="Measurements behind each figure.", min=3, max=1000)] = 31,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: time against size.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Find a person among 10 to 1,000,000, made up, in one thread.

    Beside the times of a look stand the bare matrix product and the time it
    takes to read all templates once, which is the limit for any search that
    looks at them as they are. What is given is the median, the quartiles in
    brackets; the ratios are those of measurements side by side.
    """
    blas.use_one_thread()
    import msgspec
    import psutil
    from rich.console import Console
    from rich.progress import track

    from agent.commands.measuring import check_plot
    from agent.gallery import benchmark

    check_plot(plot)
    wanted = [size for size in benchmark.SIZES if size <= up_to]
    sizes = benchmark.fitting(wanted, psutil.virtual_memory().available)
    if not sizes:
        raise MemoryTooSmallError("there is not even memory for a small gallery; end other programs")
    rows = track(
        benchmark.measure(sizes, rounds),
        "measuring",
        len(sizes),
        console=Console(stderr=True),
        transient=True,
    )
    left_out = tuple(size for size in wanted if size not in sizes)
    report = benchmark.GalleryReport(benchmark.DIM, rounds, tuple(rows), left_out)
    if plot is not None:
        from calibration import plots

        plots.matching(report, plot)
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    Console().print(_gallery_table(report))
    for size in left_out:
        typer.echo(
            f"{size:,} templates are left out: they need {benchmark.needed(size) / 1e6:,.0f} MB of memory"
        )


def _gallery_table(report: "GalleryReport") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        "templates", "what", title=f"one look among templates of {report.dim} numbers", box=box.SIMPLE_HEAD
    )
    for heading in ("µs, quartiles", "× bare", "× read"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        table.add_row(f"{row.templates:,}", "read once", _spread(row.read))
        table.add_row("", "bare product", _spread(row.product))
        for name, timing in row.backends.items():
            table.add_row(
                "",
                name + (f", {timing.fallbacks:.0%} fell back" if timing.fallbacks else ""),
                _spread(timing.match),
                _spread(timing.over_product),
                _spread(timing.over_read),
            )
        table.add_section()
    return table


def _spread(timing: "Timing") -> str:
    """Median and quartiles, with as many digits as mean something."""
    digits = 2 if timing.high < 10 else 1 if timing.high < 1000 else 0
    low, median, high = (f"{value:,.{digits}f}" for value in (timing.low, timing.median, timing.high))
    return f"{median} [dim]\\[{low} {high}][/]"
