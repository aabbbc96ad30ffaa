"""What the commands that measure have in common: options, checks, engines, bars and tables."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from engines.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from agent.config import Config
    from agent.perception.chain import Networks

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
PackOption = Annotated[
    Path | None, typer.Option("--pack", help="Folder of the pack; else the one that the configuration names.")
]


class PlotError(UserError):
    """A picture cannot be made; the message says why."""


def check_plot(plot: Path | None) -> None:
    """See that a picture can be written, before the long work starts."""
    if plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotError("--plot needs matplotlib; install it with `pip install 'cabinsense[evaluate]'`")
    if not plot.parent.is_dir():
        raise PlotError(f"{plot.parent}: no such folder; make it, or name another file with --plot")


def load(pack: Path | None, config: Path | None) -> "tuple[Config, Networks]":
    """The configuration and the engines of the pack."""
    import cv2

    from agent import config as configuration
    from agent import networks
    from engines.pack import verify

    cv2.setNumThreads(1)  # its part is small, and a second pool of threads would fight the engines' own
    settings = configuration.load(config)
    return settings, networks.load(verify(pack or settings.pack_path), settings)


def progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a bar on stderr that shows how many have come."""
    with bars() as show_done:
        show_done(what, 0, total)
        for done, item in enumerate(items, 1):
            show_done(what, done, total)
            yield item


@contextmanager
def bars() -> "Iterator[Callable[[str, int, int], None]]":
    """Bars on stderr; called with what is being done, how much of it is, and how much there is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, TaskID] = {}

        def show_done(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield show_done


def show(table: "Table") -> None:
    """Print a table."""
    from rich.console import Console

    Console().print(table)
