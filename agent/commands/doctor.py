"""``cabinsense doctor``: what works on this box, what does not, and what helps."""

from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption

if TYPE_CHECKING:
    from agent.doctor import Report

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    config: FileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    engines: Annotated[
        bool,
        typer.Option(
            "--engines", help="Try the engines out, too: build, latency, exchange under load. Takes minutes."
        ),
    ] = False,
    running: Annotated[
        bool, typer.Option("--running", help="Only ask the running agent; exit status 1 if none answers.")
    ] = False,
) -> None:
    """Say what this box has and what it lacks; exit status 1 if something keeps the agent from its work."""
    import msgspec

    from agent.config import load
    from agent.doctor import Report, report
    from agent.inspection import ask_daemon, inspect

    if running:
        typer.echo(ask_daemon(load(config)))
        return
    facts = inspect(config)
    found = report(facts)
    if engines and not (facts.config_problem or facts.pack_problem):
        from agent.acceptance import accept
        from engines.pack import verify

        settings = load(config)
        lines = tuple(accept(verify(settings.pack_path), settings, facts.cuda.device))
        found = Report(found.usable and all(line.state != "fail" for line in lines), (*found.lines, *lines))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        _show(found)
    if not found.usable:
        raise typer.Exit(1)


def _show(found: "Report") -> None:
    """One line a subject, and the remedy below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for line in found.lines:
        detail = Text(line.detail)
        if line.remedy:
            detail.append(f"\n→ {line.remedy}", style="bold")
        table.add_row(Text(line.state, style=_COLOURS[line.state]), line.subject, detail)
    Console().print(table)
