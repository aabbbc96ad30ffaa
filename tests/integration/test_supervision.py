"""Whatever happens to a stage, it is found in time and started anew, and nobody is told anything wrong meanwhile."""

import socket
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from agent.config import Config, parse
from agent.control import (
    ControlError,
    GetStatus,
    ListPeople,
    People,
    Record,
    Recorded,
    Status,
    request,
)
from agent.daemon import Daemon, DaemonError
from agent.gallery.store import Gallery
from agent.live import Live
from agent.samples import clip
from agent.stage import Stage
from tests.integration.faults import Faults

LIMIT_S = 1.5
BUSY_S = 5.0  # what a busy machine may add to a limit
PATIENCE_S = 30.0  # for what must happen, however busy the machine
MAN = "Carl"
"""How the man in the clip is enrolled."""


def wait_until(condition: Callable[[], object], what: str = "it never came to that") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Witness:
    """A subscriber who checks each event against all that came before it."""

    def __init__(self, endpoint: str) -> None:
        self.wrong: list[str] = []
        self.counts: dict[str, int] = defaultdict(int)
        self.confirmed = 0
        self.present: set[tuple[str, int]] = set()
        self.lost: set[tuple[str, int]] = set()
        self._seq: dict[str, int] = defaultdict(int)
        self._frame: dict[str, int] = defaultdict(lambda: -1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(endpoint,))
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def hears(self, *topics: str) -> None:
        """Wait for more events of each of the topics."""
        before = dict(self.counts)
        wait_until(
            lambda: all(self.counts[topic] > before.get(topic, 0) for topic in topics), f"no more {topics}"
        )

    def _listen(self, endpoint: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.subscribe("")
            socket.connect(endpoint)
            while not self._ended.is_set():
                if socket.poll(50):
                    self._check(msgspec.json.decode(socket.recv_multipart()[1]))

    def _check(self, event: dict) -> None:
        topic, camera = event["topic"], event["camera"]
        if event["seq"] <= self._seq[topic]:
            self.wrong.append(f"{topic} {event['seq']} after {self._seq[topic]}")
        self._seq[topic] = event["seq"]
        if event["valid"] and time.monotonic() - event["monotonic"] > 10 * LIMIT_S:
            self.wrong.append(f"{topic} about the past")
        if topic == "face":
            if event["frame"] <= self._frame[camera]:
                self.wrong.append(f"frame {event['frame']} after {self._frame[camera]}")
            self._frame[camera] = event["frame"]
            self.present = {(camera, face["track"]) for face in event["faces"]}
            for face in event["faces"]:
                self._check_track(camera, face["track"], face["person"])
        if topic == "identity":
            self._check_track(camera, event["track"], event["person"], lost=event["change"] == "lost")
            self.confirmed += event["change"] == "confirmed"
        self.counts[topic] += 1

    def _check_track(self, camera: str, track: int, person: str | None, *, lost: bool = False) -> None:
        if (camera, track) in self.lost:
            self.wrong.append(f"track {track} came back")
        if person not in (None, MAN):
            self.wrong.append(f"track {track} is {person}")
        if lost:
            self.lost.add((camera, track))


class Running:
    """A daemon in this process, whose stages can be struck."""

    def __init__(self, config: Config, pack) -> None:
        self.config = config
        self.faults = Faults()
        self._others = set(threading.enumerate())
        with Gallery.open(config.gallery_path) as gallery:
            live = Live(gallery.snapshot(pack.manifest.digest))
        self.daemon = Daemon(config, pack, live)
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for_work(self) -> None:
        """Wait until every stage has begun."""
        posts = self.daemon.posts
        wait_until(
            lambda: self.error or (self.daemon.times.frames and len(self.daemon._stages) == len(posts))
        )
        wait_until(lambda: self.error or all(stage.beaten for stage in self.daemon._stages.values()))
        assert self.error is None

    def _run(self) -> None:
        try:
            self.daemon.run()
        except Exception as error:
            self.error = error

    def stage(self, name: str):
        return self.daemon._stages[name]

    def ask(self, what=None, expect=Status, timeout_s: float = PATIENCE_S):
        config = self.config
        return request(config.control_endpoint, what or GetStatus(), expect, timeout_s, curve=config.curve)

    def wait_for_successor(self, struck: Stage) -> None:
        name = struck.name
        wait_until(
            lambda: self.stage(name) is not struck and self.stage(name).beaten, f"{name} was not started anew"
        )

    def wait_for_end(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it did not end"

    def close(self) -> None:
        self.daemon.stop()
        self.faults.end()
        self.wait_for_end()
        for stage in (*self.daemon._stages.values(), *self.daemon._given_up):
            assert stage.join(PATIENCE_S), f"{stage.name} never woke up"
        leftover = set(threading.enumerate()) - self._others
        wait_until(lambda: not any(thread.is_alive() for thread in leftover), f"{leftover} never ended")


class Client(threading.Thread):
    """Somebody who asks the daemon for something, and waits."""

    def __init__(self, running: Running, what, expect) -> None:
        super().__init__()
        self.refused: str | None = None
        self._ask = lambda: running.ask(what, expect)
        self.start()

    def run(self) -> None:
        try:
            self._ask()
        except ControlError as error:
            self.refused = error.code


def configured(folder: Path, pack, more: str = "", events: str = "", control: str = "") -> Config:
    text = (
        f'pack = "{pack.path}"\n[[cameras]]\nname = "cabin"\nsource = "{clip()}"\nloop = true\n'
        f'[gallery]\npath = "{folder}/gallery.db"\n'
        f'[events]\nendpoint = "{events or f"ipc://{folder}/e"}"\nhealth_s = 0.3\n'
        f'[control]\nendpoint = "{control or f"ipc://{folder}/c"}"\n'
        f"[supervision]\nstall_s = {LIMIT_S}\ndisk_s = {LIMIT_S}\n{more}\n"
    )
    return parse(text.encode(), "test.toml")


@pytest.fixture(scope="module")
def running(tmp_path_factory, pack, samples) -> Iterator[Running]:
    """A daemon that knows the man in the clip, and may start stages anew as often as this file wants."""
    folder = tmp_path_factory.mktemp("running")
    more = f'restarts = 1000\n[button]\nline = "/dev/gpiochip99:1"\n[metrics]\nlisten = "unix:{folder}/m"'
    made = Running(configured(folder, pack, more), pack)
    made.wait_for_work()
    made.ask(Record(name=MAN, seconds=1.0), Recorded)
    yield made
    made.close()
    assert made.error is None


@pytest.fixture(scope="module")
def witness(running) -> Iterator[Witness]:
    made = Witness(running.config.events_endpoint)
    made.hears("face", "health")
    yield made
    made.close()


STAGES = {
    "publisher": "events",  # a function of the stage in which it is made to stand still
    "control": "turn",
    "perception": "run",
    "health": "_report",
    "button": "beat",
    "metrics": "beat",
    "camera cabin": "beat",
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", ["frozen", "killed", "raising"])
@pytest.mark.parametrize("name", STAGES)
def test_each_stage_frozen_killed_and_raising_is_started_anew_and_nobody_is_told_wrong(
    running, witness, name, fault
):
    restarts, struck = running.daemon.restarts.get(name, 0), running.stage(name)
    confirmed, tracks = witness.confirmed, witness.present
    gate = None
    if fault == "frozen":
        gate = running.faults.freeze(struck._thread, STAGES[name])
    else:
        running.faults.strike(struck._thread, SystemExit if fault == "killed" else RuntimeError)
    began = time.monotonic()
    wait_until(
        lambda: running.daemon.restarts.get(name, 0) > restarts, f"nobody noticed what happened to {name}"
    )
    assert time.monotonic() - began < (LIMIT_S if gate else 0) + BUSY_S
    running.wait_for_successor(struck)

    witness.hears("face", "health")
    assert running.ask().health is not None
    if name == "perception":  # who it is has been decided anew, on tracks of their own
        wait_until(
            lambda: tracks <= witness.lost, "the tracks that nobody follows any more were not told as lost"
        )
        wait_until(lambda: witness.confirmed > confirmed, "the man was not recognised again")

    if gate:
        gate.opened.set()  # the one that was given up wakes up, and goes on where it was
    assert struck.join(PATIENCE_S)
    witness.hears("face", "health")
    assert witness.wrong == []
    assert running.error is None


@pytest.fixture
def start(tmp_path, pack, samples) -> Iterator[Callable[..., Running]]:
    """Starts a daemon with sockets of its own, and sees that it ends."""
    started: list[Running] = []

    def make(events: str = "", control: str = "") -> Running:
        made = Running(configured(tmp_path, pack, "[curve]\ninsecure = true", events, control), pack)
        started.append(made)
        made.wait_for_work()
        return made

    yield make
    for each in started:
        each.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_sixth_failure_within_a_minute_ends_the_daemon(start):
    running = start()
    for _ in range(5):
        struck = running.stage("health")
        running.faults.strike(struck._thread, RuntimeError)
        running.wait_for_successor(struck)
    running.faults.strike(running.stage("camera cabin")._thread, SystemExit)
    running.wait_for_end()
    assert isinstance(running.error, DaemonError)
    assert "stage camera cabin failed" in str(running.error)
    assert "5 times within 60 s" in str(running.error)


def test_subscribers_and_clients_on_a_network_come_back_to_the_new_stage_too(start):
    running = start(events=f"tcp://127.0.0.1:{free_port()}", control=f"tcp://127.0.0.1:{free_port()}")
    witness = Witness(running.config.events_endpoint)
    try:
        witness.hears("face", "health")
        struck = [running.stage(name) for name in ("publisher", "control")]
        gates = [running.faults.freeze(stage._thread, STAGES[stage.name]) for stage in struck]
        for stage in struck:
            running.wait_for_successor(stage)
        witness.hears("face", "health")
        assert running.ask().health is not None
        for gate in gates:
            gate.opened.set()
        witness.hears("face", "health")
        assert running.ask().health is not None
        assert witness.wrong == []
    finally:
        witness.close()


def test_who_is_being_recorded_when_the_control_stage_hangs_is_told_that_it_is_over(start):
    running = start()
    client = Client(running, Record(name="Half", seconds=20.0), Recorded)
    wait_until(running.daemon._live.recording.is_set)
    control = running.stage("control")
    running.faults.freeze(control._thread, "turn")
    client.join(PATIENCE_S)
    assert client.refused == "stopping"
    running.wait_for_successor(control)
    wait_until(lambda: not running.daemon._live.recording.is_set())
    assert running.ask(ListPeople(), People).people == ()


def test_a_stage_that_hangs_while_it_writes_the_gallery_ends_the_daemon_and_nothing_is_half_written(start):
    running = start()
    client = Client(running, Record(name=MAN, seconds=1.0), Recorded)
    gate = running.faults.freeze(
        running.stage("control")._thread, "_store"
    )  # in the middle of the transaction
    running.wait_for_end()
    assert "stage control has shown no sign of life" in str(running.error)
    assert "only a new process can help" in str(running.error)
    with sqlite3.connect(running.config.gallery_path) as database:
        assert database.execute("SELECT count(*) FROM people").fetchone() == (0,)
    gate.opened.set()
    client.join(PATIENCE_S)


@pytest.mark.parametrize("name", ["perception", "publisher"])
def test_a_stage_that_hangs_does_not_hold_up_the_end(start, name):
    running = start()
    running.faults.freeze(running.stage(name)._thread, STAGES[name])
    began = time.monotonic()
    running.daemon.stop()
    running.wait_for_end()
    assert time.monotonic() - began < 2.0 + BUSY_S
    assert running.error is None
