"""The publisher thread: owns the event socket; what comes in as readings or events goes out numbered and encoded."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import zmq

from agent import sockets
from agent.config import Config
from agent.events import Event
from agent.mailbox import Mailbox, take_any
from agent.perception.types import Reading
from agent.publishing import Narrator
from agent.stage import Stage

_FLUSH_MS = 500  # what a living subscriber has not taken by then after a stop, it never gets


class PublisherStage(Stage):
    """Publishes readings and other events in the order in which they were put into their mailboxes.

    Nothing that a subscriber does or leaves undone can hold up ``send``: ZeroMQ keeps ``events.queue`` messages for
    each, and drops further ones for that subscriber alone.
    """

    def __init__(
        self,
        config: Config,
        labels: Sequence[str],
        readings: Mailbox[Reading],
        outbox: Mailbox[Event],
        before: "PublisherStage | None" = None,
    ) -> None:
        """Publish from two mailboxes that share their condition.

        Args:
            config: its ``events`` table and endpoint are used.
            labels: the pack's expressions, in the order of ``Emotion.probabilities``.
            readings: become ``face``, ``identity`` and ``emotion`` events.
            outbox: any other events; their ``seq`` is set here.
            before: the stage in whose place this is put, whose numbers go on.
        """
        super().__init__("publisher")
        self._endpoint = config.events_endpoint
        self._queue = config.events.queue
        self._encode = msgspec.json.encode if config.events.encoding == "json" else msgspec.msgpack.encode
        self._narrator: Narrator = Narrator(labels, before._narrator if before else None)
        self._boxes: tuple[Mailbox[Any], ...] = (readings, outbox)
        self._arrival = outbox.arrival
        self._counts: Counter[bytes] = before._counts.copy() if before else Counter()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open = ExitStack()
        self._open.callback(self._context.destroy, linger=_FLUSH_MS)

    @property
    def dropped(self) -> int:
        """Readings and events that fell out of their mailboxes before they could be published."""
        return sum(box.dropped for box in self._boxes)

    def work(self) -> None:
        """Publish until told to stop; what had come in by then still goes out."""
        try:
            socket = self._context.socket(zmq.PUB)
            socket.set(zmq.SNDHWM, self._queue)
            self._open.enter_context(sockets.bound(socket, self._endpoint))
            while not self.stopping.is_set():
                self.beat()
                self._publish(socket, take_any(self._boxes, self._arrival, timeout=0.2))
            for _ in range(sum(map(len, self._boxes))):
                self._publish(socket, take_any(self._boxes, self._arrival, timeout=0))
        finally:
            with self.acting():
                self.release()

    def release(self) -> None:
        """Close the socket, so that subscribers turn to the one that comes."""
        self._open.close()

    def _publish(self, socket: zmq.Socket[bytes], item: Reading | Event | None) -> None:
        """Send all events of one item; one part names the topic, the other holds the event."""
        if item is None:
            return
        for event in self._narrator.events(item) if isinstance(item, Reading) else [item]:
            topic = str(event.__struct_config__.tag).encode()
            numbered = msgspec.structs.replace(event, seq=self._counts[topic] + 1)
            body = self._encode(numbered)
            with self.acting():
                socket.send_multipart([topic, body], zmq.NOBLOCK)
                self._counts[topic] += 1
