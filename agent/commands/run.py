"""``cabinsense run``: the daemon, with a live table when a person is watching."""

import logging
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from agent import blas
from agent.commands.config import FileOption

if TYPE_CHECKING:
    from rich.console import Console

    from agent.config import Config


_WATCHED = 64  # readings that may wait for the display
_LAST_WORDS_S = 1.0  # for the summary; a terminal that nobody reads does not get it


def run(
    config: FileOption = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="Watch this instead of the configured cameras; may be repeated."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Watch the sample clip, once.")] = False,
    table: Annotated[
        bool | None, typer.Option("--table/--no-table", help="Show a live table; by default on a terminal.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the agent until its cameras end, or until SIGTERM or Ctrl-C."""
    blas.use_one_thread()
    from rich.console import Console
    from rich.logging import RichHandler

    from agent.config import load
    from agent.gallery.owner import owned

    if source and sample:
        raise typer.BadParameter("--sample and --source exclude each other")
    console = Console()
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )
    settings = _with_sources(load(config), source or [], sample)
    with owned(settings.gallery_path):
        _run(settings, console, console.is_terminal if table is None else table)


def _with_sources(config: "Config", sources: list[str], sample: bool) -> "Config":
    """The configuration with its cameras replaced by what the command line names."""
    import msgspec

    from agent.config import MOST_CAMERAS, Camera
    from agent.samples import clip

    if sample:
        return msgspec.structs.replace(config, cameras=(Camera(name="sample", source=str(clip())),))
    if sources:
        named = [{"name": f"source{i}", "source": each} for i, each in enumerate(sources)]
        try:
            cameras = msgspec.convert(
                named, Annotated[tuple[Camera, ...], msgspec.Meta(max_length=MOST_CAMERAS)]
            )
        except msgspec.ValidationError as error:
            raise typer.BadParameter(f"--source: {error}") from error
        return msgspec.structs.replace(config, cameras=cameras)
    return config


def _run(config: "Config", console: "Console", show_table: bool) -> None:
    from agent import upkeep
    from agent.commands.display import Screen
    from agent.daemon import Daemon
    from agent.live import Live
    from agent.mailbox import Mailbox
    from agent.notify import Notifier
    from agent.perception.types import Reading
    from engines import pack as packs

    pack = packs.verify(config.pack_path)
    with upkeep.opened(config) as gallery:
        live = Live(gallery.snapshot(pack.manifest.digest))
    watch = Mailbox[Reading](_WATCHED)
    daemon = Daemon(config, pack, live, watch, Notifier.from_environment())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    screen = Screen(console, watch, daemon.times, daemon.dropped_frames, show_table=show_table)
    screen.start()
    try:
        daemon.run()
    finally:
        screen.stop()
        screen.join(_LAST_WORDS_S)
