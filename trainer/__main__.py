"""``python -m trainer TASK``: train a network."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
    errors = Console(stderr=True)
    try:
        from trainer.run import RUN_ERRORS, run_emotion  # noqa: PLC0415 - PyTorch is loaded when it is needed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"torch", "matplotlib"}:
            raise
        errors.print(f"{error.name} is missing: pip install 'cabinsense[trainer]'", markup=False)
        raise typer.Exit(1) from error
    try:
        run_emotion(config, overrides or [], out, export)
    except RUN_ERRORS as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        errors.print(f"stopped; the same command continues from {out}", markup=False, soft_wrap=True)
        sys.exit(130)


if __name__ == "__main__":
    app()
