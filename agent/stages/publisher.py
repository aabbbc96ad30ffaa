"""The publisher thread: owns the event socket; what comes in as readings or events goes out numbered and encoded."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import zmq

from agent import sockets
from agent.config import Config
from agent.events import DriverEvent, Event
from agent.last_values import LastValues
from agent.live import Live
from agent.mailbox import Mailbox, take_any
from agent.perception.types import Reading
from agent.publishing import DriverNarrator, Narrator
from agent.stage import Stage

_NEWCOMER_S = 0.05  # how soon somebody who subscribes is heard, and how often at most something is said again
_MOST_SUBSCRIPTIONS = 1000  # heard in a row, so that nobody who keeps subscribing holds up the others
# Bytes that come in. Topics are short, messages of the CURVE handshake less so; of each byte of a topic that somebody
# subscribes to libzmq makes a node of a tree.
_MAX_SUBSCRIPTION = 4096
_EVENT_BYTES, _FACE_BYTES = 2000, 900  # of JSON: of an event without faces, and of each face
_FLUSH_MS = 500  # what a living subscriber has not taken by then after a stop, it never gets


class PublisherStage(Stage):
    """Publishes readings and other events in the order in which they were put into their mailboxes.

    Nothing that a subscriber does or leaves undone can hold up ``send``: ZeroMQ keeps ``events.queue`` messages for
    each, as long as they fit into ``events.queue_mb``, and drops further ones for that subscriber alone. Who subscribes
    is told at once what holds. ZeroMQ can send that only to all who want the topic, so it is marked as a repetition.

    Attributes:
        stalled: times that a subscriber was so slow that it began to miss messages.
    """

    def __init__(
        self,
        config: Config,
        labels: Sequence[str],
        live: Live,
        readings: Mailbox[Reading],
        outbox: Mailbox[Event],
        before: "PublisherStage | None" = None,
    ) -> None:
        """Publish from two mailboxes that share their condition.

        Args:
            config: its ``events`` table, endpoint and ``driver_camera`` are used.
            labels: the pack's expressions, in the order of ``Emotion.probabilities``.
            live: says by what to know the driver, and is told who that is.
            readings: become ``face``, ``identity``, ``emotion`` and ``driver`` events.
            outbox: any other events; their ``seq`` is set here.
            before: the stage in whose place this is put, whose numbers go on.
        """
        super().__init__("publisher")
        self._endpoint = config.events_endpoint
        self._curve = config.curve
        self._queue = min(config.events.queue, int(config.events.queue_mb * 2**20 / longest(config)) or 1)
        self._encode = msgspec.json.encode if config.events.encoding == "json" else msgspec.msgpack.encode
        self._narrator: Narrator = Narrator(labels, before._narrator if before else None)
        self._driver_camera = config.driver_camera
        self._driver_narrator: DriverNarrator = DriverNarrator(before._driver_narrator if before else None)
        self._live = live
        self._boxes: tuple[Mailbox[Any], ...] = (readings, outbox)
        self._arrival = outbox.arrival
        self._counts: Counter[str] = before._counts.copy() if before else Counter()
        self.stalled: int = before.stalled if before else 0
        # A track is lost lost_s after its camera's last frame, and said to be: what is older than that does not hold.
        self._last_values = LastValues(config.freshness.max_age_s + config.tracking.lost_s)
        self._newcomers: set[str] = set()
        self._welcomed = 0.0
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
            socket = self._context.socket(zmq.XPUB)
            socket.linger = 0  # while it runs: who is cut off gets no last words
            socket.xpub_verbose = True  # every subscription is told, also to a topic that others have
            socket.xpub_nodrop = True  # what a slow subscriber misses is told; see _send
            socket.maxmsgsize = _MAX_SUBSCRIPTION
            socket.sndhwm = self._queue
            door = self._open.enter_context(sockets.bound(socket, self._endpoint, self._curve))
            while not self.stopping.is_set():
                with self.acting():
                    well = door.tend()
                if well:
                    self.beat()
                self._publish(socket, take_any(self._boxes, self._arrival, timeout=_NEWCOMER_S))
                with self.acting():
                    self._welcome(socket)
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
        for event in self._events(item) if isinstance(item, Reading) else [item]:
            topic = str(event.__struct_config__.tag)
            with self.acting():
                numbered = msgspec.structs.replace(event, seq=self._number(topic))
                self._last_values.note(topic, numbered)
                self._send(socket, topic, numbered)
                if isinstance(numbered, DriverEvent):
                    self._live.driver = numbered

    def _events(self, reading: Reading) -> list[Event]:
        """All that is to be told after a reading."""
        events = self._narrator.events(reading)
        if reading.frame.camera == self._driver_camera:
            told = self._driver_narrator.event(reading, self._live.config.driver)
            events += [told] if told else []
        return events

    def _welcome(self, socket: zmq.Socket[bytes]) -> None:
        """Tell those who have subscribed what holds; however often somebody does, not more often than is useful."""
        for _ in range(_MOST_SUBSCRIPTIONS):
            if not socket.poll(0):
                break
            kind_and_topic = socket.recv_multipart()[0]
            if kind_and_topic[:1] == b"\1":
                self._newcomers.add(kind_and_topic[1:].decode(errors="replace"))
        now = time.monotonic()
        if not self._newcomers or now - self._welcomed < _NEWCOMER_S:
            return
        for topic, event in self._last_values.told_again(self._newcomers, now, self._number):
            self._send(socket, topic, event)
        self._newcomers.clear()
        self._welcomed = now

    def _number(self, topic: str) -> int:
        """The next number of a topic."""
        self._counts[topic] += 1
        return self._counts[topic]

    def _send(self, socket: zmq.Socket[bytes], topic: str, event: Event) -> None:
        """Send to all who want it and can take it."""
        message = [topic.encode(), self._encode(event)]
        try:
            socket.send_multipart(message, zmq.NOBLOCK)
        except zmq.Again:
            # Somebody's queue has just become full. ZeroMQ then leaves him out until he has caught up.
            self.stalled += 1
            socket.xpub_nodrop = False
            socket.send_multipart(message, zmq.NOBLOCK)
            socket.xpub_nodrop = True


def longest(config: Config) -> int:
    """Bytes that a message may have, on the generous side.

    ZeroMQ counts messages only, and to change that count while subscribers come and go crashes libzmq 4.3.5 (it
    writes to connections that are being closed), so it is reckoned once and beforehand.
    """
    return _EVENT_BYTES + _FACE_BYTES * config.detector.max_faces
