"""The metrics thread: answers Prometheus, one caller at a time and none for long."""

import logging
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from agent.config import Metrics
from agent.sockets import EndpointError
from agent.stage import Stage

log = logging.getLogger(__name__)

_WAIT_S = 0.2  # for a caller
_CALL_S = 0.25  # for all that a caller says, and as long for the answer: a local program needs a millisecond
_LONGEST = 8192  # bytes of a request; further ones are refused
_UNIX = "unix:"


class MetricsStage(Stage):
    """Serves the figures over HTTP until told to stop. It fails with EndpointError when it cannot listen."""

    def __init__(self, settings: Metrics, text: Callable[[], bytes], content_type: str) -> None:
        """Answer at ``settings.listen`` with ``text()``."""
        super().__init__("metrics")
        self._listen = settings.listen
        self._text = text
        self._content_type = content_type
        self._open = ExitStack()

    def work(self) -> None:
        """Answer until told to stop."""
        try:
            door = _listening(self._listen, self._open)
            door.setblocking(False)
            while not self.stopping.is_set():
                self.beat()
                if not select.select([door], [], [], _WAIT_S)[0]:
                    continue
                try:
                    with self.acting():
                        caller, _ = door.accept()
                except OSError as error:  # the caller has gone already, or there are too many files open
                    log.warning("metrics: %s", error)
                    self.stopping.wait(_WAIT_S)
                    continue
                with caller:
                    self._answer(caller)
        finally:
            with self.acting():
                self.release()

    def release(self) -> None:
        """Close the door."""
        self._open.close()

    def _answer(self, caller: socket.socket) -> None:
        """Answer one caller, who may say anything, nothing, or go away."""
        try:
            status, body = self._reply(_heard(caller))
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: {self._content_type}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n"
            )
            caller.settimeout(_CALL_S)
            caller.sendall(head.encode() + body)
        except OSError:
            return  # gone, or slower than a local program ever is

    def _reply(self, request: bytes) -> tuple[str, bytes]:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if not request.endswith(b"\r\n\r\n"):
            return "400 Bad Request", b""
        if method != b"GET":
            return "405 Method Not Allowed", b""
        if path != b"/metrics":
            return "404 Not Found", b"the figures are at /metrics\n"
        return "200 OK", self._text()


def _heard(caller: socket.socket) -> bytes:
    """What a caller says up to the end of a request's head, within limits of time and size."""
    heard, deadline = b"", time.monotonic() + _CALL_S
    while not heard.endswith(b"\r\n\r\n") and len(heard) < _LONGEST:
        caller.settimeout(max(1e-3, deadline - time.monotonic()))
        part = caller.recv(_LONGEST - len(heard))
        if not part:
            break
        heard += part
    return heard


def _listening(listen: str, stack: ExitStack) -> socket.socket:
    """A listening socket, which ``stack`` closes.

    Raises:
        EndpointError: the place is taken, or cannot be listened at.
    """
    try:
        if listen.startswith(_UNIX):
            return _listening_at_path(Path(listen.removeprefix(_UNIX)), stack)
        host, _, port = listen.rpartition(":")
        address = (host.strip("[]"), int(port))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return stack.enter_context(socket.create_server(address, family=family))
    except OSError as error:
        raise EndpointError(
            f"metrics.listen {listen}: {os.strerror(error.errno or 0)}; name an address of this machine and a free "
            "port, or unix:/FOLDER/NAME.sock"
        ) from error


def _listening_at_path(path: Path, stack: ExitStack) -> socket.socket:
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()  # a dead daemon's: a living one would not have let us come so far
    door = stack.enter_context(socket.socket(socket.AF_UNIX))
    door.bind(str(path))
    stack.callback(path.unlink, missing_ok=True)
    path.chmod(0o600)
    door.listen()
    return door
