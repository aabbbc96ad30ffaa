"""A task from its command line to the end: settings, plan or training, pictures, export; told on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from trainer.common import distributed, loop, plan, plots
from trainer.common.job import Advance, J, S, Task
from trainer.common.settings import RunSettings, convert, read_table


def run(
    task: Task[S, J], config: Path | None, overrides: list[str], out: Path, export: Path | None, dry_run: bool
) -> None:
    """Train in the folder ``out``, or go on there, and, if asked, export; or only say what that would be.

    Raises:
        UserError: what the user can put right.
    """
    table = read_table(config, overrides)
    chosen = task.of(table)
    settings = convert(chosen.settings, table)
    device = settings.device if isinstance(settings, RunSettings) else "cpu"
    with distributed.joined(device) as world, bars(world.first) as (advance, console):
        job = chosen.build(settings, world, advance)
        if dry_run:
            rows = plan.make(job)
            if world.first:
                console.print(_table(rows))
            return
        module = loop.train(job, out, advance)
        if world.first:
            plots.curves(loop.read_history(out), job.course.unit, job.score, out / "loss.png")
            chosen.finish(
                job,
                module,
                out,
                export,
                advance,
                lambda line: console.print(line, markup=False, soft_wrap=True),
            )


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table(show_header=False, title="The plan; nothing has been trained", title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    return table


@contextmanager
def bars(shown: bool) -> Iterator[tuple[Advance, Console]]:
    """A progress bar for each thing that is being done, with the time left, on stderr; and the console of results."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not shown, redirect_stdout=False) as progress:

        def advance(what: str, count: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.advance(tasks[what], count)

        yield advance, Console()
