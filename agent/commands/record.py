"""``cabinsense record``: enrol a person, from image files or before the running daemon's camera."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption
from agent.words import counted
from engines.errors import UserError

if TYPE_CHECKING:
    from agent.config import Config
    from agent.control import Record
    from agent.gallery.types import Sample
    from agent.perception.chain import FaceReader

_ANSWER_S = 10.0  # beyond the recording itself: the disk may be slow or in use


class RecordError(UserError):
    """Images cannot be enrolled; the message says which and why, or how many."""


def record(
    name: Annotated[
        str | None, typer.Argument(help="The person's name; before the camera it may be given later.")
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Further files after --image.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", "-i", metavar="FILE...", help="Enrol from these files instead of a camera."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Longest time to look through the camera; else `enrolment.seconds` of the configuration.",
            min=0.5,
            max=60,
        ),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Which of the daemon's cameras to look through; else its first.")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="The person is enrolled already: add samples to those there are.")
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Enrol somebody who looks like another person of the gallery, or add to who does not.",
        ),
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Enrol from the good images even if others cannot be used.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print events of the recording and its end as JSON lines.")
    ] = False,
    config: FileOption = None,
) -> None:
    """Enrol a person: one face alone, well lit, looking towards the camera.

    The running daemon guides the person through a few looks before its camera; without NAME it calls them Driver 1,
    Driver 2 … With --image no daemon is needed.
    """
    from agent.config import load
    from agent.control import Record

    settings = load(config)
    if more and not image:
        raise typer.BadParameter(f"what is {str(more[0])!r}? Name files after --image")
    if image:
        if seconds is not None or camera is not None or as_json:
            raise typer.BadParameter("--image needs no camera: leave out --seconds, --camera and --json")
        if not name:
            raise typer.BadParameter("name the person: cabinsense record NAME --image FILE...")
        files = [*image, *(more or ())]
        _from_images(settings, name, files, add=add, anyway=anyway, skip_bad=skip_bad)
        return
    if skip_bad:
        raise typer.BadParameter("--skip-bad is about images: name some with --image")
    if add and not name:
        raise typer.BadParameter("name the person who gets more samples: cabinsense record NAME --add")
    wanted = Record(
        name=name or "",
        seconds=seconds or settings.enrolment.seconds,
        camera=camera or "",
        add=add,
        anyway=anyway,
        progress=True,
    )
    _from_camera(settings, wanted, as_json=as_json)


def _from_camera(config: "Config", wanted: "Record", *, as_json: bool) -> None:
    """Ask the daemon, and show what it tells the person to do until it is over."""
    import msgspec

    from agent.commands.guide import JsonGuide, LineGuide, ScreenGuide
    from agent.control import ControlError, Recorded, Refused, request

    endpoint = config.control_endpoint
    guide = JsonGuide() if as_json else ScreenGuide() if sys.stderr.isatty() else LineGuide()
    with guide:  # whatever ends this program ends the recording too: the daemon notices that it has gone
        try:
            seconds = (wanted.seconds or 0) + _ANSWER_S
            reply = request(endpoint, wanted, Recorded, seconds, guide.show, config.curve)
        except ControlError as error:
            if as_json:
                typer.echo(msgspec.json.encode(Refused(code=error.code, message=str(error))))
            raise
    if as_json:
        typer.echo(msgspec.json.encode(reply))
        return
    taken = ", ".join(f"{count} {pose}" for pose, count in reply.poses.items() if count)
    typer.echo(
        f"{reply.name} is enrolled: {counted(reply.taken, 'sample')} taken ({taken}), {reply.samples} in the gallery"
    )
    if reply.missing:
        typer.echo(
            f"not seen: {', '.join(reply.missing)}; `cabinsense record '{reply.name}' --add` can add that"
        )
    if not wanted.name:
        typer.echo(f"`cabinsense gallery rename '{reply.name}' NAME` gives them a name")


def _from_images(
    config: "Config", name: str, files: Sequence[Path], *, add: bool, anyway: bool, skip_bad: bool
) -> None:
    """Look at every image, then enrol all or nobody."""
    import cv2

    from agent import networks, upkeep
    from agent.enrolment import Judgement, agreement_floor, conflict
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
        images = counted(len(files), "image")
        raise RecordError(f"{bad} of {images} cannot be used, so {name} was not enrolled{hint}")
    face, threshold = pack.manifest.face, config.identity.threshold
    floor = agreement_floor(face.threshold)
    samples = _of_one_person(name, taken, floor, skip_bad=skip_bad)
    with upkeep.changing(config) as gallery:
        if not anyway:
            refusal = conflict(
                [sample.embedding for sample in samples],
                gallery.snapshot(pack.manifest.digest),
                name if add else None,
                Judgement(face.threshold if threshold is None else threshold, floor),
            )
            if refusal:
                raise RecordError(f"{name} was not enrolled: {refusal.advice}")
        total = gallery.enrol(name, samples, pack.manifest.digest, config.gallery.max_samples, add=add)
    typer.echo(f"{name} is enrolled: {counted(len(samples), 'sample')} taken, {total} in the gallery")


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
