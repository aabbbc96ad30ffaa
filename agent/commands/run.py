"""``cabinsense run``: the daemon, with a live table when a person is watching."""

import gc
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agent import blas
from agent.commands.config import FileOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Camera, Config
    from agent.daemon import Daemon
    from agent.live import Live
    from agent.mailbox import Mailbox
    from agent.perception.types import Reading


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
    """Run the agent until its cameras end, or until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration again, unless a person is watching in a terminal: then it ends the agent.
    """
    blas.use_one_thread()
    gc.disable()  # what modules make is not garbage; looking for some takes an eighth of the start
    from agent import logs
    from agent.config import load
    from agent.gallery.owner import owned

    if source and sample:
        raise typer.BadParameter("--sample and --source exclude each other")

    def read() -> "Config":
        return _as_asked(load(config), source or [], sample=sample, verbose=verbose)

    settings = read()
    logs.configure(settings.log.level)
    with owned(settings.gallery_path):
        _run(settings, read, table)


def _as_asked(config: "Config", sources: list[str], *, sample: bool, verbose: bool) -> "Config":
    """The configuration with its cameras and its level of logging replaced by what the command line names."""
    import msgspec

    from agent.config import MOST_CAMERAS, Camera, Log
    from agent.samples import clip

    if verbose:
        config = msgspec.structs.replace(config, log=Log(level="debug"))
    if sample:
        return _watching(config, (Camera(name="sample", source=str(clip())),))
    if sources:
        named = [{"name": f"source{i}", "source": each} for i, each in enumerate(sources)]
        try:
            cameras = msgspec.convert(
                named, Annotated[tuple[Camera, ...], msgspec.Meta(max_length=MOST_CAMERAS)]
            )
        except msgspec.ValidationError as error:
            raise typer.BadParameter(f"--source: {error}") from error
        return _watching(config, cameras)
    return config


def _watching(config: "Config", cameras: "tuple[Camera, ...]") -> "Config":
    """The configuration with other cameras, of which the first sees the driver."""
    import msgspec

    driver = msgspec.structs.replace(config.driver, camera="")
    return msgspec.structs.replace(config, cameras=cameras, driver=driver)


def _run(config: "Config", read: "Callable[[], Config]", table: bool | None) -> None:
    from agent import logs, upkeep
    from agent.daemon import Daemon
    from agent.gallery.templates import aggregate
    from agent.live import Live
    from agent.mailbox import Mailbox
    from agent.notify import Notifier
    from agent.perception.types import Reading
    from engines import pack as packs

    pack = packs.verify(config.pack_path)
    with upkeep.opened(config) as gallery:
        live = Live(gallery.snapshot(pack.manifest.digest, aggregate(config.gallery)))
    # The journal keeps what is printed, and is not to keep who was seen.
    watch = None if logs.is_journal(sys.stdout) else Mailbox[Reading](_WATCHED)
    daemon = Daemon(config, pack, live, watch, Notifier.from_environment(), read)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    signal.signal(signal.SIGHUP, lambda *_: daemon.reload())
    gc.freeze()
    gc.enable()
    if watch is None:
        daemon.run()
    else:
        _run_watched(daemon, live, watch, table)


def _run_watched(daemon: "Daemon", live: "Live", watch: "Mailbox[Reading]", table: bool | None) -> None:
    """Run the daemon, and print what it sees."""
    from rich.console import Console

    from agent.commands.display import Screen

    console = Console()
    if console.is_terminal:
        signal.signal(signal.SIGHUP, lambda *_: daemon.stop())
    screen = Screen(
        console,
        watch,
        daemon.times,
        daemon.dropped_frames,
        lambda: live.driver,
        show_table=console.is_terminal if table is None else table,
    )
    screen.start()
    try:
        daemon.run()
    finally:
        screen.stop()
        screen.join(_LAST_WORDS_S)
