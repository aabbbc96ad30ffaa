"""Hear what a daemon publishes, and notice what was missed."""

from collections.abc import Callable, Collection, Generator

import msgspec
import zmq

from agent import sockets

_PULSE = "health"  # comes at an interval: heard even where it is not asked for, to know silence from quiet
_SILENCE_MS = 3000


class _Head(msgspec.Struct, frozen=True):
    """The part of an event that listening needs."""

    seq: int


def listen(
    endpoint: str, topics: Collection[str], say: Callable[[str], None]
) -> Generator[bytes, None, None]:
    """Every event published at ``endpoint`` as JSON, whichever way it was encoded, without end.

    Args:
        endpoint: ZeroMQ address of a daemon's events; it may come up later, or go and come back.
        topics: only these; all if empty.
        say: gets a sentence when events were missed, the daemon was started anew, or nothing is heard for 3 s.

    Raises:
        EndpointError: the endpoint is none.
    """
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, 0)  # who asks for events gets them all, however slow the terminal is
        for wanted in {*topics, _PULSE} if topics else ("",):
            socket.subscribe(wanted)
        sockets.connect(socket, endpoint)
        last: dict[str, int] = {}
        silent = False
        while True:
            if not socket.poll(_SILENCE_MS):
                if not silent:
                    say(f"nothing heard from {endpoint}; is the daemon running, and may you read its socket?")
                silent = True
                continue
            silent = False
            name, body = socket.recv_multipart()
            topic = name.decode()
            if topics and topic not in topics:
                continue
            text = body if body.startswith(b"{") else msgspec.json.encode(msgspec.msgpack.decode(body))
            seq = msgspec.json.decode(text, type=_Head).seq
            if news := _gap(topic, last.get(topic), seq):
                say(news)
            last[topic] = seq
            yield text


def _gap(topic: str, last: int | None, seq: int) -> str | None:
    """What two sequence numbers in a row tell; None if nothing is missing."""
    if last is None or seq == last + 1:
        return None
    if seq <= last:
        return f"{topic}: numbers start again at {seq}; the daemon was started anew"
    return f"{topic}: {seq - last - 1} messages missed before number {seq}"
