"""The record button: edges of a real GPIO line, as the kernel simulates it, with a contact that bounces."""

import json

import pytest

_PRESSES = 100
_BUTTON = """
[button]
line = "record"
led = "record-lamp"
"""


@pytest.fixture
def button(car):
    """The service with a button; taken away again afterwards."""
    car.run(
        "sh /opt/rig/inside/gpio.sh && cp -a /etc/cabinsense/config.toml /root/ && "
        f"echo '{_BUTTON}' >>/etc/cabinsense/config.toml && systemctl restart cabinsense"
    )
    car.set_picture(moving=False)
    yield car
    car.run("cp -a /root/config.toml /etc/cabinsense/ && systemctl restart cabinsense")


def test_a_hundred_presses_that_bounce_begin_a_hundred_recordings_and_none_begins_two(button):
    """Each after a glitch that is no press, and each ended over the socket or by a long press; the lamp blinks."""
    people = button.disk()["people"]
    told = json.loads(button.python("press.py", str(_PRESSES)).splitlines()[-1])
    print(told)
    assert (told["started"], told["cancelled"], told["lit"]) == (_PRESSES, _PRESSES, _PRESSES)
    assert button.disk()["people"] == people
