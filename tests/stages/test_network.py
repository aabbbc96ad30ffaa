"""Over TCP only those come in whose key is on the list; who is taken off it is out at once; nobody holds up others."""

import json
import random
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq

from agent import curve_keys
from agent.config import Config, Control, Curve, Events
from agent.config import Gallery as GalleryConfig
from agent.control import ControlError, GetStatus, Status, request
from agent.curve_keys import KeysError, Pair
from agent.events import Event
from agent.events_doc import EXAMPLES
from agent.gallery.types import Snapshot
from agent.listening import listen
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Reading
from agent.sockets import EndpointError
from agent.stage import Stage
from agent.stages.control import ControlStage
from agent.stages.publisher import PublisherStage

PATIENCE = 20.0
GREETING = 64  # bytes of ZMTP's, before anybody has shown a key
REFUSED_S = 0.8  # a client that is let in is served in milliseconds


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Client:
    """A program of somebody else's: ZeroMQ's own socket, with keys or without."""

    def __init__(self, kind: str, endpoint: str, pair: Pair | None, server: str) -> None:
        self._kind = kind
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB if kind == "events" else zmq.DEALER)
        self._socket.linger = 0
        if pair is not None:
            self._socket.curve_publickey = pair.public.encode()
            self._socket.curve_secretkey = pair.secret.encode()
            self._socket.curve_serverkey = server.encode()
        if kind == "events":
            self._socket.subscribe("")
        self._socket.connect(endpoint)

    def served(self, seconds: float = PATIENCE) -> bool:
        """Whether it hears events that are sent from now on, or gets answers to what it asks from now on."""
        while self._socket.poll(0):
            self._socket.recv_multipart()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._kind == "control":
                with suppress(zmq.Again):  # it has no connection
                    self._socket.send(b'{"op":"status"}', zmq.NOBLOCK)
            if self._socket.poll(100):
                return True
        return False

    def close(self) -> None:
        self._context.destroy(linger=0)


