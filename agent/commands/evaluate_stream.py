"""``cabinsense evaluate stream``: adaptation measured on streams of faces, against the frozen source and others."""

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent.commands.config import FileOption
from agent.commands.measuring import JsonOption, PackOption, bars, show
from engines.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from agent.config import Config
    from calibration.baselines.method import Source
    from calibration.material import Progress
    from calibration.streams.cells import Bench, Cell
    from calibration.streams.contenders import Make
    from calibration.streams.orders import Order
    from calibration.streams.report import Report
    from calibration.streams.tables import Grid
    from engines.pack import Pack

Task = Literal["emotion", "identity"]
Split = Literal["tune", "report"]

_RESULTS = "cells.jsonl"


class StreamError(UserError):
    """Streams cannot be measured as asked for; the message says why."""


def stream(
    data: Annotated[
        Path, typer.Option(help="FER2013 as an .npz file, or for identity LFW's folder with its pairs.txt.")
    ],
    task: Annotated[Task, typer.Option(help="What is asked of each face.")] = "emotion",
    split: Annotated[
        Split,
        typer.Option(
            help="FER2013's private test or LFW's folds 6 to 10; tune: its public test, folds 1 to 5."
        ),
    ] = "report",
    shifts: Annotated[
        list[str] | None,
        typer.Option(
            "--shift", help="How faces are spoiled; several times for more. Else all that suit an order."
        ),
    ] = None,
    severity: Annotated[int, typer.Option(min=1, max=5, help="How badly.")] = 3,
    orders: Annotated[
        list[str] | None,
        typer.Option("--order", help="Order of the faces; several times for more. Else all."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="So many times, each in another order and other noise.")
    ] = 3,
    methods: Annotated[
        str, typer.Option(help="Which to compare, with commas between; the frozen source always is.")
    ] = "",
    without: Annotated[
        str,
        typer.Option(
            metavar="CONDITION",
            help="Leave a condition out of the bank that our own method goes by: what does one do that is unknown?",
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option(min=0, help="Faces of a stream, evenly drawn; 0: all that the split has.")
    ] = 600,
    threads: Annotated[int, typer.Option(min=1, help="Of each run of a network.")] = 1,
    batchwise: Annotated[
        bool,
        typer.Option(help="Let a block count for its own answers, as papers do; not for figures of ours."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep each result there, go on from those that are there, write pictures and a table.",
        ),
    ] = None,
    as_json: JsonOption = False,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Measure adaptation on streams: each frame is answered before anything is learnt from it.

    Streams are shuffled, sorted into long runs, a ramp of light, tunnels,
    half an hour of one neutral face, and all of these in a row with clean
    faces at the end. Printed is the share of a shift's loss that each method
    wins back, and where it is worse than the frozen source.
    """
    from functools import partial

    import cv2
    import msgspec

    from agent import config as configuration
    from agent.adaptation.tiers import adapter_of_pack
    from calibration.streams import cells
    from calibration.streams import report as figures
    from calibration.streams.contenders import OWN, choose, contenders, stamp
    from calibration.streams.orders import streams
    from calibration.streams.tables import grids
    from engines.pack import verify

    cv2.setNumThreads(1)  # its part is small, and a second pool of threads would fight the networks' own
    named = [name.strip() for name in methods.split(",") if name.strip()]
    if methods and not named:
        raise StreamError(f"--methods {methods!r} names none; leave it out for all")
    names = choose(named, identity=task == "identity")
    if without and OWN not in names:
        raise StreamError(f"--without {without}: it is {OWN} that has a bank; add that to --methods")
    _check_report(report)
    wanted = streams(_orders(task, orders or []), _shifts(shifts or []), severity, seeds)
    settings = configuration.load(config)
    models = verify(pack or settings.pack_path)
    manifest = models.manifest
    run = cells.Run(task, split, limit, manifest.digest, batchwise)
    file = report / _RESULTS if report else None
    found = _found(file) if file else []
    with bars() as show_done:
        take = partial(_expressions if task == "emotion" else _people, data, split, limit, models, settings)
        source, bench = take(threads, batchwise, show_done)
        make = _without(without, models, settings) if without else partial(adapter_of_pack, models.face)
        variant = f"{stamp(models.path)}{f' without {without}' if without else ''}"
        labels = len(manifest.face.labels)
        chosen = contenders(names, source, labels, settings.adaptation, variant, make)
        for cell in cells.measure(run, wanted, chosen, bench, tuple(found), show_done):
            found.append(cell)
            if file:
                cells.append(file, cell)
    # Of what the folder holds, only what was asked for is told.
    asked = {(stream, name, contender.variant) for stream in wanted for name, contender in chosen.items()}
    told = [cell for cell in found if cell.run == run and (cell.stream, cell.method, cell.variant) in asked]
    result = figures.report(run, told)
    tables = grids(result)
    if report:
        try:
            _write(report, result, told, tables)
        except OSError as error:
            raise StreamError(
                f"{error.filename or report}: {error.strerror}; the results are kept"
            ) from error
    if as_json:
        typer.echo(msgspec.json.encode(result))
        return
    for table in tables:
        show(_rich(table))


def _without(condition: str, models: "Pack", settings: "Config") -> "Make":
    """Makes our own method's adapter with a bank that lacks a condition."""
    from agent.adaptation.tiers import adapter, means
    from calibration.streams.own import untaught

    model, bank = means(models, settings.adaptation)
    left = untaught(bank, condition)
    return lambda wanted, seed: adapter(model, left, wanted, seed)


def _orders(task: Task, named: list[str]) -> "list[Order]":
    from calibration.streams.orders import ORDERS

    possible = [order for order in ORDERS if task == "emotion" or order != "neutral"]
    unknown = [order for order in named if order not in possible]
    if unknown:
        raise StreamError(f"--order {unknown[0]}: for {task} there are {', '.join(possible)}")
    return [order for order in possible if order in named or not named]


def _shifts(named: list[str]) -> list[str]:
    from calibration.corruptions import KINDS
    from calibration.streams.orders import CLEAN

    unknown = [shift for shift in named if shift not in (CLEAN, *KINDS)]
    if unknown:
        raise StreamError(f"--shift {unknown[0]}: there are {', '.join((CLEAN, *KINDS))}")
    return list(dict.fromkeys(named))


def _check_report(folder: Path | None) -> None:
    """See that the folder can be written and pictures can be made, before the long work starts."""
    if folder is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise StreamError("--report needs matplotlib; install it with `pip install 'cabinsense[evaluate]'`")
    try:
        folder.mkdir(exist_ok=True)
        with (folder / _RESULTS).open("ab"):
            pass
    except OSError as error:
        raise StreamError(f"--report {error.filename}: {error.strerror}; name another folder") from error


def _found(file: Path) -> "list[Cell]":
    """The results of earlier runs; says on stderr where there are lines that are none."""
    from calibration.streams import cells

    found, others = cells.load(file)
    if others:
        typer.echo(
            f"{file}: {others} of its lines are no results of this version, or were cut off; they are passed over",
            err=True,
        )
    return found


def _expressions(
    data: Path,
    split: Split,
    limit: int,
    models: "Pack",
    _settings: "Config",
    threads: int,
    batchwise: bool,
    _show_done: "Progress",
) -> "tuple[Source, Bench]":
    from calibration.streams.material import expressions
    from engines.model import read_model

    return expressions(data, split, limit, read_model(models.face), models.manifest, threads, batchwise)


def _people(
    data: Path,
    split: Split,
    limit: int,
    models: "Pack",
    settings: "Config",
    threads: int,
    batchwise: bool,
    show_done: "Progress",
) -> "tuple[Source, Bench]":
    from agent import networks
    from agent.perception.chain import FaceReader
    from calibration.streams.material import people
    from calibration.streams.report import FAR
    from engines.model import read_model

    loaded = networks.load(models, settings)
    reader = FaceReader(loaded, settings, time.perf_counter)
    found = people(data, split, limit, read_model(models.face), reader, threads, batchwise, show_done)
    loaded.close()
    _, bench = found
    pairs, strangers = len(bench.faces.pairs), int((bench.truth == 0).sum())
    without = f"{bench.faces.undetected} more without a face are left out"
    typer.echo(f"{pairs} pairs, {strangers} of them of strangers; {without}", err=True)
    if strangers < 1 / FAR:
        typer.echo(f"so few pairs of strangers do not show a FAR of {FAR:.0%}; raise --limit", err=True)
    return found


def _write(folder: Path, result: "Report", told: "list[Cell]", tables: "list[Grid]") -> None:
    """The report as JSON, as tables in Markdown, and as pictures."""
    import msgspec

    from calibration.streams import plots

    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    text = "\n".join(table.markdown() for table in tables)
    (folder / "report.md").write_text(text, "utf-8")
    plots.over_time(told, folder)
    plots.won_back(result, folder / "won-back.png")


def _rich(grid: "Grid") -> "Table":
    from rich.table import Table

    table = Table(*grid.headings, title=grid.title, title_justify="left")
    for row in grid.rows:
        table.add_row(*row)
    return table
