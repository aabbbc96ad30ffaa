"""The button thread: hands presses of the record button to the control stage, and lights its lamp."""

import contextlib
import logging
import time
from collections.abc import Callable

from agent import gpio
from agent.button import Button, Press
from agent.config import Button as Settings
from agent.gpio import ButtonLine, GpioError, LampLine
from agent.led import is_dark, lit
from agent.live import Live
from agent.stage import Stage

log = logging.getLogger(__name__)

_IDLE_S, _SHOWING_S = 0.1, 0.02  # how long to wait for an edge: the lamp is looked after in between
_RETRY_S = 5.0  # between two tries to open lines that cannot be had


class ButtonStage(Stage):
    """Watches the button and lights the lamp until told to stop.

    A button that is not there is no reason not to recognise anybody: the stage says what is wrong, and tries again.

    Attributes:
        problem: why there is no button just now, with the remedy; empty while there is.
    """

    def __init__(
        self,
        settings: Settings,
        live: Live,
        open_button: Callable[[Settings], ButtonLine] = gpio.open_button,
        open_lamp: Callable[[Settings], LampLine] = gpio.open_lamp,
    ) -> None:
        """Leave presses in ``live.presses``; show ``live.sign`` where there is a lamp.

        Args:
            settings: which lines, and what a press is.
            live: what stages share.
            open_button: opens the button's line.
            open_lamp: opens the lamp's line.
        """
        super().__init__("button")
        self._settings = settings
        self._live = live
        self._open_button, self._open_lamp = open_button, open_lamp
        self._line: ButtonLine | None = None
        self._lamp: LampLine | None = None

    def work(self) -> None:
        """Watch until told to stop."""
        while not self.stopping.is_set():
            try:
                self._watch()
            except (GpioError, OSError) as error:
                gone = f"button.line = {self._settings.line!r}: the line has gone: {error}; see `gpioinfo`"
                problem = str(error) if isinstance(error, GpioError) else gone
                if problem != self.problem:
                    log.error("%s; it is tried again every %g s", problem, _RETRY_S)  # noqa: TRY400
                self.problem = problem
            finally:
                with self.acting():
                    self.release()
            self._rest()

    def release(self) -> None:
        """Let go of the lines."""
        for line in (self._lamp, self._line):
            with contextlib.suppress(OSError):  # it has gone
                if line is not None:
                    line.close()
        self._lamp = self._line = None

    def _rest(self) -> None:
        """Wait before the next try, alive."""
        end = time.monotonic() + _RETRY_S
        while time.monotonic() < end and not self.stopping.wait(_IDLE_S):
            self.beat()

    def _watch(self) -> None:
        """Open the lines and watch them until told to stop; raises GpioError or OSError when they cannot be used."""
        with self.acting():
            line = self._line = self._open_button(self._settings)
            lamp = self._lamp = self._open_lamp(self._settings) if self._settings.led else None
        self.problem = ""
        button = Button(self._settings.debounce_ms / 1e3, self._settings.long_press_s, down=line.down())
        shown = False
        while not self.stopping.is_set():
            self.beat()
            sign, began = self._live.sign, time.monotonic()
            wait = _IDLE_S if lamp is None or is_dark(sign, began) else _SHOWING_S
            edges = line.edges(wait)
            for at, down in edges:
                self._give(button.edge(at, down=down))
            if not edges:
                # Not the time now: between the look at the line and here there may have been an edge.
                self._give(button.tick(began + wait))
            if lamp is not None and (wanted := lit(sign, time.monotonic())) != shown:
                with self.acting():
                    lamp.light(on=wanted)
                shown = wanted

    def _give(self, presses: list[Press]) -> None:
        if presses:
            with self.acting():
                for press in presses:
                    self._live.presses.put(press)
