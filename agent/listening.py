"""Hear what a daemon publishes, and notice what was missed."""

from collections import defaultdict
from collections.abc import Callable, Collection, Generator

import msgspec
import zmq

from agent import sockets
from agent.config import Curve

_PULSE = "health"  # comes at an interval: heard even where it is not asked for, to know silence from quiet
_SILENCE_MS = 3000


class _Head(msgspec.Struct, frozen=True):
    """The part of an event that listening needs."""

    seq: int
    repeats: int = 0


class _Ear:
    """What has been heard of one topic."""

    def __init__(self) -> None:
        self.first = self.last = 0

    def hear(self, head: _Head) -> str | None:
        """Take note of a message; what its number tells, None if nothing is missing."""
        last, self.last = self.last, head.seq
        if not last or head.seq <= last:
            self.first = head.seq
        if not last or head.seq == last + 1:
            return None
        if head.seq <= last:
            return f"numbers start again at {head.seq}; the daemon was started anew"
        return f"{head.seq - last - 1} messages missed before number {head.seq}"

    def knows(self, head: _Head) -> bool:
        """The message repeats one that was heard; somebody else has just subscribed."""
        return head.repeats >= self.first


def listen(
    endpoint: str, topics: Collection[str], say: Callable[[str], None], curve: Curve | None = None
) -> Generator[bytes, None, None]:
    """Every event published at ``endpoint`` as JSON, whichever way it was encoded, without end.

    What is repeated for others who have just subscribed is left out.

    Args:
        endpoint: ZeroMQ address of a daemon's events; it may come up later, or go and come back.
        topics: only these; all if empty.
        say: gets a sentence when events were missed, the daemon was started anew, it does not let us in, or nothing
            is heard for 3 s.
        curve: keys, for an endpoint that asks for them.

    Raises:
        EndpointError: the endpoint is none.
        KeysError: it asks for keys, and ``curve`` has none that can be used.
    """
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as socket,
        sockets.handshakes(socket) as monitor,
    ):
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, 0)  # who asks for events gets them all, however slow the terminal is
        for wanted in {*topics, _PULSE} if topics else ("",):
            socket.subscribe(wanted)
        sockets.connect(socket, endpoint, curve)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        ears: defaultdict[str, _Ear] = defaultdict(_Ear)
        told: set[str] = set()  # of the silence that goes on
        while True:
            ready = dict(poller.poll(_SILENCE_MS))
            if socket not in ready:
                if monitor not in ready:
                    news = (
                        f"nothing heard from {endpoint}; is the daemon running, and may you read its socket?"
                    )
                elif sockets.refused(monitor):
                    news = sockets.ask_for_entry(endpoint)
                else:
                    continue
                if news not in told:
                    say(news)
                told.add(news)
                continue
            told.clear()
            name, body = socket.recv_multipart()
            topic = name.decode()
            if topics and topic not in topics:
                continue
            text = body if body.startswith(b"{") else msgspec.json.encode(msgspec.msgpack.decode(body))
            head = msgspec.json.decode(text, type=_Head)
            if gap := ears[topic].hear(head):
                say(f"{topic}: {gap}")
            if not ears[topic].knows(head):
                yield text
