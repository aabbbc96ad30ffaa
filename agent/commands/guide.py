"""What somebody who is being recorded sees of it in a terminal."""

from types import TracebackType

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from agent.events import EnrollmentEvent


class LineGuide:
    """A line for each thing there is to do, and for each sample: for logs and pipes."""

    def __enter__(self) -> "LineGuide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing has to be taken down."""

    def show(self, event: EnrollmentEvent) -> None:
        """Take in an event."""
        typer.echo(event.advice or f"sample {event.samples}: {event.pose}", err=True)


class JsonGuide(LineGuide):
    """Each event as JSON, as subscribers get it but for its number."""

    def show(self, event: EnrollmentEvent) -> None:
        """Take in an event."""
        typer.echo(msgspec.json.encode(event))


class ScreenGuide(LineGuide):
    """What is to be done now, and how many samples there are, on one line that is drawn again."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[taken]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("…", total=None, taken="")

    def __enter__(self) -> "ScreenGuide":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: EnrollmentEvent) -> None:
        """Take in an event."""
        self._progress.update(
            self._task,
            description=event.advice,
            completed=event.samples,
            total=event.wanted,
            taken=f"{event.samples} of {event.wanted} samples",
        )