@dataclass
class Served:
    """The stage behind an endpoint, with what a test does to it."""

    kind: str
    config: Config
    outbox: Mailbox[Event]
    clients: list[Client] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start the stage, in the place of another if there is one."""
        if self.kind == "events":
            readings = Mailbox[Reading](256, self.outbox.arrival)
            self.stage: Stage = PublisherStage(
                self.config, (), Live(Snapshot(), self.config), readings, self.outbox
            )
        else:
            self.stage = ControlStage(self.config, "a" * 64, Live(Snapshot()), self.outbox, 0.93)
        self.stage.start()

    @property
    def endpoint(self) -> str:
        return self.config.events_endpoint if self.kind == "events" else self.config.control_endpoint

    @property
    def keys(self) -> Path:
        return self.config.curve.path

    def talk(self) -> None:
        """Publish, so that there is something to hear."""
        while not self.ended.wait(0.02):
            self.outbox.put(EXAMPLES["health"])

    def client(self, pair: Pair | None, server: str | None = None) -> Client:
        key = server or curve_keys.server_pair(self.keys).public
        self.clients.append(Client(self.kind, self.endpoint, pair, key))
        return self.clients[-1]

    def friend(self, name: str) -> Client:
        """A client that is let in."""
        pair = curve_keys.new_pair()
        curve_keys.allow(self.keys, name, pair.public)
        return self.client(pair)


@pytest.fixture
def serve(tmp_path, monkeypatch, free_port) -> Iterator[Callable[..., Served]]:
    """Starts stages, which are less patient than usual with who is silent."""
    made: list[Served] = []
    for name, value in {"_HANDSHAKE_MS": 1000, "_PING_MS": 300, "_SILENT_MS": 1200}.items():
        monkeypatch.setattr(f"agent.sockets.{name}", value)

    def make(kind: str, **curve: object) -> Served:
        config = Config(
            gallery=GalleryConfig(path=str(tmp_path / "gallery.db")),
            events=Events(endpoint=f"tcp://127.0.0.1:{free_port()}"),
            control=Control(endpoint=f"tcp://127.0.0.1:{free_port()}"),
            curve=Curve(**({"folder": str(tmp_path / "curve")} | curve)),
        )
        served = Served(kind, config, Mailbox[Event](256, threading.Condition()))
        made.append(served)
        served.start()
        host, port = served.endpoint.removeprefix("tcp://").split(":")
        wait_until(lambda: _listens(host, int(port)) or not served.stage.alive)
        if kind == "events":
            threading.Thread(target=served.talk, daemon=True).start()
        return served

    yield make
    for served in made:
        served.ended.set()
        for client in served.clients:
            client.close()
        served.stage.stop()
        began = time.monotonic()
        assert served.stage.join(5)
        assert time.monotonic() - began < 2


@pytest.fixture(params=["events", "control"])
def served(request, serve) -> Served:
    return serve(request.param)


def test_the_right_key_is_served_and_no_other(served):
    friend = served.friend("tablet")
    assert friend.served()
    stranger, right = curve_keys.new_pair(), curve_keys.new_pair()
    refused = {
        "no key": served.client(None),
        "a key that is not on the list": served.client(stranger),
        "a key whose public half is on the list": served.client(
            Pair(next(iter(curve_keys.allowed(served.keys).names)), right.secret)
        ),
        "the wrong key of the daemon": served.client(right, server=curve_keys.new_pair().public),
    }
    for what, client in refused.items():
        assert not client.served(REFUSED_S), what
    assert friend.served()


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN"])
def test_other_mechanisms_get_no_byte_but_the_greeting(served, mechanism):
    with raw(served, mechanism) as wire:
        with suppress(ConnectionError):
            wire.sendall(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB" + b"\x00\x01\x01")
        assert hung_up(wire, PATIENCE) <= GREETING


def test_who_is_revoked_is_out_at_once_and_nobody_else_is(served):
    revoked, friend = served.friend("phone"), served.friend("tablet")
    assert revoked.served()
    assert friend.served()
    curve_keys.revoke(served.keys, "phone")
    wait_until(lambda: not revoked.served(0.3))
    assert friend.served()
    assert not revoked.served(REFUSED_S)
    assert served.stage.alive


def test_who_is_let_in_later_needs_no_restart_on_either_side(served):
    pair = curve_keys.new_pair()
    client = served.client(pair)
    assert not client.served(REFUSED_S)
    curve_keys.allow(served.keys, "tablet", pair.public)
    assert client.served()
    curve_keys.revoke(served.keys, "tablet")
    wait_until(lambda: not client.served(0.3))
    curve_keys.allow(served.keys, "tablet", pair.public)
    assert client.served()


def test_a_list_that_cannot_be_read_lets_nobody_in(served):
    client = served.friend("tablet")
    assert client.served()
    (served.keys / "allowed").rename(served.keys / "mislaid")
    wait_until(lambda: not client.served(0.3))
    assert not client.served(REFUSED_S)
    (served.keys / "mislaid").rename(served.keys / "allowed")
    assert client.served()


def test_without_a_doorkeeper_nobody_new_comes_in_and_the_stage_says_so(served, monkeypatch):
    friend = served.friend("tablet")
    assert friend.served()
    monkeypatch.setattr("agent.sockets.Door.tend", lambda _: True)  # nobody looks after the doorkeeper ...
    monkeypatch.setattr("agent.doorkeeper.ClientList.now", lambda _: 1 / 0)  # ... who falls over
    late = served.friend("phone")
    assert not late.served(REFUSED_S)
    assert friend.served()  # those inside stay
    monkeypatch.undo()
    assert served.stage.join(5)
    assert isinstance(served.stage.failure, EndpointError)
    assert "doorkeeper has died" in str(served.stage.failure)


def test_a_stage_that_takes_the_place_of_one_that_was_given_up_has_a_doorkeeper_of_its_own(served):
    friend = served.friend("tablet")
    assert friend.served()
    for _ in range(3):
        before = served.stage
        began = time.monotonic()
        assert before.give_up(2)
        assert time.monotonic() - began < 2
        served.start()
        assert friend.served()
        assert not served.client(curve_keys.new_pair()).served(REFUSED_S)
        assert before.join(5)
        assert before.failure is None
    wait_until(lambda: [each.name for each in threading.enumerate()].count("doorkeeper") == 1)


def test_a_secret_key_that_others_may_read_keeps_the_stage_from_starting(tmp_path, serve):
    curve_keys.server_pair(tmp_path / "curve")
    (tmp_path / "curve" / "server.key_secret").chmod(0o644)
    served = serve("control")
    assert served.stage.join(5)
    assert isinstance(served.stage.failure, KeysError)


def test_if_the_configuration_insists_everybody_comes_in_and_that_is_logged(serve, caplog):
    for kind in ("events", "control"):
        served = serve(kind, insecure=True)
        assert served.client(None).served()
        assert f"{served.endpoint} lets in everybody" in caplog.text


# Our own clients


def test_the_client_shows_its_key_and_knows_the_daemons(serve, tmp_path):
    served = serve("control")
    own = curve_keys.server_pair(served.keys)
    _, secret = curve_keys.create(tmp_path, "tablet")
    curve_keys.allow(served.keys, "tablet", curve_keys.read(secret).public)

    def ask(**curve: str) -> str:
        keys = Curve(**({"folder": str(tmp_path / "elsewhere")} | curve))
        return request(served.endpoint, GetStatus(), Status, PATIENCE, curve=keys).state

    assert ask(client_key=str(secret), server_key=own.public) == "idle"
    assert ask(folder=str(served.keys)) == "idle"  # on the daemon's machine no key needs to be named
    with pytest.raises(KeysError, match=r"cabinsense keys new NAME"):
        ask(server_key=own.public)
    with pytest.raises(KeysError, match=r"curve\.server_key"):
        ask(client_key=str(secret))
    curve_keys.revoke(served.keys, "tablet")
    for wrong in ({"client_key": str(secret), "server_key": own.public}, {"insecure": True}):
        with pytest.raises(ControlError, match="does not let us in") as told:
            ask(**wrong)
        assert told.value.code == "key"


def test_who_listens_is_told_that_the_daemon_does_not_let_him_in_and_hears_it_once_it_does(serve, tmp_path):
    served = serve("events")
    _, secret = curve_keys.create(tmp_path, "tablet")
    public = curve_keys.read(secret).public
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "does not let us in" in text:
            curve_keys.allow(served.keys, "tablet", public)

    keys = Curve(folder=str(served.keys), client_key=str(secret))
    heard = listen(served.endpoint, ["health"], say, keys)
    assert json.loads(next(heard))["topic"] == "health"
    heard.close()
    assert any("does not let us in" in text for text in said)


# Peers that are silent, stuck or many


class raw:  # noqa: N801 - used as a function
    """A TCP connection that has said its greeting, ZMTP 3.1."""

    def __init__(self, served: Served, mechanism: bytes = b"NULL") -> None:
        host, port = served.endpoint.removeprefix("tcp://").split(":")
        self.wire = sockets.create_connection((host, int(port)))
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)
        self.wire.sendall(greeting)

    def __enter__(self) -> sockets.socket:
        return self.wire

    def __exit__(self, *_: object) -> None:
        self.wire.close()


def _listens(host: str, port: int) -> bool:
    with sockets.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def hung_up(wire: sockets.socket, seconds: float) -> int:
    """How many bytes the other side still says before it closes the connection, which it must within so long."""
    wire.settimeout(seconds)
    said = 0
    with suppress(ConnectionError):
        while content := wire.recv(65536):
            said += len(content)
    return said


def test_connections_that_say_nothing_are_dropped_and_keep_nobody_out(served):
    friend = served.friend("tablet")
    silent = []
    try:
        for _ in range(100):
            silent.append(raw(served, b"CURVE").wire)
            silent.append(sockets.create_connection(silent[-1].getpeername()))
        assert friend.served()
        assert friend.served()
        for wire in silent:
            assert hung_up(wire, PATIENCE) <= GREETING
        assert friend.served()
    finally:
        for wire in silent:
            wire.close()


def test_bytes_that_are_not_zeromqs_end_nothing(served):
    chance = random.Random(3)  # noqa: S311 - the same bytes each time
    friend = served.friend("tablet")
    assert friend.served()
    for number in range(200):
        with raw(served, b"CURVE") as wire, suppress(ConnectionError):
            hello = b"\x04\xc8\x05HELLO\x01\x00" + chance.randbytes(192)
            endless = b"\x06" + b"\xff" * 8
            wire.sendall((hello, endless, chance.randbytes(300), b"\x04\x05\x05HELLO")[number % 4])
    assert friend.served()
    assert served.stage.alive


def test_a_peer_that_answers_no_ping_is_dropped(serve):
    served = serve("control", insecure=True)
    with raw(served) as wire:
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
        wire.sendall(b"\x04" + bytes([len(ready)]) + ready)
        began = time.monotonic()
        hung_up(wire, PATIENCE)
        assert time.monotonic() - began > 1  # it was given its time
    assert served.client(None).served()


def test_a_stuck_subscriber_is_cut_off_with_the_others_when_it_is_revoked(serve):
    """It takes nothing, so what waits for it could be in the way."""
    served = serve("events")
    friend = served.friend("tablet")
    stuck = served.friend("phone")
    assert stuck.served()
    assert friend.served()
    stuck._socket.rcvhwm = 1
    for _ in range(2000):
        served.outbox.put(EXAMPLES["face"])
    curve_keys.revoke(served.keys, "phone")
    time.sleep(0.5)
    wait_until(lambda: not stuck.served(0.3))
    assert friend.served()


def test_two_hundred_clients_at_once_are_all_served(serve):
    served = serve("control")
    pair = curve_keys.new_pair()
    curve_keys.allow(served.keys, "fleet", pair.public)
    server = curve_keys.server_pair(served.keys).public
    with zmq.Context() as context:
        clients = []
        for _ in range(200):
            client = context.socket(zmq.DEALER)
            client.linger = 0
            client.curve_publickey, client.curve_secretkey = pair.public.encode(), pair.secret.encode()
            client.curve_serverkey = server.encode()
            client.connect(served.endpoint)
            client.send(b'{"op":"status"}')
            clients.append(client)
        try:
            assert all(client.poll(PATIENCE * 1e3) for client in clients)
        finally:
            for client in clients:
                client.close()
