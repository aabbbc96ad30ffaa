"""`cabinsense events` shows what a daemon publishes, and says what it did not hear."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

from agent.events import TOPICS, Event
from agent.events_doc import EXAMPLES


@pytest.fixture
def endpoint(tmp_path) -> str:
    return f"ipc://{tmp_path}/e"


class Daemon:
    """Publishes what it is told, again and again, as a daemon does."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.bind(endpoint)
        self._done = threading.Event()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def send(self, event: Event, seq: int, encode: Callable[[Event], bytes] = msgspec.json.encode) -> None:
        numbered = msgspec.structs.replace(event, seq=seq)
        self._socket.send_multipart([str(event.__struct_config__.tag).encode(), encode(numbered)])

    def send_until(
        self, done: Callable[[], bool], encode: Callable[[Event], bytes] = msgspec.json.encode
    ) -> None:
        """All examples in turn, numbered from 1."""
        deadline = time.monotonic() + 30
        seq = 0
        while not done():
            assert time.monotonic() < deadline
            seq += 1
            for event in EXAMPLES.values():
                self.send(event, seq, encode)
            time.sleep(0.01)


@pytest.fixture
def start(endpoint) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def make(*arguments: str, **pipes: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "agent", "events", "--endpoint", endpoint, *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | pipes
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode])
def test_events_are_printed_as_json_lines_however_they_were_encoded(start, endpoint, encode):
    with Daemon(endpoint) as daemon:
        process = start("--count", "10")
        daemon.send_until(lambda: process.poll() is not None, encode)
    output, errors = process.communicate()
    assert process.returncode == 0
    assert not errors
    events = [json.loads(line) for line in output.splitlines()]
    assert len(events) == 10
    assert {event["topic"] for event in events} == set(TOPICS)
    (identity, *_) = (event for event in events if event["topic"] == "identity")
    assert msgspec.convert(identity, type(EXAMPLES["identity"])).person == "Ada"


def test_only_the_topics_asked_for_are_printed(start, endpoint):
    with Daemon(endpoint) as daemon:
        process = start("--topic", "identity", "-t", "emotion", "--count", "6")
        daemon.send_until(lambda: process.poll() is not None)
    output, errors = process.communicate()
    assert [json.loads(line)["topic"] for line in output.splitlines()] == ["identity", "emotion"] * 3
    assert not errors


def test_missed_messages_and_a_new_start_of_the_daemon_are_told(start, endpoint):
    identity = EXAMPLES["identity"]
    with Daemon(endpoint) as daemon:
        process = start("--topic", "identity")
        heard = threading.Event()

        def listen() -> None:
            process.stdout.readline()
            heard.set()

        threading.Thread(target=listen, daemon=True).start()
        last = 0
        while not heard.wait(0.02):
            last += 1
            daemon.send(identity, last)
        for seq in (last + 9, last + 10, last + 14, 1, 777):
            daemon.send(identity, seq)
        while json.loads(process.stdout.readline())["seq"] != 777:
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors.splitlines() == [
        f"identity: 8 messages missed before number {last + 9}",
        f"identity: 3 messages missed before number {last + 14}",
        "identity: numbers start again at 1; the daemon was started anew",
        "identity: 775 messages missed before number 777",
    ]


def test_silence_is_told_and_ctrl_c_ends_it_quietly(start, endpoint):
    process = start()
    assert process.stderr.readline() == (
        f"nothing heard from {endpoint}; is the daemon running, and may you read its socket?\n"
    )
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_reader_that_goes_away_ends_it_quietly(start, endpoint):
    with Daemon(endpoint) as daemon:
        process = start()
        head = subprocess.Popen(["head", "-n", "2"], stdin=process.stdout, stdout=subprocess.PIPE)
        process.stdout.close()
        daemon.send_until(lambda: process.poll() is not None)
        assert len(head.communicate()[0].splitlines()) == 2
    assert process.stderr.read() == ""


def test_a_topic_or_an_endpoint_that_cannot_be_is_refused(start):
    process = start("--topic", "weather")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "weather" in errors
    process = start("--endpoint", "somewhere")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: somewhere" in errors
