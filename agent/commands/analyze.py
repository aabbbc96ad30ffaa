"""``cabinsense analyze``: what still images show."""

import time
from pathlib import Path
from typing import Annotated

import typer

from agent.commands.config import FileOption


def analyze(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Image files; of a folder, the images right inside it are taken, sorted by name.",
            show_default=False,
        ),
    ],
    embedding: Annotated[
        bool,
        typer.Option("--embedding", help="Print embeddings, too. They are biometric data: keep them safe."),
    ] = False,
    config: FileOption = None,
) -> None:
    """Print one JSON object a line for each image: its faces, largest first, at most detector.max_faces of them.

    An image is turned upright first if it says how it was taken (EXIF). An
    unreadable file gives an object with path and error, and exit status 1
    once all others are done.
    """
    import cv2
    import msgspec

    from agent import analysis, networks
    from agent.config import load
    from agent.perception.chain import FaceReader
    from engines.pack import verify

    cv2.setNumThreads(1)  # its part is small, and a second pool of threads would fight the engines' own
    settings = load(config)
    loaded = networks.load(verify(settings.pack_path), settings)
    reader = FaceReader(loaded, settings, time.perf_counter)
    failed = False
    for report in analysis.analyze(reader, paths, embedding=embedding):
        failed |= isinstance(report, analysis.Failure)
        typer.echo(msgspec.json.encode(report))  # echo flushes: who reads the lines gets each at once
    loaded.close()
    if failed:
        raise typer.Exit(1)
