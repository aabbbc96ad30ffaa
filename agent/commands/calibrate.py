"""``cabinsense calibrate``: choose the threshold, make eight-bit networks, and let engines pass the gate."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent.commands.calibrate_conditions import conditions
from agent.commands.calibrate_threshold import threshold
from agent.commands.config import FileOption
from agent.commands.measuring import PackOption, bars, show
from engines.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from agent.config import Config
    from calibration.gate import GateReport
    from calibration.procedure import Bench
    from calibration.sensitivity import Sensitivity

app = typer.Typer(
    no_args_is_help=True,
    help="Choose the threshold, make eight-bit networks, and let engines pass the gate before they go live.",
)

DataOption = Annotated[
    Path,
    typer.Option(
        help="Folder of photographs, one of faces for each person where people are known; or fer2013.npz."
    ),
]
PairsOption = Annotated[
    Path | None, typer.Option(help="List of pairs of the photographs, as LFW writes it (pairs.txt).")
]
ExpressionsOption = Annotated[
    Path | None, typer.Option(help="fer2013.npz: measure the loss in expressions on its private test.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")]
MethodOption = Annotated[
    Literal["entropy", "percentile", "minmax"],
    typer.Option(
        help="How the range of an activation is chosen: least divergence, nearly all, or all of it."
    ),
]
CountOption = Annotated[int, typer.Option(min=16, max=5000, help="Faces to calibrate on.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Decides between faces that balance equally well.")]


class RefusedError(UserError):
    """The gate has refused an engine; the message says why and what stays."""


app.command()(threshold)
app.command()(conditions)


@app.command("int8")
def int8(
    data: DataOption,
    pairs: PairsOption = None,
    expressions: ExpressionsOption = None,
    method: MethodOption = "entropy",
    count: CountOption = 200,
    seed: SeedOption = 0,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="If the gate refuses, keep the fewest layers in float with which it passes."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for int8/ and gates/; else that of the pack, where they take effect."),
    ] = None,
    as_json: JsonOption = False,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Make the eight-bit networks of a pack, and put them in place if they pass the gate.

    They are calibrated on faces chosen to be balanced over brightness,
    sharpness, pose and size, and judged by faces of other people. Only what
    passes on ONNX Runtime is put in place; every other backend has a gate of
    its own (`cabinsense calibrate gate`).
    """
    from calibration import representative, sensitivity
    from calibration.procedure import write_json

    with _bench(data, pairs, expressions, pack, config) as bench:
        folder = out or bench.pack.path
        chosen = bench.choose(count, seed)
        quantised = bench.quantise(chosen, method)
        judge = bench.judge()
        report = bench.try_out(quantised, judge)
        layers = None
        if auto and not report.passed:
            layers = bench.rank(quantised, chosen)
            quantised = bench.keep_fewest(quantised, layers, judge, report)
            report = bench.try_out(quantised, judge)
        file = bench.write(quantised, chosen, method, report, folder)
    ranking = (folder / "int8" if report.passed else file.parent) / "layers.json"
    if layers is not None:
        write_json(ranking, layers)
    if _can_plot():
        _plot_gate(report, file)
        if report.passed:
            representative.plot(chosen.record, folder / "int8" / "calibration.png")
        if layers is not None:
            sensitivity.plot(layers, ranking.with_suffix(".png"))
    for role, names in quantised.kept.items():
        if names:
            typer.echo(f"{role}: {len(names)} layers stay in float: {', '.join(names)}", err=True)
    _finish(
        report,
        file,
        as_json,
        "Nothing was put in place"
        + ("" if auto else "; --auto keeps the fewest layers in float with which it passes"),
    )


