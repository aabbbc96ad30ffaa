"""GPIO lines for the record button and its lamp, through libgpiod or Jetson.GPIO.

Both are optional, and neither is imported before a line is opened.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agent.config import Button as Settings
from engines.errors import UserError

T = TypeVar("T")

_CONSUMER = "cabinsense"  # what tools such as gpioinfo name as the user of a line
_EDGES = (
    64  # that the kernel keeps for us; of more the oldest fall out, so that the level is right in the end
)
_POLL_S = 0.005  # between two looks at a line that tells nothing of itself: well below the debounce time
_NUMBERED = re.compile(r"(?:/dev/)?(gpiochip\d+):(\d+)")


class GpioError(UserError):
    """A GPIO line cannot be used; the message names the key, the line and the remedy."""


class ButtonLine(Protocol):
    """The line of a button. ``down`` is what it means, whichever voltage that is."""

    def down(self) -> bool:
        """The level now."""
        ...

    def edges(self, timeout: float) -> Sequence[tuple[float, bool]]:
        """The changes since the last call, oldest first, as monotonic seconds and the new level.

        Waits for one for at most ``timeout`` seconds. Raises OSError when the line has gone.
        """
        ...

    def close(self) -> None:
        """Let go of the line."""
        ...


class LampLine(Protocol):
    """The line of a lamp."""

    def light(self, *, on: bool) -> None:
        """Switch it. Raises OSError when the line has gone."""
        ...

    def close(self) -> None:
        """Switch it off and let go of the line."""
        ...


def open_button(settings: Settings) -> ButtonLine:
    """The line of the button, ``button.line``.

    Raises:
        GpioError: it cannot be had.
    """
    jetson, line, active_low = settings.backend == "jetson", settings.line, settings.active_low
    return _tried(
        "button.line",
        line,
        lambda: _JetsonButton(_pin(line), active_low) if jetson else _GpiodButton(line, active_low),
    )


def open_lamp(settings: Settings) -> LampLine:
    """The line of the lamp, ``button.led``.

    Raises:
        GpioError: it cannot be had.
    """
    jetson, line = settings.backend == "jetson", settings.led
    return _tried("button.led", line, lambda: _JetsonLamp(_pin(line)) if jetson else _GpiodLamp(line))


def _tried(key: str, line: str, opened: Callable[[], T]) -> T:
    """What ``opened`` gives; every way in which it may fail is told with the remedy."""
    try:
        return opened()
    except ImportError as error:
        raise GpioError(
            f"{key} = {line!r}: {error}; install the extra `gpio` for button.backend gpiod, `orin` for jetson"
        ) from error
    except PermissionError as error:
        raise GpioError(
            f"{key} = {line!r}: no permission; add the user who runs this to the group of /dev/gpiochip* (`gpio`)"
        ) from error
    except (OSError, ValueError) as error:
        remedy = "`gpioinfo` lists the lines and who uses them"
        raise GpioError(f"{key} = {line!r}: {error}; {remedy}") from error


# libgpiod


def _find(line: str) -> tuple[str, int]:
    """The chip's device and the line's offset for ``gpiochip0:23``, or for a line's name on any chip."""
    import gpiod  # noqa: PLC0415 - optional

    if numbered := _NUMBERED.fullmatch(line):
        return f"/dev/{numbered[1]}", int(numbered[2])
    chips = [
        str(path) for path in sorted(Path("/dev").glob("gpiochip*")) if gpiod.is_gpiochip_device(str(path))
    ]
    if not chips:
        raise ValueError("there is no GPIO chip here (/dev/gpiochip*)")
    for chip in chips:
        with gpiod.Chip(chip) as opened:
            for offset in range(opened.get_info().num_lines):
                if opened.get_line_info(offset).name == line:
                    return chip, offset
    raise ValueError(f"no line has this name on {', '.join(chips)}; name it as gpiochip0:23 or by its name")


