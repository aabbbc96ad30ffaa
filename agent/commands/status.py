"""``cabinsense status``: how the running agent is."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption
from agent.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.config import Config
    from agent.control import Status
    from agent.events import HealthEvent

NO_DAEMON = 3
"""Exit status when no agent runs, as of `systemctl status`."""
_ANSWER_S = 5.0
_EVERY_S = 1.0
_COLOURS = {"open": "green", "opening": "yellow", "failed": "red", "ended": "dim"}


def status(
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Once a second, until Ctrl-C.")] = False,
    config: FileOption = None,
) -> None:
    """Say how the running agent is; exit status 3 if none runs."""
    from agent.config import load
    from agent.control import ControlError

    settings = load(config)
    try:
        if watch and not as_json:
            _watch(settings)
        else:
            _print(settings, as_json=as_json)
            while watch:
                time.sleep(_EVERY_S)
                _print(settings, as_json=as_json)
    except KeyboardInterrupt:
        return
    except ControlError as error:
        if error.code != "no_daemon":
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(NO_DAEMON) from error


def _ask(config: "Config") -> "Status":
    from agent.control import GetStatus, Status, request

    return request(config.control_endpoint, GetStatus(), Status, _ANSWER_S, curve=config.curve)


def _print(config: "Config", *, as_json: bool) -> None:
    import msgspec
    from rich.console import Console

    found = _ask(config)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        Console().print(describe(found))


def _watch(config: "Config") -> None:
    """Show it again and again; an agent that is started anew is found again."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from agent.control import ControlError

    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            try:
                live.update(describe(_ask(config)), refresh=True)
            except ControlError as error:
                live.update(Text(str(error), style="red"), refresh=True)
            time.sleep(_EVERY_S)


def describe(found: "Status") -> "RenderableType":
    """A status for people: the agent, the driver, its cameras, its stages, and what is wrong."""
    from rich.console import Group
    from rich.text import Text

    from agent.commands.display import driver_words

    health = found.health
    if health is None:
        return Text(f"starting; pack {found.pack[:12]}")
    doing = "recording" if found.state == "recording" else "watching"
    head = Text.assemble(
        (doing, "bold green"),
        f" for {_duration(health.uptime)}, {health.fps:.1f} frames a second, "
        f"{counted(health.people, 'person', 'people')} in the gallery\n"
        f"pack {found.pack[:12]}, {health.rss_mb:.0f} MiB, {health.cpu_percent:.0f} % of a core, "
        f"{counted(health.dropped, 'message')} dropped\n"
        f"{_budget(health)}{_adaptation(health)}",
    )
    driver = [Text(f"driver: {driver_words(found.driver)}")] if found.driver else []
    problems = [Text(f"! {problem}", style="bold red") for problem in health.problems]
    return Group(head, *driver, *problems, _cameras(health), _stages(health))


def _budget(health: "HealthEvent") -> str:
    """What the latency budget was spent on."""
    limit = "no limit" if health.budget_ms is None else f"{health.budget_ms:g} ms a frame"
    heat = f", at most {max(health.celsius.values()):.0f} °C" if health.celsius else ""
    return (
        f"budget {limit}, rung {health.rung}; last minute {counted(health.missed, 'frame')} late, "
        f"{health.dropped_frames} dropped{heat}"
    )


def _adaptation(health: "HealthEvent") -> str:
    """What face network runs, and who sees to it; nothing while nothing is adapted."""
    found = health.adaptation
    if found is None:
        return ""
    state = "adapted" if found.state == "adapted" else "the pack's own network"
    if found.rise:
        state += f", identity threshold raised by {found.rise:.0%} of the way to 1"
    worker = "no worker"
    if found.worker is not None:
        worker = f"worker {found.worker}" + ("" if found.ready else " beginning")
    return (
        f"\nadaptation {found.tier}: {state} for {_duration(health.monotonic - found.since)}, {worker}, "
        f"{counted(found.restarts, 'restart')}; {found.accepted} accepted, {found.refused} refused, "
        f"{counted(found.resets, 'reset')}, "
        f"last: {found.reason or 'nothing yet'}"
    )


def _cameras(health: "HealthEvent") -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table("camera", "state", "view", "frames", "dropped", "reopened", "error")
    for camera in health.cameras:
        counts = (str(camera.frames), str(camera.dropped), str(camera.reopened))
        state = Text(camera.state, style=_COLOURS.get(camera.state, ""))
        table.add_row(camera.name, state, camera.view, *counts, Text(camera.error or ""))
    return table


def _stages(health: "HealthEvent") -> "RenderableType":
    from rich.columns import Columns
    from rich.table import Table

    stages = Table("stage", "last beat, s", "restarts")
    for name, age in health.stages.items():
        stages.add_row(name, f"{age:.2f}", str(health.restarts.get(name, 0)))
    times = Table("time a frame, last minute", "ms")
    for name, ms in health.frame_ms.items():
        times.add_row(name, f"{ms:.2f}")
    return Columns([stages, times])


def _duration(seconds: float) -> str:
    """Seconds as people say it: ``42 s``, ``3 min``, ``5 h 12 min``."""
    minutes = int(seconds) // 60
    if minutes == 0:
        return f"{int(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
