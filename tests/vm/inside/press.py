"""Inside the guest, as root: press the record button of the running service many times, and count what comes of it.

    python press.py [PRESSES] [CHIP]

The line is simulated by the kernel (gpio-sim), the edges and the levels are real ones, and the contact bounces. It
expects

- a gpio-sim chip that is live, made under ``/sys/kernel/config/gpio-sim/CHIP/bank`` (CHIP is ``button`` if not given),
  of which line 0 is the button and line 1 the lamp; ``pull-down`` is pressed, for the button connects its line to
  ground;
- the service running with ``[button] line`` and ``led`` naming these lines, and the agent's own interpreter and
  settings, so that ``agent.config.load`` says where its sockets are;
- a camera that delivers pictures which nobody can be enrolled from, or none: no recording must end by itself within a
  second.

Each press must begin one recording, for somebody who has no name yet. Every tenth is ended by a long press of the
button, the others over the socket. A glitch shorter than the debounce time comes before each press and must do nothing.
Prints JSON, and ends with status 1 if a count is wrong.
"""

import json
import random
import sys
import time
from pathlib import Path

import zmq

from agent.config import load
from agent.control import Cancel, Done, request

_CONFIG = Path("/sys/kernel/config/gpio-sim")
_BOUNCES = 6
_PATIENCE_S = 30.0


class Contact:
    """The button's line and the lamp's, as sysfs has them."""

    def __init__(self, chip: str) -> None:
        bank = _CONFIG / chip
        device = (bank / "dev_name").read_text().strip()
        lines = Path("/sys/devices/platform", device, (bank / "bank" / "chip_name").read_text().strip())
        self._pull = lines / "sim_gpio0" / "pull"
        self._lamp = lines / "sim_gpio1" / "value"
        self._chance = random.Random(1)  # noqa: S311 - the same bounces each time
        self.edges = 0

    def _set(self, *, down: bool) -> None:
        self._pull.write_text("pull-down" if down else "pull-up")
        self.edges += 1

    def move(self, *, down: bool) -> None:
        """Close or open the contact, which bounces for some milliseconds."""
        for _ in range(self._chance.randint(0, _BOUNCES)):
            self._set(down=down)
            time.sleep(self._chance.uniform(0, 0.002))
            self._set(down=not down)
            time.sleep(self._chance.uniform(0, 0.002))
        self._set(down=down)

    def glitch(self) -> None:
        """Interference."""
        self._set(down=True)
        self._set(down=False)

    def press(self, seconds: float) -> None:
        """Hold it down for so long."""
        self.move(down=True)
        time.sleep(seconds)
        self.move(down=False)

    def lit(self) -> bool:
        return self._lamp.read_text().strip() == "1"


def main(presses: int, chip: str) -> int:
    config, contact = load(), Contact(chip)
    long_s, rest_s = config.button.long_press_s + 0.3, config.button.debounce_ms / 1e3 * 3
    told = {"started": 0, "cancelled": 0}
    names, lit = set(), 0
    contact.move(down=False)
    with zmq.Context() as context, context.socket(zmq.SUB) as door:
        door.subscribe("enrollment")
        door.connect(config.events_endpoint)
        time.sleep(1)
        for number in range(presses):
            contact.glitch()
            time.sleep(rest_s)
            contact.press(0.15)
            names.add(_wait(door, told, "started")["person"])
            time.sleep(0.3)
            lit += _blinks(contact)
            if number % 10 == 9:
                contact.press(long_s)
            else:
                request(config.control_endpoint, Cancel(), Done, _PATIENCE_S)
            assert _wait(door, told, "refused")["reason"] == "cancelled"
            told["cancelled"] += 1
            time.sleep(rest_s)
        time.sleep(2)
        while door.poll(0):
            told["started"] += json.loads(door.recv_multipart()[1])["state"] == "started"
    counted = {"presses": presses, "edges": contact.edges, "lit": lit, "names": sorted(names)} | told
    sys.stdout.write(json.dumps(counted) + "\n")
    return 0 if told == {"started": presses, "cancelled": presses} and lit == presses else 1


def _wait(door: "zmq.Socket[bytes]", told: dict[str, int], state: str) -> dict[str, str]:
    """The next event with this state; recordings that begin meanwhile are counted."""
    deadline = time.monotonic() + _PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        if door.poll(left * 1e3):
            event: dict[str, str] = json.loads(door.recv_multipart()[1])
            told["started"] += event["state"] == "started"
            if event["state"] == state:
                return event
    raise SystemExit(f"no event {state} within {_PATIENCE_S:.0f} s; so far: {told}")


def _blinks(contact: Contact) -> bool:
    """Whether the lamp is seen both lit and dark while somebody is recorded."""
    seen: set[bool] = set()
    deadline = time.monotonic() + 5
    while len(seen) < 2 and time.monotonic() < deadline:
        seen.add(contact.lit())
        time.sleep(0.01)
    return len(seen) == 2


if __name__ == "__main__":
    sys.exit(
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, sys.argv[2] if len(sys.argv) > 2 else "button")
    )
