"""Subscribers in processes of their own: whoever keeps up hears everything, whoever does not harms nobody."""

import json
import signal
import socket as sockets
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from agent.config import Config, Curve, Events
from agent.enrolment import ADVICE
from agent.events import Event, HealthEvent
from agent.gallery.types import LONGEST_NAME, Snapshot
from agent.listening import listen as hear
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Detection, Emotion, Face, Match, Pose, Quality, Reading, Stamp
from agent.sockets import EndpointError
from agent.stages.publisher import PublisherStage, longest

PATIENCE = 30.0
LABELS = ("happy", "neutral")
LAST = -1.0  # the uptime of the health event that ends a listener

# Says "ready" at its first message, then a number at each new health event that holds one; at the last message it
# tells what it has heard.
LISTENER = """
import json, sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.set(zmq.RCVHWM, 0)
socket.connect(sys.argv[1])
socket.subscribe("")
order, frames, numbers, uptime = [], [], {}, None
while uptime != -1.0:
    topic, body = socket.recv_multipart()
    event = json.loads(body)
    if not numbers:
        print("ready", flush=True)
    numbers.setdefault(topic.decode(), []).append(event["seq"])
    order.append(event["topic"])
    frames += [event["frame"]] if event["topic"] == "face" else []
    uptime = event.get("uptime", uptime)
    if event["topic"] == "health" and uptime > 0 and not event["repeats"]:
        print(uptime, flush=True)
print(json.dumps({"order": order, "frames": frames, "numbers": numbers}), flush=True)
"""


def health(uptime: float = 0.0) -> HealthEvent:
    return HealthEvent(
        monotonic=1.0,
        utc="2025-03-14T07:21:09.482113Z",
        uptime=uptime,
        pack="",
        people=0,
        cameras=(),
        fps=0.0,
        frame_ms={},
        stages={},
        rss_mb=0.0,
        cpu_percent=0.0,
        dropped=0,
    )


