"""The command line ``cabinsense``: its commands, and how their failures are told."""

import errno
import os
import signal
import sys
import threading
from typing import Annotated

import typer

from agent import __version__
from agent.commands import (
    analyze,
    bench,
    calibrate,
    config,
    doctor,
    evaluate,
    events,
    gallery,
    keys,
    models,
    record,
    reload,
    run,
    status,
    train,
)
from agent.logs import is_journal
from agent.stage import MAY_HANG
from engines.errors import UserError

_SERVICE = ["run", "--no-table"]
"""The service's arguments. What parses others takes a tenth of the time until it is ready, to be imported alone."""

app = typer.Typer(
    name="cabinsense",
    help="Who is driving, and how do they look? An agent for cabin cameras, with events over ZeroMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("reload")(reload.reload)
app.command("events")(events.events)
app.command("record")(record.record)
app.command("analyze")(analyze.analyze)
app.command("doctor")(doctor.doctor)
# Its options are the trainer's own, so that both ways to call it are the same.
app.command(
    "train",
    add_help_option=False,
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
)(train.train)
app.add_typer(bench.app, name="bench")
app.add_typer(gallery.app, name="gallery")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(calibrate.app, name="calibrate")


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
    if any(thread.name.endswith(MAY_HANG) for thread in threading.enumerate()):
        # One that hangs in OpenCV, say on a silent network camera, aborts the process if it returns while the
        # interpreter is being taken down; one that hangs before a terminal would hold that up for ever. Neither has
        # anything to save, and whatever was printed has been flushed.
        os._exit(status)
    sys.exit(status)


def _run() -> int:
    try:
        if sys.argv[1:] == _SERVICE:
            run.run(table=False)
        else:
            app()
    except KeyboardInterrupt:  # before the agent listens to it
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        typer.echo(f"error: the output cannot be written: {error.strerror}; make room for it", err=True)
        return 1
    except UserError as error:
        # What is printed there stays in the journal, which is to name nobody.
        typer.echo(f"error: {error.unnamed if is_journal(sys.stderr) else error}", err=True)
        return 1
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
