"""``cabinsense record``: enrol a person, from image files or before the running daemon's camera."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption
from engines.errors import UserError

if TYPE_CHECKING:
    from agent.config import Config
    from agent.gallery.types import Sample
    from agent.perception.chain import FaceReader

_SECONDS = 5.0
_ANSWER_S = 10.0  # beyond the recording itself: the disk may be slow or in use


class RecordError(UserError):
    """Images cannot be enrolled; the message says which and why, or how many."""


def record(
    name: Annotated[str, typer.Argument(help="The person's name.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Further files after --image.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", "-i", metavar="FILE...", help="Enrol from these files instead of a camera."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help=f"How long to look through the camera; {_SECONDS:g} by default.", min=0.5, max=60),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Which of the daemon's cameras to look through; else its first.")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="The person is enrolled already: add samples to those there are.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Enrol from the good images even if others cannot be used.")
    ] = False,
    config: FileOption = None,
) -> None:
    """Enrol a person: one face alone, well lit, looking towards the camera.

    From image files this needs no daemon. Without --image the running daemon records the person before its camera.
    """
    from agent.config import load

    settings = load(config)
    if more and not image:
        raise typer.BadParameter(f"what is {str(more[0])!r}? Name files after --image")
    if image:
        if seconds is not None or camera is not None:
            raise typer.BadParameter("--image needs no camera: leave out --seconds and --camera")
        _from_images(settings, name, [*image, *(more or ())], add=add, skip_bad=skip_bad)
    elif skip_bad:
        raise typer.BadParameter("--skip-bad is about images: name some with --image")
    else:
        _from_camera(settings, name, seconds or _SECONDS, camera or "", add=add)


def _from_camera(config: "Config", name: str, seconds: float, camera: str, *, add: bool) -> None:
    """Ask the daemon, and show the time until it replies."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from agent.control import Cancel, Done, Record, Recorded, request

    wanted = Record(name=name, seconds=seconds, camera=camera, add=add)
    columns = TextColumn("look towards the camera"), BarColumn(), TimeRemainingColumn()
    with _interrupts(), Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=seconds)
        try:
            reply = request(
                config.control_endpoint,
                wanted,
                Recorded,
                seconds + _ANSWER_S,
                lambda passed: progress.update(bar, completed=passed),
                config.curve,
            )
        except KeyboardInterrupt:  # before the bar is taken down, which fails on a terminal that was closed
            request(config.control_endpoint, Cancel(), Done, _ANSWER_S, curve=config.curve)
            raise
    typer.echo(f"{reply.name} is enrolled: {reply.taken} samples taken, {reply.samples} in the gallery")


@contextmanager
def _interrupts() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does: nobody is recorded unattended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def interrupt(_number: int, _frame: object) -> None:
        for (
            number
        ) in before:  # they often come in pairs, and the second must not stop what the first has begun
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _from_images(config: "Config", name: str, files: Sequence[Path], *, add: bool, skip_bad: bool) -> None:
    """Look at every image, then enrol all or nobody."""
    import cv2

    from agent import networks, upkeep
    from agent.enrolment import agreement_floor
    from agent.perception.chain import FaceReader
    from engines.pack import verify

    cv2.setNumThreads(1)  # its part is small, and a second pool of threads would fight the engines' own
    pack = verify(config.pack_path)
    with upkeep.opened(config) as gallery:
        name = gallery.check_new(name, add=add)
    reader = FaceReader(networks.load(pack, config), config, time.perf_counter)
    taken = [(file, sample) for file in files if (sample := _told(reader, file)) is not None]
    bad = len(files) - len(taken)
    if not taken or (bad and not skip_bad):
        hint = "; --skip-bad enrols from the others" if taken else ""
        raise RecordError(f"{bad} of {len(files)} images cannot be used, so {name} was not enrolled{hint}")
    samples = _of_one_person(name, taken, agreement_floor(pack.manifest.face.threshold), skip_bad=skip_bad)
    with upkeep.changing(config) as gallery:
        total = gallery.enrol(name, samples, pack.manifest.digest, config.gallery.max_samples, add=add)
    typer.echo(f"{name} is enrolled: {len(samples)} samples taken, {total} in the gallery")


def _of_one_person(
    name: str, taken: "Sequence[tuple[Path, Sample]]", floor: float, *, skip_bad: bool
) -> "list[Sample]":
    """The samples, less those of somebody else where ``skip_bad`` allows it and it is clear which they are.

    Raises:
        PhotographError: it is not clear.
        RecordError: ``skip_bad`` does not allow it.
    """
    from agent.photographs import listed, others

    odd = others(name, taken, floor)
    if odd and not skip_bad:
        raise RecordError(
            f"{listed(taken, odd)}: not the same person as on the other images, so {name} was not enrolled; "
            "--skip-bad enrols from the others"
        )
    if odd:
        typer.echo(f"{listed(taken, odd)}: left out, not the same person as on the other images", err=True)
    return [sample for index, (_, sample) in enumerate(taken) if index not in odd]


def _told(reader: "FaceReader", file: Path) -> "Sample | None":
    """The sample that an image gives, if any, after saying what came of the image."""
    from agent.photographs import sample_of

    try:
        sample = sample_of(reader, file)
    except UserError as error:
        typer.echo(error, err=True)
        return None
    typer.echo(f"{os.fsencode(file).decode('utf-8', 'replace')}: taken")
    return sample
