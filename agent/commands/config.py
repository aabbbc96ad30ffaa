"""``cabinsense config``: check the configuration, show it, explain it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check, show and explain the configuration.", no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file; else $CABINSENSE_CONFIG or /etc/cabinsense/config.toml."
    ),
]


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The file; without it the one that the daemon would read.")
    ] = None,
    config: FileOption = None,
) -> None:
    """Say whether a configuration can be used; exit status 1 if not."""
    from agent.config import SYSTEM_PATH, default_path, load
    from engines.errors import UserError
    from engines.pack import PackError, verify

    if file and config and file != config:
        raise typer.BadParameter("name one file only")
    path = file or config or default_path()
    if path == SYSTEM_PATH and not path.exists():
        typer.echo(f"{path} does not exist: every key has its default, and no camera is configured")
        return
    found = load(path)
    cameras = ", ".join(camera.name for camera in found.cameras) or "none"
    typer.echo(f"{path}: every key is known and within its bounds (cameras: {cameras})")
    if found.adaptation.tier != "off":
        from agent.adaptation.tiers import check_tier, means

        try:
            check_tier(found.adaptation)  # before the pack, which need not be there yet
            means(verify(found.pack_path), found.adaptation)
        except PackError:
            pass  # nothing runs at all, and `cabinsense doctor` says why
        except UserError as error:
            typer.echo(f"warning: {error}; until then the agent runs, and adapts nothing", err=True)


@app.command()
def show(
    config: FileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of TOML.")] = False,
) -> None:
    """Print every key with the value in force, defaults included."""
    import msgspec

    from agent.config import load

    values = load(config).resolved()
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(values)).decode())
    else:
        typer.echo(msgspec.toml.encode(_without_none(msgspec.to_builtins(values))).decode(), nl=False)


@app.command()
def reference() -> None:
    """Print every key with its type, bounds, default and meaning, as Markdown."""
    from agent.config import Config
    from agent.reference import config_reference

    typer.echo(config_reference(Config), nl=False)


def _without_none(value: object) -> object:
    """TOML has no null: a key without a value is left out."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return value
