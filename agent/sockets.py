"""Bind and connect ZeroMQ sockets: a file that is this user's alone, or a network that asks everybody for a key.

No socket is ever bound in the place of a living daemon's.
"""

import logging
import os
import socket as sockets
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import zmq

from agent import curve_keys
from agent.config import Config, Curve
from agent.doorkeeper import DOMAIN, Doorkeeper
from engines.errors import UserError

log = logging.getLogger(__name__)

_IPC = "ipc://"
_TRANSPORTS = (_IPC, "tcp://")  # ZeroMQ's others have no keys, or reach only into this process
_HANDSHAKE_MS = 3000  # for a connection to prove itself; ZeroMQ's default is half a minute
# Pings, and the silence after which a peer is gone: a car drives out of reach without saying good-bye.
_PING_MS = 2000
_SILENT_MS = 6000
_UNACKNOWLEDGED_MS = 10_000  # a peer whose system takes nothing: it is stopped, or its cable was pulled
_REBIND_S = 2.0
_REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_umask = threading.Lock()  # it belongs to the whole process


class EndpointError(UserError):
    """An endpoint cannot be used; the message names it and the remedy."""


class Door:
    """A bound socket and, on a network, who watches over it."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, keeper: Doorkeeper | None) -> None:
        """``socket`` is bound to ``endpoint``; ``keeper`` is None where everybody who gets there may come in."""
        self._socket = socket
        self._endpoint = endpoint
        self._keeper = keeper

    def tend(self) -> bool:
        """Do what is due, often; False while the doorkeeper has not been seen for a while.

        When a client was revoked, every connection is dropped by binding anew: ZeroMQ cannot drop a single one. Who
        may come in is back in a moment and learns the present state again; a request under way loses its reply.

        Raises:
            EndpointError: the doorkeeper has died, or the endpoint was taken meanwhile.
        """
        keeper = self._keeper
        if keeper is None:
            return True
        if not keeper.alive:
            raise EndpointError(
                f"{self._endpoint}: its doorkeeper has died, so nobody new is let in; see the log"
            )
        if keeper.cut.is_set():
            keeper.cut.clear()
            self._bind_anew()
        return keeper.well

    def _bind_anew(self) -> None:
        place = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._socket.unbind(place)
        deadline = time.monotonic() + _REBIND_S
        while not _binds(self._socket, place):  # the old one is closed in ZeroMQ's own thread
            if time.monotonic() > deadline:
                raise _in_use(self._endpoint)
            time.sleep(0.01)


@contextmanager
def bound(socket: zmq.Socket[bytes], endpoint: str, curve: Curve | None = None) -> Iterator[Door]:
    """Bind ``socket``, with a file (``ipc://``) or with keys.

    With a file its folder is made (mode 0700), and the file, which nobody else may use (mode 0600), goes in the end;
    ZeroMQ itself would quietly take the place of whatever the path names, a living daemon's socket included.
    Any other endpoint, an ``ipc://`` without a file too, asks for CURVE keys unless ``curve.insecure`` is set.

    Raises:
        EndpointError: another program has the endpoint, or it is none that can be bound.
        KeysError: the daemon's own key cannot be read or made.
    """
    _check(endpoint)
    path = ipc_path(endpoint)
    with ExitStack() as stack:
        keeper = None
        if path is not None:
            _prepare(path, endpoint)
        else:
            _bound_silence(socket, endpoint)
            keeper = _lock(socket, endpoint, curve or Curve(), stack)
        if not _binds(socket, endpoint):
            raise _in_use(endpoint)
        try:
            yield Door(socket, endpoint, keeper)
        finally:
            if (
                path is not None and not socket.closed
            ):  # if it is, another stage has taken our place: the file is its own
                path.unlink(missing_ok=True)


def connect(socket: zmq.Socket[bytes], endpoint: str, curve: Curve | None = None) -> None:
    """Connect ``socket``; that nobody listens is no error, for they may come later.

    Raises:
        EndpointError: the endpoint is none that can be connected to.
        KeysError: the endpoint asks for keys, and ``curve`` names none that can be used.
    """
    _check(endpoint)
    if needs_keys(endpoint):
        _bound_silence(socket, endpoint)
        if not (curve or Curve()).insecure:
            _unlock(socket, endpoint, curve or Curve())
    try:
        socket.connect(endpoint.replace("tcp://*:", "tcp://127.0.0.1:"))
    except zmq.ZMQError as error:
        raise _no_endpoint(endpoint, error) from error


def needs_keys(endpoint: str) -> bool:
    """Whether no file's mode guards ``endpoint``, so that only keys can."""
    return ipc_path(endpoint) is None


def open_doors(config: Config) -> tuple[str, ...]:
    """A sentence for each endpoint of a daemon that lets in everybody."""
    if not config.curve.insecure:
        return ()
    return tuple(
        f"{endpoint} lets in everybody who reaches it, and nothing is encrypted, because curve.insecure is set; "
        "make keys with `cabinsense keys` and take it away"
        for endpoint in (config.events_endpoint, config.control_endpoint)
        if needs_keys(endpoint)
    )


@contextmanager
def handshakes(socket: zmq.Socket[bytes]) -> Iterator[zmq.Socket[bytes]]:
    """A socket that tells how each connection of ``socket`` begins; ask it with ``refused``."""
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _REFUSALS)
    try:
        yield monitor
    finally:
        socket.disable_monitor()
        monitor.close(linger=0)


