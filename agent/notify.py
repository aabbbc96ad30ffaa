"""Tell the service manager how the agent is, by the protocol of sd_notify(3): one datagram a message.

The few lines are our own, so that a service needs nothing that is compiled. Outside systemd nothing is sent.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_EXTEND_S = 20.0  # how long each word from a start that is under way lets the manager wait for the next
_TOLD_EVERY_S = 1.0  # the state in words
_PULSES = 3  # signs of life within the time after which the manager takes the process for dead


class Notifier:
    """Says what is new: ready, alive, the state in words, reloading, stopping. For one thread at a time."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Talk to the datagram socket at ``address``, a path or ``@`` and an abstract name; empty: to nobody.

        Args:
            address: as in ``NOTIFY_SOCKET``.
            watchdog_s: seconds without a sign of life after which the manager takes the process for dead; 0: it does
                not watch.
        """
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._ready = False
        self._pulsed = self._told = float("-inf")

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "Notifier":
        """As systemd asks for it; takes its variables away, so that no child process answers in our name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if not address.startswith(("/", "@")):  # an address of another kind, as virtual machines have
            address = ""
        return cls(address, int(period) / 1e6 if meant and period.isdecimal() else 0.0)

    def tell(self, now: float, *, ready: bool, well: bool, status: str) -> None:
        """Say how it is; to be called several times a second.

        Args:
            now: monotonic seconds.
            ready: the service does its work. Said once, and only then the manager's watchdog begins to watch.
            well: every part is alive. While it is not, no sign of life is sent: the manager then ends the process.
            status: the state in words.
        """
        words = []
        if ready and not self._ready:
            self._ready = self._send("READY=1")
        if well and self._ready and self.watchdog_s and now - self._pulsed >= self.watchdog_s / _PULSES:
            self._pulsed = now
            words.append("WATCHDOG=1")
        if now - self._told >= _TOLD_EVERY_S:
            self._told = now
            words.append(f"STATUS={status.replace(chr(10), ' ')}")
            if well and not self._ready:
                words.append(f"EXTEND_TIMEOUT_USEC={round(_EXTEND_S * 1e6)}")
        if words:
            self._send(*words)

    def reloading(self) -> None:
        """The configuration is being read again; ``reloaded`` must follow."""
        if self._ready:  # before that, the READY=1 of ``reloaded`` would end the start too early
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """It has been read."""
        if self._ready:
            self._ready = self._send("READY=1")  # if it did not get through, ``tell`` says it again

    def stopping(self) -> None:
        """The service ends because it was asked to, or has failed."""
        self._send("STOPPING=1")

    def _send(self, *words: str) -> bool:
        """Send one message; False if nobody took it. Never waits: a manager that is busy is told again later."""
        if not self._address:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.setblocking(False)
            door.connect(self._address)
            return door.send("\n".join(words).encode()) > 0
        return False