class _GpiodButton:
    def __init__(self, line: str, active_low: bool) -> None:
        import gpiod  # noqa: PLC0415 - optional
        from gpiod.line import Direction, Edge, Value  # noqa: PLC0415

        chip, self._offset = _find(line)
        self._active = Value.ACTIVE
        self._rising = gpiod.EdgeEvent.Type.RISING_EDGE
        # The kernel's own clock of edges is the monotonic one, and with ``active_low`` rising means pressed.
        wanted = gpiod.LineSettings(
            direction=Direction.INPUT, edge_detection=Edge.BOTH, active_low=active_low
        )
        self._request = gpiod.request_lines(
            chip, {self._offset: wanted}, consumer=_CONSUMER, event_buffer_size=_EDGES
        )

    def down(self) -> bool:
        return bool(self._request.get_value(self._offset) == self._active)

    def edges(self, timeout: float) -> Sequence[tuple[float, bool]]:
        if not self._request.wait_edge_events(timeout):
            return []
        events = self._request.read_edge_events(_EDGES)
        return [(event.timestamp_ns / 1e9, event.event_type == self._rising) for event in events]

    def close(self) -> None:
        self._request.release()


class _GpiodLamp:
    def __init__(self, line: str) -> None:
        import gpiod  # noqa: PLC0415 - optional
        from gpiod.line import Direction, Value  # noqa: PLC0415

        chip, self._offset = _find(line)
        self._values = (Value.INACTIVE, Value.ACTIVE)
        wanted = gpiod.LineSettings(direction=Direction.OUTPUT, output_value=Value.INACTIVE)
        self._request = gpiod.request_lines(chip, {self._offset: wanted}, consumer=_CONSUMER)

    def light(self, *, on: bool) -> None:
        self._request.set_value(self._offset, self._values[on])

    def close(self) -> None:
        try:
            self.light(on=False)
        finally:
            self._request.release()


# Jetson.GPIO


def _pin(line: str) -> int:
    """The pin of the 40-pin header that ``line`` names."""
    if line.isascii() and line.isdigit():
        return int(line)
    raise ValueError("no pin; button.backend jetson takes the number of a pin of the 40-pin header")


def _jetson() -> Any:
    """The module, set to the header's numbers.

    Raises:
        ValueError: this is no Jetson; the library raises a bare Exception while it is imported.
    """
    try:
        from Jetson import GPIO  # noqa: PLC0415 - optional
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"Jetson.GPIO: {error}") from error
    GPIO.setwarnings(False)  # they come from reading /dev/mem, which a service must not
    if GPIO.getmode() is None:
        GPIO.setmode(GPIO.BOARD)
    return GPIO


class _JetsonButton:
    """Looks at the line again and again: the library tells edges without their time, from a thread of its own."""

    def __init__(self, pin: int, active_low: bool) -> None:
        self._gpio = _jetson()
        self._pin = pin
        self._pressed = self._gpio.LOW if active_low else self._gpio.HIGH
        self._gpio.setup(pin, self._gpio.IN)
        self._last = self.down()

    def down(self) -> bool:
        return bool(self._gpio.input(self._pin) == self._pressed)

    def edges(self, timeout: float) -> Sequence[tuple[float, bool]]:
        end = time.monotonic() + timeout
        while True:
            now, level = time.monotonic(), self.down()
            if level != self._last:
                self._last = level
                return [(now, level)]
            if now >= end:
                return []
            time.sleep(_POLL_S)

    def close(self) -> None:
        self._gpio.cleanup(self._pin)


class _JetsonLamp:
    def __init__(self, pin: int) -> None:
        self._gpio = _jetson()
        self._pin = pin
        self._gpio.setup(pin, self._gpio.OUT, initial=self._gpio.LOW)

    def light(self, *, on: bool) -> None:
        self._gpio.output(self._pin, self._gpio.HIGH if on else self._gpio.LOW)

    def close(self) -> None:
        try:
            self.light(on=False)
        finally:
            self._gpio.cleanup(self._pin)
