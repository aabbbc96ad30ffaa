"""``cabinsense bench``: how long the chain takes for each frame."""

from typing import Annotated

import typer

from agent.commands.config import FileOption

_WARM_UP = (
    20  # frames before the figures begin: the first runs of an engine allocate and choose their kernels
)


def bench(
    source: Annotated[
        str | None,
        typer.Option(help="Video, folder, device or address; else the sample clip.", show_default=False),
    ] = None,
    frames: Annotated[
        int, typer.Option(help="Frames to measure; a file starts again at its end.", min=1)
    ] = 300,
    config: FileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Run the chain on a source as fast as it goes.

    Frames are read before their time starts to count, as the camera thread does while the chain runs. `overhead` is
    the time of the frames over the time spent inside the engines.
    """
    import msgspec
    from rich.console import Console

    from agent.benchmark import measure
    from agent.config import load
    from agent.samples import clip

    settings = load(config)
    report = measure(settings, source or str(clip()), frames, _WARM_UP, Console(stderr=True))
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    from agent.commands.display import times_table

    Console().print(times_table({**report.stages, "frame": report.frame_ms}))
    typer.echo(
        f"{report.frames} frames, {report.faces} faces, {report.fps:.1f} frames a second, "
        f"overhead {report.overhead:.3f}"
    )
    if report.budget_ms:
        typer.echo(
            f"budget {report.budget_ms:g} ms: {report.complete:.2%} of the frames complete, "
            f"{report.missed} missed their deadline"
        )
