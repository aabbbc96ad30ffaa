"""Lines that are not there are named with what helps; real lines are tried out in tests/vm."""

import pytest

from agent.config import Button
from agent.gpio import GpioError, open_button, open_lamp


@pytest.mark.parametrize("line", ["gpiochip99:3", "/dev/gpiochip99:3", "no such line"])
def test_a_line_that_does_not_exist_is_named(line):
    pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    with pytest.raises(GpioError) as told:
        open_button(Button(line=line))
    assert f"button.line = {line!r}: " in str(told.value)
    assert "gpioinfo" in str(told.value)
    with pytest.raises(GpioError, match=r"button\.led = 'gpiochip99:4'"):
        open_lamp(Button(line=line, led="gpiochip99:4"))


def test_a_pin_of_the_header_is_a_number():
    with pytest.raises(
        GpioError, match=r"button\.line = 'PQ\.05': no pin; .* number of a pin of the 40-pin header"
    ):
        open_button(Button(line="PQ.05", backend="jetson"))


def test_without_a_jetson_its_library_is_refused_with_the_remedy():
    """Where Jetson.GPIO is not installed the extra is named; where it is, what it says of this machine."""
    with pytest.raises(GpioError, match=r"button\.line = '29': "):
        open_button(Button(line="29", backend="jetson"))
