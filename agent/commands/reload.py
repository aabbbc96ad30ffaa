"""``cabinsense reload``: let the running agent read its configuration again."""

from typing import Annotated

import typer

from agent.commands.config import FileOption

_ANSWER_S = 10.0  # for it may be in the middle of writing to the gallery


def reload(
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    config: FileOption = None,
) -> None:
    """Let the running agent read its configuration again; exit status 1 if it cannot be used.

    Says which keys have changed and are in force, and which wait for a restart.
    The agent reads the file that it was started with.
    """
    import msgspec

    from agent.config import load
    from agent.control import Reload, Reloaded, request

    settings = load(config)
    done = request(settings.control_endpoint, Reload(), Reloaded, _ANSWER_S, curve=settings.curve)
    if as_json:
        typer.echo(msgspec.json.encode(done))
        return
    typer.echo(f"in force: {', '.join(done.changed) or 'nothing new'}")
    if done.waiting:
        typer.echo(f"waiting for a restart: {', '.join(done.waiting)}")
