"""The record button as the driver meets it: a press begins, a long one ends, and the lamp says what is going on."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from agent.config import Button as Settings
from agent.gallery.types import Snapshot
from agent.led import Sign
from agent.live import Live
from agent.stages import button as stage_module
from agent.stages.button import ButtonStage

SETTINGS = Settings(line="here", led="there", debounce_ms=20, long_press_s=1.5)


@dataclass
class Line:
    """A line that a test presses; its edges are stamped as the kernel does, when they happen."""

    pressed: bool = False
    gone: bool = False
    closed: bool = False
    changes: queue.Queue = field(default_factory=queue.Queue)

    def set(self, *levels: bool) -> None:
        """The contact takes these levels one after the other, a few milliseconds apart."""
        self.pressed = levels[-1]
        now = time.monotonic()
        for number, down in enumerate(levels):
            self.changes.put((now + number * 0.003, down))

    def down(self) -> bool:
        return self.pressed

    def edges(self, timeout: float) -> list[tuple[float, bool]]:
        if self.gone:
            raise OSError(19, "No such device")
        try:
            found = [self.changes.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self.changes.empty():
            found.append(self.changes.get())
        return found

    def close(self) -> None:
        self.closed = True


@dataclass
class Lamp:
    """A lamp that remembers."""

    on: bool = False
    changes: int = 0
    closed: bool = False

    def light(self, *, on: bool) -> None:
        assert on != self.on, "switched to what it is"
        self.on = on
        self.changes += 1

    def close(self) -> None:
        self.closed = True


@dataclass
class Car:
    """The stage with its line and its lamp."""

    live: Live
    line: Line
    lamp: Lamp
    stage: ButtonStage

    def hold(self, seconds: float) -> None:
        """Press and let go; the contact bounces."""
        self.line.set(True, False, True, False, True)
        time.sleep(seconds)
        self.line.set(False, True, False)

    def press(self) -> str | None:
        return self.live.presses.take(10)


@pytest.fixture
def car() -> Iterator[Car]:
    live, line, lamp = Live(Snapshot()), Line(), Lamp()
    made = Car(live, line, lamp, ButtonStage(SETTINGS, live, lambda _: line, lambda _: lamp))
    made.stage.start()
    yield made
    made.stage.stop()
    assert made.stage.join(5)
    assert line.closed
    assert lamp.closed


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_each_push_of_a_bouncing_button_is_one_press(car):
    for _ in range(5):
        car.hold(0.1)
        assert car.press() == "short"
    car.hold(1.7)
    assert car.press() == "long"
    time.sleep(0.3)
    assert len(car.live.presses) == 0


def test_presses_that_nobody_takes_do_not_pile_up(car):
    for _ in range(12):
        car.hold(0.05)
        time.sleep(0.05)
    wait_until(lambda: car.live.presses.dropped > 0)
    assert len(car.live.presses) <= 8


def test_the_lamp_shows_the_sign_and_goes_dark_again(car):
    car.live.sign = Sign("recording", time.monotonic(), "left", "too_dark")
    wait_until(lambda: car.lamp.changes > 10)
    car.live.sign = Sign("done", time.monotonic())
    wait_until(lambda: car.lamp.on)
    before = car.lamp.changes
    wait_until(lambda: not car.lamp.on)
    time.sleep(0.3)
    assert car.lamp.changes == before + 1  # steady in between


def test_without_a_lamp_the_button_works():
    live, line = Live(Snapshot()), Line()
    stage = ButtonStage(Settings(line="here", debounce_ms=20), live, lambda _: line)
    stage.start()
    line.set(True)
    time.sleep(0.1)
    line.set(False)
    assert live.presses.take(10) == "short"
    stage.stop()
    assert stage.join(5)
    assert stage.failure is None


def test_a_line_that_goes_away_is_told_and_taken_up_again_when_it_is_back(car, monkeypatch):
    monkeypatch.setattr(stage_module, "_RETRY_S", 0.2)
    car.line.gone = True
    wait_until(lambda: bool(car.stage.problem))
    assert "button.line = 'here': the line has gone: [Errno 19]" in car.stage.problem
    wait_until(lambda: car.lamp.closed)
    time.sleep(0.3)
    assert car.stage.alive
    car.line.gone = False
    wait_until(lambda: not car.stage.problem)
    car.hold(0.1)
    assert car.press() == "short"


def test_a_line_that_cannot_be_opened_is_told_and_the_stage_lives(caplog):
    pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    stage = ButtonStage(Settings(line="gpiochip99:3"), Live(Snapshot()))
    stage.start()
    wait_until(lambda: bool(stage.problem))
    assert "button.line = 'gpiochip99:3'" in stage.problem
    beaten = stage.beaten
    wait_until(lambda: stage.beaten != beaten)
    stage.stop()
    assert stage.join(2)
    assert stage.failure is None
