"""Bind ZeroMQ sockets so that only this user reaches them, and never in the place of a living daemon."""

import socket as sockets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from engines.errors import UserError

_IPC = "ipc://"


class EndpointError(UserError):
    """An endpoint cannot be used; the message names it and the remedy."""


@contextmanager
def bound(socket: zmq.Socket[bytes], endpoint: str) -> Iterator[None]:
    """Bind ``socket``; for ``ipc://`` make the folder (mode 0700) and the file (mode 0600), and remove it in the end.

    ZeroMQ itself would quietly take the place of whatever file the path names, a living daemon's socket included.

    Raises:
        EndpointError: another program has the endpoint, or it is none that can be bound.
    """
    path = ipc_path(endpoint)
    if path is not None:
        _prepare(path, endpoint)
    try:
        socket.bind(endpoint)
        if path is not None:
            path.chmod(0o600)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise _in_use(endpoint) from error
        raise EndpointError(
            f"{endpoint}: cannot be bound: {zmq.strerror(error.errno or 0)}; name ipc:///FOLDER/NAME.sock with at most "
            f"{zmq.IPC_PATH_MAX_LEN} characters of path, or tcp://ADDRESS:PORT with an address of this machine"
        ) from error
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect ``socket``; that nobody listens is no error, for they may come later.

    Raises:
        EndpointError: the endpoint is none that can be connected to.
    """
    try:
        socket.connect(endpoint.replace("tcp://*:", "tcp://127.0.0.1:"))
    except zmq.ZMQError as error:
        raise EndpointError(
            f"{endpoint}: not an endpoint: {zmq.strerror(error.errno or 0)}; name ipc:///FOLDER/NAME.sock or "
            "tcp://HOST:PORT"
        ) from error


def ipc_path(endpoint: str) -> Path | None:
    """The file of an ``ipc://`` endpoint; None where it has none, as with ``tcp://`` and abstract names."""
    name = endpoint.removeprefix(_IPC)
    return None if name == endpoint or name.startswith("@") or not name else Path(name)


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
