"""``cabinsense gallery export | import | backups | rotate-key``: backups of the gallery, and its key."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.commands.config import FileOption
from agent.words import counted
from engines.errors import UserError

PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", help="Read the passphrase from the first line of a file."
    ),
]

_LONGEST = 4096


class PassphraseError(UserError):
    """There is no passphrase; the message says how to give one."""


def export(
    file: Annotated[Path, typer.Argument(help="The file to make; it must not exist yet.")],
    passphrase_file: PassphraseOption = None,
    config: FileOption = None,
) -> None:
    """Write a sealed backup of everybody. Its passphrase opens it on any board."""
    from agent import upkeep
    from agent.config import load

    settings = load(config)
    passphrase = _passphrase(passphrase_file, new=True)
    with upkeep.changing(settings) as gallery:
        people = gallery.export(file, passphrase)
    typer.echo(
        f"{file}: {counted(people, 'person', 'people')}; without the passphrase nobody can restore them"
    )


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `gallery export` made.")],
    passphrase_file: PassphraseOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace those who are in the gallery already.")
    ] = False,
    config: FileOption = None,
) -> None:
    """Put everybody in a backup into the gallery, or nobody."""
    from agent import upkeep
    from agent.config import load

    settings = load(config)
    passphrase = _passphrase(passphrase_file, new=False)
    with upkeep.changing(settings) as gallery:
        done = gallery.restore(file, passphrase, settings.gallery.max_samples, replace=replace)
    people = counted(len(done.names), "person", "people")
    typer.echo(f"{people} restored, {len(done.replaced)} of them replaced")
    tell_missed("is still in a backup", done.missed)


def backups(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    forget: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Remember this one no more: it exists no more.")
    ] = None,
    config: FileOption = None,
) -> None:
    """List the backups that were made: deleting a person reaches into each of them."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agent import upkeep
    from agent.config import load

    settings = load(config)
    if forget is not None:
        with upkeep.changing(settings) as gallery:
            gallery.disown(forget)
        return
    with upkeep.opened(settings, readonly=True) as gallery:
        found = gallery.backups()
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table("file", "made", "people", "of those deleted, out of reach")
    for backup in found:
        table.add_row(Text(backup.path), backup.created, str(backup.people), str(backup.gone))
    Console().print(table)


def rotate_key(config: FileOption = None) -> None:
    """Seal the gallery and its backups with a new key, and forget the old one."""
    from agent import upkeep
    from agent.config import load

    with upkeep.changing(load(config)) as gallery:
        seals, missed = gallery.rotate_key()
    typer.echo(f"{seals} embeddings are sealed with a new key")
    tell_missed("keeps the old key", missed)


def tell_missed(what: str, missed: tuple[str, ...]) -> None:
    """Name the backups that could not be reached."""
    for each in missed:
        typer.echo(f"{what}: {each}", err=True)


def _passphrase(file: Path | None, *, new: bool) -> str:
    """What a file or the person at the terminal says.

    Raises:
        PassphraseError: the file cannot be read, or is empty.
    """
    if file is None:
        if not sys.stdin.isatty():
            raise typer.BadParameter("name a --passphrase-file where nobody can be asked")
        return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=new, err=True))
    try:
        with file.open("rb") as opened:
            passphrase = opened.read(_LONGEST).partition(b"\n")[0].rstrip(b"\r").decode()
    except OSError as error:
        raise PassphraseError(f"{file}: {error.strerror}; name a file that holds the passphrase") from error
    except UnicodeDecodeError as error:
        raise PassphraseError(f"{file}: the passphrase is no text; write it in UTF-8") from error
    if not passphrase:
        raise PassphraseError(f"{file}: the first line is empty; it must hold the passphrase")
    return passphrase
