"""``python -m trainer TASK``: train a network."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engines.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _tasks() -> None:
    """Train Cabinsense's networks."""


@app.command()
def emotion(
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; see trainer/config.py")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, over the file's settings")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the run; a checkpoint there is continued")] = Path(
        "runs/emotion"
    ),
    export: Annotated[
        Path | None, typer.Option(help="write the trained branch to this .onnx, its model card beside it")
    ] = None,
) -> None:
    """Train the emotion branch on FER2013."""
    with _told(out):
        from trainer.run import run_emotion  # noqa: PLC0415 - PyTorch is loaded when it is needed

        run_emotion(config, overrides or [], out, export)


@app.command()
def conditions(
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; see trainer/conditions.py")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, over the file's settings")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="folder of the run; conditions that are done are not trained again")
    ] = Path("runs/conditions"),
    export: Annotated[Path | None, typer.Option(help="write the norm bank to this .npz")] = None,
) -> None:
    """Train norm parameters for each condition: the bank that adaptation mixes."""
    with _told(out):
        from trainer.conditions_run import run_conditions  # noqa: PLC0415 - PyTorch is loaded when it is needed

        run_conditions(config, overrides or [], out, export)


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Say what a user can put right, and how to go on; anything else is a fault of ours."""
    errors = Console(stderr=True)
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"torch", "matplotlib"}:
            raise
        errors.print(f"{error.name} is missing: pip install 'cabinsense[trainer]'", markup=False)
        raise typer.Exit(1) from error
    except UserError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        errors.print(f"stopped; the same command continues from {out}", markup=False, soft_wrap=True)
        sys.exit(130)


if __name__ == "__main__":
    app()
