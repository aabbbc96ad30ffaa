"""The real parts that tests share: models, pictures and data sets."""

import http.server
import itertools
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper

from agent import paths
from engines.pack import Pack
from engines.sources import archives, default_pack
from engines.sources.fetch import Member, fetch
from engines.sources.onnx_graph import GraphWriter, image_input, norm

# The same examples in every run, and no verdict on how long one takes: that depends on what else the machine does.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def sources() -> dict[Member, Path]:
    """The published models as they were fetched."""
    return fetch(archives.MODELS, paths.cache_dir() / "sources", _quiet)


@pytest.fixture(scope="session")
def pack() -> Pack:
    """The default pack, made as `cabinsense models fetch` makes it, once for all runs of the tests."""
    folder = paths.cache_dir() / "tests" / "packs" / "default"
    return default_pack.make(folder, paths.cache_dir() / "sources", _quiet)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample clip and photographs."""
    fetch(archives.SAMPLES, paths.samples_dir(), _quiet)
    return paths.samples_dir()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets, which are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def lfw(shared_data: Path) -> Path:
    """Labeled Faces in the Wild: images and pairs."""
    if not (shared_data / "lfw").is_dir():
        pytest.skip(f"{shared_data / 'lfw'} is absent")
    return shared_data / "lfw"


@pytest.fixture(scope="session")
def small() -> onnx.ModelProto:
    """A face network of three layers, built as the real one is: milliseconds to load, microseconds to run."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    writer = GraphWriter()
    x = image_input(writer, "chip")
    x = norm(writer, x, "input", np.full(3, 1 / 256, np.float32), np.full(3, -0.5, np.float32))
    for layer, (channels, out) in enumerate([(3, 16), (16, 64)]):
        weight = writer.constant(f"{layer}.weight", some(out, channels, 3, 3))
        x = writer.node(
            "Conv", [x, weight], f"{layer}.conv", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        )
        x = norm(writer, x, f"layer{layer}", 1 + some(out), some(out))
        x = writer.node("Relu", [x], f"{layer}.relu")
    x = writer.node("ReduceMean", [x], "pool", axes=[2, 3], keepdims=0)
    raw = writer.node("MatMul", [x, writer.constant("embed", some(64, 8192))], "raw")
    length = writer.node("ReduceL2", [raw], "length", axes=[1], keepdims=1)
    writer.node("Div", [raw, length], "embedding")
    writer.node(
        "Gemm",
        [x, writer.constant("head", some(7, 64)), writer.constant("bias", some(7))],
        "emotion",
        transB=1,
    )
    return writer.model(
        "small",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", 24, 24, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 8192]),
            helper.make_tensor_value_info("emotion", TensorProto.FLOAT, ["N", 7]),
        ],
    )


class ServiceManager:
    """The receiving end of the notify socket, as systemd has it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self, seconds: float = 0.0) -> list[str]:
        """Every word since the last time; waits so long for the first."""
        words: list[str] = []
        while select.select([self._socket], [], [], 0.0 if words else seconds)[0]:
            words += self._socket.recv(4096).decode().split("\n")
        return words

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listen_as_manager() -> Iterator[Callable[[str], ServiceManager]]:
    """Makes service managers that listen at an address: a path, or ``@`` and an abstract name."""
    made: list[ServiceManager] = []

    def listen(address: str) -> ServiceManager:
        made.append(ServiceManager(address))
        return made[-1]

    yield listen
    for each in made:
        each.close()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Chooses a TCP port of this machine that nobody has, and that the system gives to nobody who asks for any."""

    def choose() -> int:
        while True:
            port = random.SystemRandom().randrange(20_000, 32_000)  # Linux gives away those from 32768 on
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return port

    return choose


def _quiet(*_: object) -> None:
    """Nobody watches the downloads of a test run."""


class NetworkCamera:
    """Motion JPEG over HTTP, on one port for all its lives. It shows ``pictures`` in turn, 50 a second."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.port = 0
        self.connections = 0
        self.pictures = [cv2.resize(rng.integers(40, 200, (6, 8, 3), np.uint8), (160, 120)) for _ in range(4)]
        self._stalled = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/cabin.mjpg"

    def show(self, *pictures: np.ndarray) -> None:
        """Show these pictures, uint8 BGR, from now on."""
        self.pictures = list(pictures)

    def stall(self, stalled: bool) -> None:
        """Keep the connections open, but say nothing."""
        (self._stalled.set if stalled else self._stalled.clear)()

    def start(self) -> None:
        camera = self
        off = self._off = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    for number in itertools.count():
                        if off.wait(0.02):
                            return
                        if not camera._stalled.is_set():
                            pictures = camera.pictures
                            self._send(cv2.imencode(".jpg", pictures[number % len(pictures)])[1].tobytes())
                except OSError:
                    pass
                finally:
                    camera.connections -= 1

            def _send(self, jpeg: bytes) -> None:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._off.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def network_cameras() -> Iterator[Callable[[], NetworkCamera]]:
    """Makes network cameras that are on."""
    made: list[NetworkCamera] = []

    def make() -> NetworkCamera:
        made.append(NetworkCamera())
        made[-1].start()
        return made[-1]

    yield make
    for camera in made:
        camera.stop()


@pytest.fixture
def network_camera(network_cameras: Callable[[], NetworkCamera]) -> NetworkCamera:
    """A network camera that is on."""
    return network_cameras()