def reading(index: int, faces: int = 1, at: float | None = None) -> Reading:
    detection = Detection((10.0, 20.0, 110.0, 150.0), 0.98, np.zeros((5, 2), np.float32))
    quality = Quality(80.0, 200.0, 120.0, 40.0, Pose(1.0, 2.0, 3.0))
    emotion = Emotion(LABELS[index // 10 % 2], (0.5, 0.5))
    found = (Face(i, detection, False, quality, "seen", None, emotion) for i in range(faces))
    return Reading(
        Stamp("cabin", index, index / 30 if at is None else at, 1.7e9 + index / 30),
        tuple(found),
        (),
        {"detect": 5.0},
        6.0,
    )


class Publisher:
    """A publisher stage with its mailboxes as the daemon has them."""

    def __init__(self, endpoint: str, **events: object) -> None:
        arrival = threading.Condition()
        self.readings = Mailbox[Reading](256, arrival)
        self.outbox = Mailbox[Event](256, arrival)
        # Keys have tests of their own, in test_network.py.
        config = Config(events=Events(endpoint=endpoint, **events), curve=Curve(insecure=True))
        self.stage = PublisherStage(config, LABELS, Live(Snapshot(), config), self.readings, self.outbox)
        self.endpoint = endpoint

    def feed(self, first: int, end: int, faces: int = 1) -> None:
        """Put readings in as fast as they are published."""
        for index in range(first, end):
            assert self.readings.put_when_free(reading(index, faces), PATIENCE)

    def settle(self) -> None:
        """Wait until all that was put in has gone out."""
        deadline = time.monotonic() + PATIENCE
        while len(self.readings) or len(self.outbox):
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def endpoint(tmp_path) -> str:
    return f"ipc://{tmp_path}/run/e"


@pytest.fixture
def publish() -> Iterator[Callable[..., Publisher]]:
    """Starts publishers, and sees that each of them stops within two seconds."""
    made: list[Publisher] = []

    def make(endpoint: str, **events: object) -> Publisher:
        publisher = Publisher(endpoint, **events)
        made.append(publisher)
        publisher.stage.start()
        return publisher

    yield make
    for publisher in made:
        publisher.stage.stop()
        began = time.monotonic()
        assert publisher.stage.join(5)
        assert time.monotonic() - began < 2


@pytest.fixture
def listen() -> Iterator[Callable[[Publisher], subprocess.Popen[str]]]:
    """Starts a listener and waits until it hears; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def make(publisher: Publisher) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", LISTENER, publisher.endpoint]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        hears = threading.Event()

        def knock() -> None:
            while not hears.wait(0.02):
                publisher.outbox.put(health())

        knocking = threading.Thread(target=knock)
        knocking.start()
        try:
            assert process.stdout.readline() == "ready\n"
        finally:
            hears.set()
            knocking.join()
        publisher.settle()
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


def heard(process: "subprocess.Popen[str]", publisher: Publisher) -> dict:
    """What a listener has heard, once it has been told that this was the last."""
    publisher.outbox.put(health(LAST))
    output, _ = process.communicate(timeout=PATIENCE)
    return json.loads(output.splitlines()[-1])


def assert_without_gaps(numbers: dict[str, list[int]]) -> None:
    for topic, seen in numbers.items():
        assert seen == list(range(seen[0], seen[0] + len(seen))), topic


def test_a_subscriber_that_keeps_up_hears_everything_in_order(publish, listen, endpoint):
    publisher = publish(endpoint)
    listener = listen(publisher)
    publisher.feed(0, 2000)
    publisher.settle()
    told = heard(listener, publisher)
    assert told["frames"] == list(range(2000))
    assert told["numbers"]["face"] == list(range(1, 2001))
    assert_without_gaps(told["numbers"])
    assert len(told["numbers"]["identity"]) == 1
    assert len(told["numbers"]["emotion"]) == 200
    assert publisher.stage.dropped == 0


def test_a_frozen_and_a_killed_subscriber_slow_nobody_and_cost_no_memory(publish, listen, endpoint):
    publisher = publish(endpoint, queue=200)
    frozen, killed, lively = listen(publisher), listen(publisher), listen(publisher)
    frozen.send_signal(signal.SIGSTOP)
    killed.kill()
    for index in range(0, 3000, 50):  # 12 MB of JSON, of which the frozen one takes none
        publisher.feed(index, index + 50, faces=8)
        publisher.outbox.put(health(index + 1))
        assert lively.stdout.readline() == f"{index + 1}\n"  # it keeps up, on however busy a machine
        if index == 300:
            before = psutil.Process().memory_info().rss  # by now every buffer has been allocated once
    assert psutil.Process().memory_info().rss - before < 5e6
    told = heard(lively, publisher)
    assert told["frames"] == list(range(3000))
    assert_without_gaps(told["numbers"])
    assert publisher.stage.dropped == 0
    frozen.send_signal(signal.SIGCONT)


def test_who_comes_late_hears_what_comes_from_then_on(publish, listen, endpoint):
    publisher = publish(endpoint)
    publisher.feed(0, 500)
    publisher.settle()
    late = listen(publisher)
    publisher.feed(500, 600)
    publisher.settle()
    told = heard(late, publisher)
    assert told["frames"] == list(range(500, 600))
    assert told["numbers"]["face"] == list(range(501, 601))


def test_what_came_in_before_a_stop_still_goes_out(publish, listen, endpoint):
    publisher = publish(endpoint)
    listener = listen(publisher)
    for index in range(200):
        publisher.readings.put(reading(index))
    publisher.outbox.put(health(LAST))
    publisher.stage.stop()
    assert publisher.stage.join(2)
    output, _ = listener.communicate(timeout=PATIENCE)
    assert json.loads(output)["frames"] == list(range(200))


def test_a_stop_does_not_wait_for_a_frozen_subscriber(publish, listen, endpoint):
    publisher = publish(endpoint)
    frozen = listen(publisher)
    frozen.send_signal(signal.SIGSTOP)
    publisher.feed(0, 3000)
    publisher.stage.stop()
    assert publisher.stage.join(2)


def test_nobody_else_may_listen_and_nothing_stays_behind(publish, listen, endpoint):
    publisher = publish(endpoint)
    listen(publisher)
    path = Path(endpoint.removeprefix("ipc://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    publisher.stage.stop()
    assert publisher.stage.join(2)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_a_second_publisher_is_refused_and_the_first_goes_on(publish, listen, endpoint, kind, caplog):
    if kind == "tcp":
        with sockets.create_server(("127.0.0.1", 0)) as probe:
            endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    first = publish(endpoint)
    listener = listen(first)
    second = publish(endpoint)
    assert second.stage.join(5)
    assert isinstance(second.stage.failure, EndpointError)
    assert endpoint in str(second.stage.failure)
    assert "another program" in str(second.stage.failure)
    first.feed(0, 10)
    first.settle()
    assert heard(listener, first)["frames"] == list(range(10))


def test_the_socket_of_a_daemon_that_died_is_replaced(publish, listen, endpoint):
    path = Path(endpoint.removeprefix("ipc://"))
    path.parent.mkdir()
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    listen(publish(endpoint))


def test_a_file_that_is_no_socket_is_never_replaced(publish, endpoint):
    path = Path(endpoint.removeprefix("ipc://"))
    path.parent.mkdir()
    path.write_text("precious")
    publisher = publish(endpoint)
    assert publisher.stage.join(5)
    assert "is not a socket" in str(publisher.stage.failure)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "tcp://203.0.113.7:5555", "ipc://" + "/x" * 80, "ipc:///proc/e"]
)
def test_an_endpoint_that_cannot_be_is_named(publish, endpoint):
    publisher = publish(endpoint)
    assert publisher.stage.join(5)
    assert isinstance(publisher.stage.failure, EndpointError)
    assert endpoint in str(publisher.stage.failure)


def test_messages_can_be_messagepack(publish, endpoint):
    publisher = publish(endpoint, encoding="msgpack")
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.subscribe("face")
        index = 0
        while not socket.poll(20):
            publisher.feed(index, index + 1)
            index += 1
        topic, body = socket.recv_multipart()
    event = msgspec.msgpack.decode(body)
    assert topic == b"face"
    assert (event["topic"], event["camera"], event["schema"]) == ("face", "cabin", 1)
    assert event["seq"] == event["frame"] + 1


def test_events_of_both_mailboxes_come_in_the_order_in_which_they_were_put_in(publish, listen, endpoint):
    publisher = publish(endpoint)
    listener = listen(publisher)
    for index in range(50):
        publisher.readings.put(reading(index, faces=0))
        publisher.outbox.put(health(index + 1))
    told = heard(listener, publisher)
    assert_without_gaps(told["numbers"])
    assert told["order"][-101:] == ["face", "health"] * 50 + ["health"]


def test_one_that_connects_before_the_daemon_is_there_hears_it_later(publish, endpoint, tmp_path):
    (tmp_path / "run").mkdir()
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.subscribe("health")
        publisher = publish(endpoint)
        deadline = time.monotonic() + PATIENCE
        while not socket.poll(50):
            assert time.monotonic() < deadline
            publisher.outbox.put(health())


@pytest.fixture
def subscribe(endpoint) -> Iterator[Callable[..., zmq.Socket]]:
    context = zmq.Context()

    def make(*topics: str) -> zmq.Socket:
        socket = context.socket(zmq.SUB)
        for topic in topics:
            socket.subscribe(topic)
        socket.connect(endpoint)
        return socket

    yield make
    context.destroy(linger=0)


def next_event(socket: zmq.Socket, patience: float = PATIENCE) -> dict:
    assert socket.poll(patience * 1e3), "nothing came"
    return json.loads(socket.recv_multipart()[1])


def test_who_subscribes_late_learns_the_present_state_at_once(publish, subscribe, endpoint):
    publisher = publish(endpoint)
    now = time.monotonic()
    publisher.readings.put(reading(0, faces=3, at=now))
    publisher.readings.put(reading(10, faces=2, at=now))  # the third has gone
    publisher.outbox.put(health(5.0))
    publisher.settle()
    late = subscribe("identity", "emotion", "health")  # and nothing more is published
    told = [next_event(late) for _ in range(5)]
    assert {(each["topic"], each.get("track"), each["repeats"] > 0, each["valid"]) for each in told} == {
        ("identity", 0, True, True), ("identity", 1, True, True),
        ("emotion", 0, True, True), ("emotion", 1, True, True), ("health", None, True, True),
    }  # fmt: skip
    assert {each["label"] for each in told if each["topic"] == "emotion"} == {"neutral"}
    assert {each["frame"] for each in told if each["topic"] == "emotion"} == {10}


def test_who_was_there_before_can_tell_what_is_said_again_and_misses_no_number(publish, subscribe, endpoint):
    publisher = publish(endpoint)
    early = subscribe("identity")
    index = 0
    while not early.poll(50):
        publisher.readings.put(reading(index, faces=index, at=time.monotonic()))
        index += 1
    first = next_event(early)
    assert next_event(subscribe("identity"))["repeats"]
    heard = [first]
    while not heard[-1]["repeats"] >= first["seq"]:
        heard.append(next_event(early))
    publisher.readings.put(reading(index, faces=0, at=time.monotonic()))
    while heard[-1]["change"] != "lost":
        heard.append(next_event(early))
    numbers = [each["seq"] for each in heard]
    assert numbers == list(range(first["seq"], first["seq"] + len(heard)))
    assert not heard[-1]["repeats"]


def test_the_command_for_events_leaves_out_what_is_said_again(publish, subscribe, endpoint):
    publisher = publish(endpoint)
    publisher.readings.put(reading(0, at=time.monotonic()))
    said: list[str] = []
    heard = hear(endpoint, ["identity"], said.append)
    assert json.loads(next(heard))["change"] == "seen"
    witness = subscribe("identity")
    assert next_event(witness)["repeats"] > 0
    publisher.readings.put(reading(1, faces=0, at=time.monotonic()))
    assert json.loads(next(heard))["change"] == "lost"  # and no second time seen
    heard.close()
    assert said == []


def test_what_waits_for_a_stuck_subscriber_is_bounded_in_bytes_and_told(publish, listen, endpoint):
    publisher = publish(endpoint, queue=100_000, queue_mb=4.0)
    frozen, lively = listen(publisher), listen(publisher)
    frozen.send_signal(signal.SIGSTOP)
    for index in range(0, 4000, 50):  # 16 MB
        publisher.feed(index, index + 50, faces=8)
        publisher.outbox.put(health(index + 1))
        assert lively.stdout.readline() == f"{index + 1}\n"
        if index == 1000:
            before = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss - before < 6e6
    assert publisher.stage.stalled >= 1
    assert_without_gaps(heard(lively, publisher)["numbers"])
    frozen.send_signal(signal.SIGCONT)


def test_no_message_is_longer_than_the_queue_is_reckoned_with(publish, subscribe, endpoint):
    publisher = publish(endpoint)
    listener = subscribe("")
    quality = Quality(1234.56, 12345.678, 123.456, 123.456, Pose(-89.9, -89.9, -179.9), tuple(ADVICE))
    detection = Detection((-1e4 / 3, 1e4 / 3, 1e5 / 7, 1e5 / 9), 1 / 3, np.full((5, 2), -1e4 / 3, np.float32))
    match = Match("\N{GRINNING FACE}" * LONGEST_NAME, 1 / 3, -1 / 3, 1 / 3, "")
    emotion = Emotion("surprise" * 2, (0.5, 0.5))
    most = Config().detector.max_faces
    faces = tuple(Face(10**6 + i, detection, True, quality, "confirmed", match, emotion) for i in range(most))
    steps = {f"a_step_of_the_chain_{i}": 123.456 for i in range(12)}
    while not listener.poll(20):
        publisher.readings.put(Reading(Stamp("c" * 32, 10**9, 1e9 / 3, 2e9), faces, (), steps, 1e3 / 3))
    while (event := listener.recv_multipart())[0] != b"face":
        pass
    assert len(event[1]) > 0.5 * longest(Config())
    assert len(event[1]) <= longest(Config())


def test_whoever_subscribes_again_and_again_holds_up_nobody(publish, listen, subscribe, endpoint):
    publisher = publish(endpoint)
    listener = listen(publisher)
    restless = subscribe()
    for index in range(300):
        for number in range(20):
            restless.subscribe(f"identity{number}")
            restless.unsubscribe(f"identity{number}")
        restless.subscribe("identity")
        restless.unsubscribe("identity")
        publisher.feed(index, index + 1)
    publisher.settle()
    told = heard(listener, publisher)
    assert told["frames"][-300:] == list(range(300))
    assert_without_gaps(told["numbers"])
    assert len(told["numbers"]["identity"]) < 200  # said again for several at once


HUGE = """
import os, sys, time, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1])
socket.subscribe("x" * 3 * 10**6)
time.sleep(1)
os._exit(0)  # libzmq cannot take down so deep a tree
"""


def test_what_is_no_subscription_or_a_huge_one_is_not_minded(publish, listen, endpoint):
    publisher = publish(endpoint)
    listener = listen(publisher)
    huge = subprocess.Popen([sys.executable, "-c", HUGE, endpoint])
    before = psutil.Process().memory_info().rss
    while huge.poll() is None:
        assert psutil.Process().memory_info().rss < before + 20e6
        time.sleep(0.02)
    with zmq.Context() as context, context.socket(zmq.XSUB) as odd:
        odd.linger = 0
        odd.connect(endpoint)
        for frames in ([b""], [b"\x02x"], [b"hello"], [b"\x01\xff\xfe"], [b"\x01a", b"more"], [b"\x00never"]):
            odd.send_multipart(frames)
        publisher.feed(0, 50)
        publisher.settle()
        assert heard(listener, publisher)["frames"] == list(range(50))
    publisher.stage.stop()
    assert publisher.stage.join(2)
    assert publisher.stage.failure is None