@app.command()
def gate(
    data: DataOption,
    backend: Annotated[
        Literal["onnxruntime", "openvino", "litert", "tensorrt"] | None,
        typer.Option(help="What runs the models; else as the configuration says."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option(help="What they compute in; else as the configuration says."),
    ] = None,
    pairs: PairsOption = None,
    expressions: ExpressionsOption = None,
    as_json: JsonOption = False,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Compare an engine with FP32 on ONNX Runtime, and write down whether it may go live.

    The daemon starts on an engine only with a report that it has passed,
    made with the same models, the same version of the backend, on the same
    kind of machine.
    """
    from calibration.procedure import write_json
    from engines.engine import EngineError
    from engines.gates import report_file

    with _bench(data, pairs, expressions, pack, config, backend, precision) as bench:
        report = bench.examine(bench.judge())
        file = report_file(bench.pack.path, report.backend, report.precision)
    try:
        write_json(file, report)
    except OSError as error:
        raise EngineError(f"{file}: {error.strerror}; make the pack's folder writable") from error
    if _can_plot():
        _plot_gate(report, file)
    _finish(report, file, as_json, "The engine does not go live")


@app.command()
def sensitivity(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="File for the ranking, .json; a picture is put beside it.")],
    method: MethodOption = "entropy",
    count: CountOption = 200,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Rank the layers by the harm that eight bits do to each alone.

    A harm of 1 uses up the gate's limit. The first of the list are worth
    keeping in FP16; `int8 --auto` does so where the gate demands it.
    """
    import msgspec

    from calibration import sensitivity as ranking
    from calibration.procedure import write_json
    from engines.engine import EngineError

    with _bench(data, None, None, pack, config) as bench:
        chosen = bench.choose(count, seed)
        found = bench.rank(bench.quantise(chosen, method), chosen)
    try:
        write_json(out, found)
    except OSError as error:
        raise EngineError(f"{out}: {error.strerror}; name another file with --out") from error
    if _can_plot():
        ranking.plot(found, out.with_suffix(".png"))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        show(_layers_table(found))


@contextmanager
def _bench(
    data: Path,
    pairs: Path | None,
    expressions: Path | None,
    pack: Path | None,
    config: Path | None,
    backend: str | None = None,
    precision: str | None = None,
) -> "Iterator[Bench]":
    """The pack and the data, ready; progress is shown on stderr meanwhile."""
    import cv2
    import msgspec

    from agent.config import load
    from calibration.procedure import Bench, Sources
    from engines.pack import verify

    cv2.setNumThreads(1)  # its part is small, and a second pool of threads would fight the engines' own
    settings: Config = load(config)
    wanted = {"backend": backend, "precision": precision}
    engine = msgspec.structs.replace(settings.engine, **{k: v for k, v in wanted.items() if v is not None})
    settings = msgspec.structs.replace(settings, engine=engine)
    with bars() as progress:
        bench = Bench(
            verify(pack or settings.pack_path), settings, Sources(data, pairs, expressions), progress
        )
        try:
            yield bench
        finally:
            bench.close()


def _can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _plot_gate(report: "GateReport", file: Path) -> None:
    from calibration.gate import plot

    plot(report, file.with_suffix(".png"))


def _finish(report: "GateReport", file: Path, as_json: bool, otherwise: str) -> None:
    import msgspec

    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(_gate_table(report))
        typer.echo(f"report: {file}")
    if not report.passed:
        raise RefusedError(
            f"the gate refuses {report.backend} {report.precision}: {'; '.join(report.reasons)}. {otherwise}"
        )


def _gate_table(report: "GateReport") -> "Table":
    from rich.table import Table

    from calibration.gate import checks

    verdict = "passed" if report.passed else "refused"
    title = f"{report.backend} {report.precision}: {verdict}, on {report.face.chips} faces"
    table = Table("what", "found", "limit", title=title, title_justify="left")
    for row in checks(report):
        style = None if row.good else "red"
        table.add_row(row.what, row.shown, row.shown_limit, style=style)
    return table


def _layers_table(found: "Sensitivity") -> "Table":
    from rich.table import Table

    table = Table(
        "network", "layer", "harm (% of the limit)", title="The most harmful layers", title_justify="left"
    )
    for network, layers in (("face", found.face), ("detector", found.detector)):
        for layer in layers[:10]:
            table.add_row(network, layer.name, f"{100 * layer.harm:.2f}")
        table.add_section()
    return table
