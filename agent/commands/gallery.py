"""``cabinsense gallery``: who is enrolled, by what name, and how to forget somebody."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption
from agent.commands.gallery_backup import backups, export, restore, rotate_key, tell_missed
from agent.commands.gallery_renew import renew

if TYPE_CHECKING:
    from agent.config import Config
    from agent.gallery.types import Person

app = typer.Typer(help="The people in the gallery: list, rename, delete, back up.", no_args_is_help=True)
app.command("export")(export)
app.command("import")(restore)
app.command("backups")(backups)
app.command("rotate-key")(rotate_key)
app.command("re-enrol")(renew)

JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
NameArgument = Annotated[str, typer.Argument(help="The person's name, as `gallery list` prints it.")]


@app.command("list")
def list_people(as_json: JsonOption = False, config: FileOption = None) -> None:
    """Print everybody who is enrolled."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agent.config import load

    settings = load(config)
    people = _people(settings)
    if as_json:
        typer.echo(msgspec.json.encode(people))
        return
    if not people:
        typer.echo(f"nobody is enrolled in {settings.gallery_path}; `cabinsense record NAME` does that")
        return
    table = Table("name", "samples", "enrolled", "packs")
    for person in people:
        packs = ", ".join(pack[:12] for pack in person.packs)
        table.add_row(Text(person.name), str(person.samples), person.created, packs)
    Console().print(table)


@app.command()
def show(name: NameArgument, as_json: JsonOption = False, config: FileOption = None) -> None:
    """Print a person's samples: when, by which pack, and how good. Embeddings are never shown."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agent import upkeep
    from agent.config import load

    with upkeep.opened(load(config), readonly=True) as gallery:
        person, samples = gallery.person(name), gallery.samples(name)
    if as_json:
        typer.echo(msgspec.json.encode({"name": person.name, "created": person.created, "samples": samples}))
        return
    table = Table(
        *("taken", "pack", "size", "sharpness", "brightness", "contrast", "yaw", "pitch", "roll"),
        title=Text(f"{person.name}, enrolled {person.created}"),
    )
    for sample in samples:
        figures = (sample.size, sample.sharpness, sample.brightness, sample.contrast)
        angles = (sample.yaw, sample.pitch, sample.roll)
        table.add_row(sample.created, sample.pack[:12], *(f"{value:.1f}" for value in (*figures, *angles)))
    Console().print(table)


@app.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: FileOption = None,
) -> None:
    """Forget a person: nothing of name or samples stays on the disk or in a backup within reach.

    A running daemon forgets at once. Backups that cannot be reached are named.
    """
    from agent import upkeep
    from agent.config import load
    from agent.control import DeletePerson, daemon_listens
    from agent.gallery.types import GalleryError, person_name

    settings = load(config)
    name = person_name(name)
    if not daemon_listens(
        settings.control_endpoint
    ):  # which knows best, and may be the only one to have the key
        with upkeep.opened(settings, readonly=True) as gallery:
            gallery.count(name)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("say --yes where nobody can be asked")
        typer.confirm(f"Delete {name} with all samples?", abort=True)
    done = upkeep.asked(settings, DeletePerson(name=name))
    if done is not None:
        missed = done.notes
        if missed:  # a service sees little of the file system: whoever deletes may reach what it does not
            with suppress(GalleryError), upkeep.opened(settings) as gallery:
                missed = gallery.reach_backups()
    else:
        with upkeep.changing(settings) as gallery:
            missed = gallery.delete(name)
    typer.echo(f"{name} is deleted")
    tell_missed("may still be in a backup", missed)


@app.command()
def rename(
    name: NameArgument,
    to: Annotated[str, typer.Argument(metavar="NEW", help="The new name.")],
    config: FileOption = None,
) -> None:
    """Give a person another name."""
    from agent import upkeep
    from agent.config import load
    from agent.control import RenamePerson
    from agent.gallery.types import person_name

    settings = load(config)
    if upkeep.asked(settings, RenamePerson(name=name, to=to)) is None:
        with upkeep.changing(settings) as gallery:
            gallery.rename(name, to)
    typer.echo(f"{person_name(name)} is called {person_name(to)} now")


@app.command()
def reject(
    name: NameArgument,
    camera: Annotated[str, typer.Option(help="The camera that sees the face; else any.")] = "",
    config: FileOption = None,
) -> None:
    """Say that the face which the running daemon takes for a person now is not that person's."""
    from agent import upkeep
    from agent.config import load
    from agent.control import Done, RejectPerson, request

    settings = load(config)
    wanted = RejectPerson(name=name, camera=camera)
    request(settings.control_endpoint, wanted, Done, upkeep.ANSWER_S, curve=settings.curve)
    typer.echo(f"the face that was taken for {name} is remembered as not theirs")


@app.command()
def audit(as_json: JsonOption = False, config: FileOption = None) -> None:
    """Print what was done to the gallery and when; people stand there by number, so that nobody is named for ever."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from agent import upkeep
    from agent.config import load

    with upkeep.opened(load(config), readonly=True) as gallery:
        notes = gallery.audit()
    if as_json:
        typer.echo(msgspec.json.encode(notes))
        return
    table = Table("when", "what", "person", "count")
    for note in notes:
        table.add_row(note.at, note.action, note.person or "", "" if note.count is None else str(note.count))
    Console().print(table)


def _people(config: "Config") -> "Sequence[Person]":
    """Everybody: as a running daemon says, who may be the only one to have the key; else from the file."""
    from agent import upkeep
    from agent.control import ListPeople, People, daemon_listens, request

    if daemon_listens(config.control_endpoint):
        answer = request(config.control_endpoint, ListPeople(), People, upkeep.ANSWER_S, curve=config.curve)
        return answer.people
    if not config.gallery_path.exists():
        return ()
    with upkeep.opened(config, readonly=True) as gallery:
        return gallery.people()
