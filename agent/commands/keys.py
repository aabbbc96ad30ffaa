"""``cabinsense keys``: who may connect over the network."""

from pathlib import Path
from typing import Annotated

import typer

from agent.commands.config import FileOption

app = typer.Typer(
    help="Who may connect over the network: CURVE keys for endpoints with tcp://. They do not seal the gallery.",
    no_args_is_help=True,
)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What to call it, such as the machine that will use it.")],
    folder: Annotated[
        Path, typer.Option("--folder", "-f", help="Where to put its two files.", file_okay=False)
    ] = Path(),
) -> None:
    """Make a key for a client, best on the machine that will use it: the secret half then never travels."""
    from agent.curve_keys import create

    public, secret = create(folder, name)
    typer.echo(f"{secret}: name it as curve.client_key where the client runs; keep it secret")
    typer.echo(f"{public}: `cabinsense keys allow` it where the daemon runs")


@app.command()
def allow(
    key: Annotated[str, typer.Argument(metavar="FILE-or-KEY", help="The public key, or a file with it.")],
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="What to call it; else the file's name.", show_default=False),
    ] = None,
    config: FileOption = None,
) -> None:
    """Let a client in from now on. A running daemon needs no restart."""
    from agent import curve_keys
    from agent.config import load

    file = Path(key)
    if file.exists() or not curve_keys.is_key(key):
        name, key = name or file.stem, curve_keys.read(file).public
    elif name is None:
        raise typer.BadParameter("say with --name whose key this is")
    curve_keys.allow(load(config).curve.path, name, key)
    typer.echo(f"{name} is let in")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The client, as `keys list` prints it.")],
    config: FileOption = None,
) -> None:
    """Keep a client out from now on; within a second a running daemon also drops it if it is connected."""
    from agent import curve_keys
    from agent.config import load

    curve_keys.revoke(load(config).curve.path, name)
    typer.echo(f"{name} is kept out")


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, config: FileOption = None
) -> None:
    """Print the daemon's public key, which is made at first, and the clients that are let in."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agent import curve_keys
    from agent.config import load

    folder = load(config).curve.path
    server = curve_keys.server_pair(folder).public
    allowed = curve_keys.allowed(folder)
    clients = sorted((name, key) for key, name in allowed.names.items())
    for problem in allowed.problems:
        typer.echo(f"left out: {problem}", err=True)
    if as_json:
        listed = [{"name": name, "key": key} for name, key in clients]
        typer.echo(msgspec.json.encode({"server": server, "folder": str(folder), "clients": listed}))
        return
    typer.echo(f"the daemon's public key, for curve.server_key of its clients: {server}")
    if not clients:
        typer.echo("no client is let in; `cabinsense keys allow` does that")
        return
    table = Table("client", "public key")
    for row in clients:
        table.add_row(*map(Text, row))
    Console().print(table)
