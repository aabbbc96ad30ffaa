"""The command line ``cabinsense``: its commands, and how their failures are told."""

import os
import sys
import threading
from typing import Annotated

import typer

from agent import __version__
from agent.commands import analyze, bench, config, evaluate, events, gallery, models, record, run
from agent.stage import READER
from engines.errors import UserError

app = typer.Typer(
    name="cabinsense",
    help="Who is driving, and how do they look? An agent for cabin cameras, with events over ZeroMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("events")(events.events)
app.command("record")(record.record)
app.command("analyze")(analyze.analyze)
app.command("bench")(bench.bench)
app.add_typer(gallery.app, name="gallery")
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.add_typer(evaluate.app, name="evaluate")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cabinsense {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The place of options that belong to no command."""


def main() -> None:
    """Run the command line; failures that a user can mend are told in one line, with exit status 1."""
    status = _run()
    if any(thread.name.endswith(READER) for thread in threading.enumerate()):
        # A camera's reader that hangs in OpenCV, say on a silent network camera, aborts the process if its read
        # returns while the interpreter is being taken down. It holds nothing that must be saved.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _run() -> int:
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as in `| head`: nothing is left to say, and no one to hear it
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
