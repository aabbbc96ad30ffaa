"""``python -m trainer TASK``: train a network. ``cabinsense train TASK`` is the same."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from engines.errors import UserError
from trainer.tasks import TASKS, load

_EXTRA = {"kornia", "matplotlib", "pytorch_metric_learning", "safetensors", "timm", "torch"}

Name = Enum("Name", {name: name for name in TASKS}, type=str)  # type: ignore[misc] # made of what there is

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command(
    help="Train a network: "
    + "; ".join(f"`{name}` makes {what}" for name, what in TASKS.items())
    + ". A run that was stopped or killed goes on with the same command. docs/training.md tells more.",
)
def train(
    task: Annotated[Name, typer.Argument(help="what to train")],
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, over the file's settings")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run, else runs/TASK; a checkpoint there is continued")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="write what was trained to this .onnx")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check data and memory, print the plan, train nothing")
    ] = False,
) -> None:
    """Train, say what went wrong, and how to go on."""
    folder = out or Path("runs") / task.value
    try:
        _train(task.value, config, overrides or [], folder, export, dry_run)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command continues from {folder}", err=True)
        sys.exit(130)


class MissingError(UserError):
    """A package of the extra is missing."""


def _train(
    name: str, config: Path | None, overrides: list[str], out: Path, export: Path | None, dry_run: bool
) -> None:
    try:
        from trainer.common.run import run  # noqa: PLC0415 - PyTorch is loaded when it is needed

        task = load(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingError(f"{error.name} is missing: pip install 'cabinsense[trainer]'") from error
    run(task, config, overrides, out, export, dry_run)


if __name__ == "__main__":
    app()
