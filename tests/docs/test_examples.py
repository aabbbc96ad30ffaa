"""The examples in the docs do what they say, against a real publisher: over a file and, with keys, over the network."""

import base64
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import pytest

from agent import curve_keys
from agent.config import Config, Curve, Events
from agent.events import Event
from agent.events_doc import EXAMPLES
from agent.gallery.types import Snapshot
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Reading
from agent.stages.publisher import PublisherStage

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples"
PATIENCE = 30.0


@dataclass
class Daemon:
    """The publisher as a daemon has it, with Ada in the picture all the time."""

    endpoint: str
    keys: tuple[str, ...]
    outbox: Mailbox[Event]
    curve: Path

    def say(self, topic: str, **values: object) -> None:
        now = {"monotonic": time.monotonic(), "seq": 0}
        self.outbox.put(msgspec.structs.replace(EXAMPLES[topic], **(now | values)))


@pytest.fixture(params=["ipc", "tcp"])
def daemon(request, tmp_path, free_port) -> Iterator[Daemon]:
    endpoint = f"ipc://{tmp_path}/run/e" if request.param == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    curve = tmp_path / "curve"
    public, secret = curve_keys.create(tmp_path, "tablet")
    curve_keys.allow(curve, "tablet", curve_keys.read(public).public)
    keys = (str(secret), curve_keys.server_pair(curve).public) if request.param == "tcp" else ()
    arrival = threading.Condition()
    outbox = Mailbox[Event](256, arrival)
    config = Config(events=Events(endpoint=endpoint), curve=Curve(folder=str(curve)))
    stage = PublisherStage(config, (), Live(Snapshot(), config), Mailbox[Reading](256, arrival), outbox)
    stage.start()
    made = Daemon(endpoint, keys, outbox, curve)
    made.say("face")  # as with every picture: what is said of a camera that has shown nothing does not hold
    for topic in ("identity", "emotion", "driver"):
        made.say(topic)  # once, before anybody listens: who comes later is told all the same
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.05):
            made.say("face")
            made.say("health")

    thread = threading.Thread(target=go_on)
    thread.start()
    yield made
    ended.set()
    thread.join()
    stage.stop()
    assert stage.join(5)
    assert stage.failure is None


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def make(*command: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


def lines_until(process: subprocess.Popen[str], *wanted: str) -> list[str]:
    """What a program says until it has said all of ``wanted``."""
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if all(any(each in one for one in said) for each in wanted):
            return said
    raise AssertionError(f"it ended after {said}")


def test_the_subscriber_in_python(daemon, start):
    options = ["--key", daemon.keys[0], "--server", daemon.keys[1]] if daemon.keys else []
    reader = start(sys.executable, str(EXAMPLE / "subscriber.py"), daemon.endpoint, *options)
    lines_until(
        reader,
        "track 3: confirmed Ada",
        "track 3: happy",
        "driver: Ada, distracted, warning 1",
        "all is well",
    )
    other = start(sys.executable, str(EXAMPLE / "subscriber.py"), daemon.endpoint, *options)
    lines_until(other, "track 3: confirmed Ada")
    daemon.say("identity", change="lost")
    said = lines_until(reader, "track 3: lost Ada")
    assert not any(
        "confirmed" in line for line in said
    )  # what the other one was told is no news to the first
    assert not any("missed" in line for line in said)


def test_the_subscriber_in_c(daemon, start, tmp_path):
    compiler, config = shutil.which("cc"), shutil.which("pkg-config")
    if not compiler or not config or subprocess.run([config, "--exists", "libzmq"], check=False).returncode:
        pytest.skip("a C compiler, pkg-config or libzmq's headers are absent")
    flags = subprocess.check_output([config, "--cflags", "--libs", "libzmq"], text=True).split()
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    program = str(tmp_path / "subscriber")
    subprocess.run([compiler, *strict, str(EXAMPLE / "subscriber.c"), "-o", program, *flags], check=True)
    reader = start(program, daemon.endpoint, "identity", *daemon.keys)
    topic, body = reader.stdout.readline().split(" ", 1)
    event = json.loads(body)
    assert (topic, event["person"], event["repeats"] > 0) == ("identity", "Ada", True)
    daemon.say("identity", change="unknown", person=None)
    lines_until(reader, '"change":"unknown"')


# The browser


@dataclass
class Bridge:
    process: subprocess.Popen[str]
    address: str

    @property
    def place(self) -> tuple[str, int, str]:
        host, port, secret = re.fullmatch(r"http://([\d.]+):(\d+)/([\w-]+)/\n", self.address).groups()
        return host, int(port), secret

    def ask(
        self, path: str, method: str = "GET", secret: str | None = None, **headers: str
    ) -> tuple[socket.socket, str, bytes]:
        """Send a request; the connection, the status and the start of what follows it."""
        host, port, right = self.place
        wire = socket.create_connection((host, port), timeout=PATIENCE)
        fields = {"Host": f"{host}:{port}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
        wire.sendall(
            f"{method} /{right if secret is None else secret}/{path} HTTP/1.1\r\n{lines}\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer and (more := wire.recv(65536)):
            answer += more
        head, _, rest = answer.partition(b"\r\n\r\n")
        return wire, head.decode(), rest

    def open(self, **headers: str) -> tuple[socket.socket, str, bytes]:
        wanted = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": base64.b64encode(b"the sample nonce").decode(),
        }
        return self.ask("events", **(wanted | headers))


@pytest.fixture
def bridge(daemon, start) -> Bridge:
    options = ["--key", daemon.keys[0], "--server", daemon.keys[1]] if daemon.keys else []
    process = start(sys.executable, str(EXAMPLE / "bridge.py"), daemon.endpoint, *options)
    return Bridge(process, process.stdout.readline())


def exactly(wire: socket.socket, start: bytearray, size: int) -> bytes:
    while len(start) < size:
        more = wire.recv(65536)
        assert more, "the connection ended"
        start += more
    content = bytes(start[:size])
    del start[:size]
    return content


def frames(wire: socket.socket, start: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames that the bridge sends, whole and unmasked, as RFC 6455 has it."""
    waiting = bytearray(start)
    while True:
        first, size = exactly(wire, waiting, 2)
        if size >= 126:
            size = int.from_bytes(exactly(wire, waiting, 2 if size == 126 else 8), "big")
        yield first, exactly(wire, waiting, size)


def masked(kind: int, content: bytes) -> bytes:
    mask = b"\x11\x22\x33\x44"
    hidden = bytes(byte ^ mask[i % 4] for i, byte in enumerate(content))
    return bytes([0x80 | kind, 0x80 | len(content)]) + mask + hidden


def test_a_browser_is_told_the_present_state_and_what_follows(daemon, bridge):
    wire, head, rest = bridge.open(Origin=bridge.address.rsplit("/", 2)[0])
    assert head.startswith("HTTP/1.1 101 ")
    # RFC 6455, section 1.3, has the key and the answer to it that belong together.
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    stream = frames(wire, rest)
    seen: set[str] = set()
    while seen != {"identity", "emotion", "driver", "health"}:
        kind, content = next(stream)
        assert kind == 0x81
        seen.add(json.loads(content)["topic"])
    wire.sendall(masked(0x9, b"are you there"))
    daemon.say("identity", change="lost")
    told: list[tuple[int, bytes]] = []
    while not any(b'"lost"' in content for _, content in told) or (0x8A, b"are you there") not in told:
        told.append(next(stream))
    wire.sendall(masked(0x8, b"\x03\xe8"))
    while next(stream)[0] != 0x88:
        pass
    assert wire.recv(1) == b""


def test_pages_from_elsewhere_and_who_does_not_know_the_secret_are_refused(bridge):
    host, port, secret = bridge.place
    for origin in ("http://evil.example", "null", f"http://{host}", f"https://{host}:{port}"):
        assert bridge.open(Origin=origin)[1].startswith("HTTP/1.1 403 "), origin
    for name in ("evil.example", f"evil.example:{port}", host):
        assert bridge.ask("", Host=name)[1].startswith("HTTP/1.1 403 "), name
    for wrong in ("", "guess", secret[:-1], f"{secret}/.."):
        assert bridge.ask("", secret=wrong)[1].startswith("HTTP/1.1 404 "), wrong
    for path in ("bridge.py", "../bridge.py", "live.html", "%2e%2e/bridge.py"):
        assert bridge.ask(path)[1].startswith("HTTP/1.1 404 "), path
    assert bridge.ask("", method="POST")[1].startswith("HTTP/1.1 405 ")
    assert bridge.ask("events")[1].startswith("HTTP/1.1 400 ")
    assert bridge.ask("", Cookie="x" * 10_000)[1].startswith("HTTP/1.1 431 ")
    assert bridge.ask("")[1].startswith("HTTP/1.1 200 ")


def test_the_bridge_listens_on_this_machine_only_and_hears_nothing_that_a_browser_says(daemon, bridge):
    listening = psutil.Process(bridge.process.pid).net_connections("tcp")
    assert {each.laddr.ip for each in listening if each.status == "LISTEN"} == {"127.0.0.1"}
    for nonsense in (b"\x81\x05hello", b"\x82\xfe\xff\xff" + bytes(70_000), b"\xff" * 100, b""):
        wire, head, _ = bridge.open()
        assert head.startswith("HTTP/1.1 101 ")
        wire.sendall(nonsense)
        wire.close()
    wire, _, rest = bridge.open()
    wire.sendall(masked(0x1, b'{"op":"gallery.delete","name":"Ada"}'))
    assert b"topic" in next(frames(wire, rest))[1]


def test_there_are_only_so_many_browsers_and_those_that_go_make_room(bridge):
    wires = [bridge.open()[0] for _ in range(16)]
    assert bridge.open()[1].startswith("HTTP/1.1 503 ")
    for wire in wires:
        wire.close()
    deadline = time.monotonic() + PATIENCE
    while not bridge.open()[1].startswith("HTTP/1.1 101 "):
        assert time.monotonic() < deadline
        time.sleep(0.05)


PAGE = """
import { badge, driver, watch } from "%s";
let shown = 0;
watch("%s", (state, connected) => {
  const [face] = state.faces.values();
  const at = state.drivers.get("cabin");
  if (connected && state.health && at && face?.identity && face?.emotion && ++shown === 1) {
    const { identity, emotion } = face;
    const drives = `${driver(at)}, ${badge(at)}`;
    console.log(JSON.stringify({ who: identity.person, how: emotion.label, drives, fps: state.health.fps }));
  } else if (shown && state.faces.size === 0) {
    console.log("gone");
    process.exit(0);
  }
});
"""


def test_the_page_follows_a_face_until_it_is_lost(daemon, bridge, start, tmp_path):
    """The script of the page, run by Node with Node's own WebSockets."""
    node = shutil.which("node")
    if not node:
        pytest.skip("node is absent")
    options = next((each for each in ([], ["--experimental-websocket"]) if _has_websocket(node, each)), None)
    if options is None:
        pytest.skip("this version of node has no WebSocket")
    program = tmp_path / "run.mjs"
    address = bridge.address.strip().replace("http://", "ws://") + "events"
    program.write_text(PAGE % ((EXAMPLE / "live.mjs").as_uri(), address))
    page = start(node, *options, str(program))
    assert json.loads(page.stdout.readline()) == {
        "who": "Ada",
        "how": "happy",
        "drives": "Ada, warning 1",
        "fps": EXAMPLES["health"].fps,
    }
    daemon.say("identity", change="lost")
    assert page.stdout.readline() == "gone\n"


def _has_websocket(node: str, options: list[str]) -> bool:
    command = [node, *options, "--eval", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_page_needs_nothing_from_elsewhere_and_shows_names_as_text():
    page = (EXAMPLE / "live.html").read_text()
    script = (EXAMPLE / "live.mjs").read_text()
    assert "//" not in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["live.mjs"]
    assert "innerHTML" not in script
    assert not re.search(r"https?:", script)
