"""The worker process: takes chips from the ring, decides from time to time, and says so.

``python -m agent.adaptation.worker SOCKET PARENT`` is started by ``agent.adaptation.process``, and by nobody else.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.adaptation.messages import (
    Beat,
    Begin,
    Decided,
    Failed,
    Inbox,
    MessageError,
    decided,
    frame,
    to_worker,
)
from agent.adaptation.ring import RingReader, Shape
from agent.adaptation.types import Adapts
from agent.config import AdaptationSettings
from engines.errors import UserError

Make = Callable[[Path, AdaptationSettings, int], Adapts]
"""Makes an adapter for the face network in a file, by settings and a seed."""

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_BEAT_S = 0.2
_LOOK_S = 0.05  # how long chips may wait while there is nothing to do


def serve(channel: socket.socket, make: Make) -> None:
    """Adapt until the daemon closes its end of ``channel``.

    Raises:
        MessageError: the daemon does not speak our language.
    """
    inbox = Inbox()
    begin = _first(channel, inbox)
    os.nice(begin.settings.nice)
    pulse = _Pulse(channel)
    pulse.start()
    try:
        adapter = make(Path(begin.face), begin.settings, begin.seed)
        ring = RingReader(begin.ring, Shape(begin.side, begin.labels, begin.slots))
        _adapt(channel, inbox, pulse, adapter, ring, begin)
    except UserError as error:  # such as a pack without a norm bank: its words say all
        pulse.say(Failed(str(error)[:2000]))
        raise SystemExit(1) from None
    except Exception as error:  # the boundary of the process: the daemon says what becomes of it
        pulse.say(Failed(f"{type(error).__name__}: {error}"[:2000]))
        raise


def _first(channel: socket.socket, inbox: Inbox) -> Begin:
    """What to do; raises MessageError if the daemon says something else."""
    while True:
        select.select([channel], [], [])
        open_still = inbox.receive(channel)
        for body in inbox.bodies():
            message = to_worker.decode(body)
            if isinstance(message, Begin):
                return message
            raise MessageError(f"{type(message).__name__} before Begin")
        if not open_still:
            raise SystemExit(0)


def _adapt(
    channel: socket.socket, inbox: Inbox, pulse: "_Pulse", adapter: Adapts, ring: RingReader, begin: Begin
) -> None:
    settings, epoch = begin.settings, begin.epoch
    due, fresh = 0.0, False
    pulse.rest()
    while True:
        if select.select([channel], [], [], _LOOK_S)[0]:
            if not inbox.receive(channel):
                return
            for body in inbox.bodies():
                message = to_worker.decode(body)
                if not isinstance(message, Begin):
                    epoch, fresh = message.epoch, False
                    adapter.reset(message.reason)
        for _ in range(begin.slots):
            found = ring.take()
            if found is None:
                break
            sample, of = found
            if of == epoch:
                adapter.observe(sample)
                fresh = True
        began = time.monotonic()
        if not fresh or began < due:
            continue
        fresh = False
        pulse.work()
        proposal = adapter.propose()
        pulse.rest()
        ended = time.monotonic()
        due = max(began + settings.every_s, ended + (ended - began) * (1 / settings.duty - 1))
        if proposal is not None:
            pulse.say(decided(proposal, epoch, ended - began))


class _Pulse(threading.Thread):
    """Says that the worker is alive, also while it decides, and since when it does."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(name="pulse", daemon=True)
        self._channel = channel
        self._lock = threading.Lock()
        self._since: float | None = time.monotonic()
        self._ready = False

    def work(self) -> None:
        """A decision begins."""
        self._since = time.monotonic()

    def rest(self) -> None:
        """It has been made."""
        self._since, self._ready = None, True

    def say(self, message: Beat | Decided | Failed) -> None:
        """Send a message; a daemon that has gone away is told nothing."""
        with self._lock, contextlib.suppress(ConnectionError):
            self._channel.sendall(frame(message))

    def run(self) -> None:
        while True:
            since = self._since
            self.say(Beat(time.monotonic() - since if since is not None else 0.0, self._ready))
            time.sleep(_BEAT_S)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that has started it ends; process ``parent`` is to be alive."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the kernel knew
        raise SystemExit(0)


def main(make: Make) -> None:
    """The process: ``sys.argv`` ends with the descriptor of its socket and the number of its parent."""
    descriptor, parent = (int(each) for each in sys.argv[-2:])
    die_with(parent)
    with socket.socket(fileno=descriptor) as channel:
        serve(channel, make)


if __name__ == "__main__":
    # Only the process needs an adapter, and only it is to wait for the libraries behind one.
    from agent.adaptation.tiers import adapter_of_pack

    main(adapter_of_pack)
