"""``cabinsense gallery``: who is enrolled, and how to forget somebody."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption

if TYPE_CHECKING:
    from agent.config import Config

app = typer.Typer(help="List, show and delete the people in the gallery.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
NameArgument = Annotated[str, typer.Argument(help="The person's name, as `gallery list` prints it.")]

_ANSWER_S = 10.0  # a deletion takes milliseconds, but the disk may be slow or in use


@app.command("list")
def list_people(as_json: JsonOption = False, config: FileOption = None) -> None:
    """Print everybody who is enrolled."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agent.config import load
    from agent.gallery.store import Gallery

    path = load(config).gallery_path
    people = []
    if path.exists():
        with Gallery.open(path, readonly=True) as gallery:
            people = gallery.people()
    if as_json:
        typer.echo(msgspec.json.encode(people))
        return
    if not people:
        typer.echo(f"nobody is enrolled in {path}; `cabinsense record NAME` does that")
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

    from agent.config import load
    from agent.gallery.store import Gallery

    with Gallery.open(load(config).gallery_path, readonly=True) as gallery:
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
    """Forget a person: nothing of name or samples stays on the disk, and a running daemon forgets at once."""
    from agent.config import load
    from agent.gallery.store import Gallery

    settings = load(config)
    with Gallery.open(settings.gallery_path, readonly=True) as gallery:
        person = gallery.person(name)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("say --yes where nobody can be asked")
        typer.confirm(f"Delete {person.name} with {person.samples} samples?", abort=True)
    _delete(settings, person.name)
    typer.echo(f"{person.name} is deleted")


def _delete(config: "Config", name: str) -> None:
    """Through the daemon if one is running, for it must forget the person, too; else in the file."""
    from agent.control import DeletePerson, Done, daemon_listens, request
    from agent.gallery.store import Gallery

    if daemon_listens(config.control_endpoint):
        request(config.control_endpoint, DeletePerson(name=name), Done, _ANSWER_S, curve=config.curve)
        return
    with Gallery.open(config.gallery_path) as gallery:
        gallery.delete(name)
