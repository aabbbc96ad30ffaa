"""``cabinsense gallery re-enrol``: samples for the running pack, from the photographs that the old ones came from."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from agent.commands.config import FileOption
from agent.words import counted
from engines.errors import UserError

if TYPE_CHECKING:
    from agent.config import Config
    from agent.gallery.store import Gallery
    from agent.gallery.types import Sample
    from agent.perception.chain import FaceReader
    from engines.pack import Pack

T = TypeVar("T")


class RenewError(UserError):
    """Somebody could not be enrolled anew; the message says who, why, and what helps."""


def renew(
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Take the photographs in FOLDER/NAME/ instead of those remembered."
        ),
    ] = None,
    config: FileOption = None,
) -> None:
    """Make the samples that another pack made anew, of each person all or none.

    A sample remembers the photograph that it came from. Who was recorded before a camera must be recorded again.
    """
    import cv2
    from rich.console import Console
    from rich.progress import track

    from agent import networks, upkeep
    from agent.config import load
    from agent.perception.chain import FaceReader
    from engines.pack import verify

    cv2.setNumThreads(1)  # its part is small, and a second pool of threads would fight the engines' own
    settings = load(config)
    pack = verify(settings.pack_path)
    digest = pack.manifest.digest
    with upkeep.opened(settings) as gallery:
        files = _photographs(gallery, digest, images)
    if not files:
        typer.echo("the running pack made everybody's samples: there is nothing to do")
        return
    reader = FaceReader(networks.load(pack, settings), settings, time.perf_counter)
    bar = track(files, "looking at photographs", console=Console(stderr=True), transient=True)
    looked = {name: _tried(partial(_samples, reader, pack, name, files[name], images)) for name in bar}
    failed = {name: why for name, (_, why) in looked.items() if why}
    made = {name: samples for name, (samples, _) in looked.items() if samples}
    if made:
        failed |= _store(settings, digest, made)
    for name, why in failed.items():
        typer.echo(f"{name}: not enrolled anew: {why}", err=True)
    if failed:
        raise RenewError(
            f"{len(failed)} of {counted(len(files), 'person', 'people')} could not be enrolled anew and stay unknown; "
            "name photographs of them with --images, or delete and record them again"
        )


def _photographs(gallery: "Gallery", digest: str, images: Path | None) -> dict[str, list[Path]]:
    """The photographs of everybody whom another pack has samples of."""
    names = [person.name for person in gallery.people() if set(person.packs) != {digest}]
    if images is not None:
        folders = _folders(images)
        return {name: folders.get(name, []) for name in names}
    found = {}
    for name in names:
        sources = (sample.source for sample in gallery.samples(name) if sample.pack != digest)
        found[name] = [Path(source) for source in dict.fromkeys(sources) if source is not None]
    return found


def _folders(images: Path) -> dict[str, list[Path]]:
    """The images in each folder of ``images``, by the name of the person whom the folder is called after.

    The folders are listed and not looked up, so that no name can lead out of ``images``.

    Raises:
        RenewError: it cannot be read.
    """
    from agent.gallery.types import GalleryError, person_name
    from agent.images import SUFFIXES

    found: dict[str, list[Path]] = {}
    try:
        for folder in sorted(each for each in images.iterdir() if each.is_dir()):
            try:
                name = person_name(folder.name)
            except GalleryError:
                continue  # nobody can be called so
            files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
            found.setdefault(name, []).extend(files)
    except OSError as error:
        raise RenewError(
            f"{images}: {error.strerror}; name a folder with one of images for each person"
        ) from error
    return found


def _samples(
    reader: "FaceReader", pack: "Pack", name: str, files: Sequence[Path], images: Path | None
) -> "list[Sample]":
    """A sample of each photograph.

    Raises:
        UserError: there is none, one cannot be used, or they are not of one person.
    """
    from agent.enrolment import agreement_floor
    from agent.photographs import listed, others, sample_of

    if not files:
        missing = (
            "recorded before a camera"
            if images is None
            else f"{images} has no images in a folder of that name"
        )
        raise RenewError(missing)
    taken = [(file, sample_of(reader, file)) for file in files]
    odd = others(name, taken, agreement_floor(pack.manifest.face.threshold))
    if odd:
        raise RenewError(f"{listed(taken, odd)}: not the same person as on the other images")
    return [sample for _, sample in taken]


def _store(config: "Config", digest: str, made: "dict[str, list[Sample]]") -> dict[str, str]:
    """Store what was made, and say so; gives back whom that failed for, and why."""
    from agent import upkeep

    with upkeep.changing(config) as gallery:
        most = config.gallery.max_samples
        stored = {
            name: _tried(partial(gallery.renew, name, samples, digest, most))
            for name, samples in made.items()
        }
    for name, (total, _) in stored.items():
        if total:
            taken = counted(len(made[name]), "sample")
            typer.echo(f"{name} is enrolled anew: {taken} taken, {total} in the gallery")
    return {name: why for name, (_, why) in stored.items() if why}


def _tried(make: Callable[[], T]) -> tuple[T | None, str]:
    """What was made, or None and why it was not."""
    try:
        return make(), ""
    except (UserError, ValueError) as error:  # ValueError: samples that do not fit those of others
        return None, str(error)