def refused(monitor: zmq.Socket[bytes]) -> bool:
    """Whether the other side has turned us away and not let us in since. ``monitor`` is of ``handshakes``."""
    turned_away = False
    while monitor.poll(0):
        # It begins with the event's number, 16 bits, as zmq.utils.monitor knows, too; but that imports asyncio.
        event = int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)
        turned_away = bool(event & _REFUSALS)
    return turned_away


def ask_for_entry(endpoint: str) -> str:
    """What helps who was turned away."""
    return (
        f"{endpoint} does not let us in; `cabinsense keys list` on its machine shows whether our key is allowed, and "
        "its own key for curve.server_key"
    )


def ipc_path(endpoint: str) -> Path | None:
    """The file of an ``ipc://`` endpoint; None where it has none, as with ``tcp://`` and abstract names."""
    name = endpoint.removeprefix(_IPC)
    return None if name == endpoint or name.startswith("@") or not name else Path(name)


def _check(endpoint: str) -> None:
    if not endpoint.startswith(_TRANSPORTS):
        raise _no_endpoint(endpoint, zmq.ZMQError(zmq.EPROTONOSUPPORT))


def _binds(socket: zmq.Socket[bytes], endpoint: str) -> bool:
    """Bind; False if another program has the endpoint. A file is its owner's alone from its first moment on."""
    path = ipc_path(endpoint)
    try:
        if path is None:
            socket.bind(endpoint)
        else:
            with _umask:
                before = os.umask(0o077)
                try:
                    socket.bind(endpoint)
                finally:
                    os.umask(before)
            path.chmod(0o600)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            return False
        raise _no_endpoint(endpoint, error) from error
    return True


def _lock(socket: zmq.Socket[bytes], endpoint: str, curve: Curve, stack: ExitStack) -> Doorkeeper | None:
    """Have ``socket`` ask for keys, and a doorkeeper for as long as ``stack`` is open."""
    if curve.insecure:
        log.warning("%s lets in everybody who reaches it: curve.insecure is set", endpoint)
        return None
    keeper = stack.enter_context(Doorkeeper(socket.context, curve.path))
    socket.curve_server = True
    socket.curve_secretkey = keeper.pair.secret.encode()
    socket.zap_domain = DOMAIN
    socket.zap_enforce_domain = True  # else everybody is let in while there is no doorkeeper
    return keeper


def _unlock(socket: zmq.Socket[bytes], endpoint: str, curve: Curve) -> None:
    """Let ``socket`` show its key, and talk only to the daemon whose key is known."""
    own = curve.path / "server.key_secret"
    is_here = os.access(own, os.R_OK)
    if not curve.client_key and not is_here:
        raise curve_keys.KeysError(
            f"{endpoint} asks for a key: make one with `cabinsense keys new NAME`, `cabinsense keys allow` it on the "
            "daemon's machine, and name its file as curve.client_key"
        )
    if not curve.server_key and not is_here:
        raise curve_keys.KeysError(
            f"{endpoint}: name its public key as curve.server_key; `cabinsense keys list` on its machine prints it"
        )
    pair = curve_keys.read_secret(Path(curve.client_key).expanduser() if curve.client_key else own)
    socket.curve_publickey = pair.public.encode()
    socket.curve_secretkey = pair.secret.encode()
    socket.curve_serverkey = (curve.server_key or curve_keys.read_secret(own).public).encode()


def _bound_silence(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bound how long a peer may be silent, or take to say who it is."""
    socket.heartbeat_ivl = _PING_MS
    socket.heartbeat_timeout = _SILENT_MS
    socket.heartbeat_ttl = _SILENT_MS  # what we ask of the other side
    socket.handshake_ivl = _HANDSHAKE_MS
    socket.tcp_maxrt = _UNACKNOWLEDGED_MS
    socket.ipv6 = "[" in endpoint


def _prepare(path: Path, endpoint: str) -> None:
    """Make the folder of a socket, and see that nothing living is in its place."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise EndpointError(f"{endpoint}: {path} exists and is not a socket; choose another path")
    except FileNotFoundError:
        return
    except OSError as error:
        raise EndpointError(
            f"{endpoint}: {error.strerror}; choose a folder that may be written to"
        ) from error
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # nobody listens: a dead daemon's, which ZeroMQ replaces
        except OSError as error:
            raise _in_use(endpoint) from error
        raise _in_use(endpoint)


def _in_use(endpoint: str) -> EndpointError:
    return EndpointError(
        f"{endpoint}: another program listens here, probably another cabinsense daemon; stop it, or choose another "
        "endpoint in the configuration"
    )


def _no_endpoint(endpoint: str, error: zmq.ZMQError) -> EndpointError:
    return EndpointError(
        f"{endpoint}: cannot be used: {zmq.strerror(error.errno or 0)}; name ipc:///FOLDER/NAME.sock with at most "
        f"{zmq.IPC_PATH_MAX_LEN} characters of path, or tcp://ADDRESS:PORT, to bind with an address of this machine"
    )
