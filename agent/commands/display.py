"""Tables for people: what the agent sees, and how long it takes."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent.driver import STEPS_S
from agent.events import DriverEvent
from agent.mailbox import Mailbox
from agent.perception.types import Face, Reading
from agent.stage import MAY_HANG, Stage
from agent.statistics import FrameTimes
from agent.words import counted

_REDRAW_S = 0.1


def times_table(steps: Mapping[str, Mapping[str, float]]) -> Table:
    """Percentiles of steps in milliseconds."""
    table = Table("step", *(f"{name}, ms" for name in ("p50", "p95", "p99")), title="time a frame")
    for step, figures in steps.items():
        table.add_row(step, *(f"{figures[name]:.2f}" for name in ("p50", "p95", "p99")))
    return table


def readings_table(readings: Mapping[str, Reading], driver: DriverEvent | None) -> Table:
    """The newest reading of each camera, one row a face, and below them the driver."""
    table = Table(
        "camera", "frame", "track", "who", "score", "expression", "steps, ms", "frame, ms", title="cabinsense"
    )
    if driver is not None:
        style = "bold red" if driver.warning else ""
        table.caption = Text(f"driver: {driver_words(driver)}", style=style)
    for reading in readings.values():
        steps = "  ".join(f"{step} {ms:.1f}" for step, ms in reading.stage_ms.items() if ms >= 0.1)
        head = (reading.frame.camera, str(reading.frame.index))
        tail = (steps, f"{reading.total_ms:.1f}")
        if not reading.faces:
            table.add_row(*head, "-", "[dim]no face[/]", "", "", *tail)
        for face in reading.faces:
            table.add_row(*head, str(face.track), escape(who(face)), _score(face), _expression(face), *tail)
    return table


def driver_words(driver: DriverEvent) -> str:
    """The driver in a line: who it is, how they look, where they look, and the warning."""
    if driver.present is None:
        return "not seen"
    if not driver.present:
        return "nobody"
    words = [driver.person or ("unknown" if driver.state == "unknown" else "…"), driver.attention]
    if driver.emotion:
        words.insert(1, driver.emotion)
    if driver.warning:
        long = f"has looked away for {STEPS_S[driver.warning - 1]:g} s"
        words.append(
            f"warning {driver.warning}: {long if driver.reason == 'long_look' else 'looks away often'}"
        )
    return ", ".join(words)


def who(face: Face) -> str:
    """Name, ``unknown`` or ``…`` while undecided; brackets when the face is not seen just now."""
    return f"({_name(face)})" if face.coasting else _name(face)


def _name(face: Face) -> str:
    if face.state == "confirmed" and face.match and face.match.person:
        return face.match.person
    return "unknown" if face.state == "unknown" else "…"


def _score(face: Face) -> str:
    return f"{face.match.score:.3f}" if face.match else ""


def _expression(face: Face) -> str:
    if face.emotion is None:
        return ""
    return f"{face.emotion.label} {max(face.emotion.probabilities):.0%}"


class Screen(Stage):
    """Shows readings until it is stopped, and then a summary.

    A thread of its own: a terminal that is not being read holds up whoever writes to it, and must not hold up the end
    of the daemon.
    """

    def __init__(
        self,
        console: Console,
        watch: Mailbox[Reading],
        times: FrameTimes,
        dropped: Callable[[], int],
        driver: Callable[[], DriverEvent | None],
        *,
        show_table: bool,
    ) -> None:
        """Show what comes into ``watch``, and the ``driver``; sum up ``times`` and the frames ``dropped``."""
        super().__init__(f"display{MAY_HANG}")
        self._console = console
        self._watch = watch
        self._times = times
        self._dropped = dropped
        self._driver = driver
        self._display = TableDisplay(console) if show_table else LineDisplay(console)

    def work(self) -> None:
        """Show, ten times a second, what has come in."""
        with self._display as display:
            last = False
            while not last:
                last = self.stopping.wait(_REDRAW_S)
                while (reading := self._watch.take(0)) is not None:
                    display.show(reading)
                if (driver := self._driver()) is not None:
                    display.show_driver(driver)
                display.refresh()
        self._sum_up()

    def _sum_up(self) -> None:
        times = self._times
        if not times.frames:
            self._console.print("no frame was read")
            return
        self._console.print(times_table({**times.stage_ms(), "frame": times.frame_ms()}))
        self._console.print(
            f"{counted(times.frames, 'frame')}, {counted(times.faces, 'face')}, {times.fps:.1f} frames a second, "
            f"{counted(self._dropped(), 'frame')} dropped, overhead {times.overhead:.2f}"
        )


class TableDisplay:
    """A table that is drawn again in place."""

    def __init__(self, console: Console) -> None:
        self._newest: dict[str, Reading] = {}
        self._driver: DriverEvent | None = None
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "TableDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.stop()

    def show(self, reading: Reading) -> None:
        """Take in a reading."""
        self._newest[reading.frame.camera] = reading

    def show_driver(self, driver: DriverEvent) -> None:
        """Take in what is known of the driver."""
        self._driver = driver

    def refresh(self) -> None:
        """Draw what has been taken in."""
        if self._newest:
            self._live.update(readings_table(self._newest, self._driver), refresh=True)


class LineDisplay:
    """A line for each change of who is seen: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[tuple[str, int], str] = {}
        self._driver = ""

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing is held open."""

    def show(self, reading: Reading) -> None:
        """Print what this reading changes."""
        camera, index = reading.frame.camera, reading.frame.index
        for face in reading.faces:
            word = f"{_name(face)} {_expression(face).split(' ')[0]}".strip()
            if self._told.get((camera, face.track)) != word:
                self._told[camera, face.track] = word
                times = f"{reading.total_ms:.1f} ms"
                self._console.print(
                    f"{camera} frame {index}: track {face.track}: {word} ({times})",
                    highlight=False,
                    markup=False,
                )
        for track in reading.lost:
            self._told.pop((camera, track), None)
            self._console.print(f"{camera} frame {index}: track {track}: lost", highlight=False, markup=False)

    def show_driver(self, driver: DriverEvent) -> None:
        """Print how the driver is, if that has changed."""
        words = driver_words(driver)
        if words != self._driver:
            self._driver = words
            self._console.print(f"driver: {words}", highlight=False, markup=False)

    def refresh(self) -> None:
        """Every line is printed at once."""
