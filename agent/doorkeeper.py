"""The doorkeeper thread: at each CURVE handshake says whether the client is let in (ZAP, ZeroMQ RFC 27)."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from agent import curve_keys
from agent.curve_keys import Allowed

log = logging.getLogger(__name__)

DOMAIN = b"cabinsense"
_ENDPOINT = "inproc://zeromq.zap.01"  # RFC 27 fixes it
_LOOK_MS = 200  # how soon it is seen that a client was revoked
_LATELY_S = 5.0
_TOLD = 64  # strangers that are told in the log, so that nobody fills it


class ClientList:
    """The list of clients on the disk, read again when it has changed."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is that of the keys; see ``agent.curve_keys``."""
        self._folder = folder
        self._state: object = None
        self._allowed = Allowed({})

    def now(self) -> Allowed:
        """The list as it is now; while it cannot be read, nobody is on it."""
        try:
            files = [(path.name, path.stat()) for path in sorted((self._folder / "allowed").iterdir())]
            state = [(name, at.st_ino, at.st_mtime_ns, at.st_ctime_ns, at.st_size) for name, at in files]
        except OSError:
            self._state, self._allowed = None, Allowed({})
            return self._allowed
        if state != self._state:
            before = self._allowed.problems
            self._state, self._allowed = state, curve_keys.allowed(self._folder)
            for problem in self._allowed.problems:
                if problem not in before:
                    log.warning("a client is not let in: %s", problem)
        return self._allowed


class Doorkeeper:
    """Answers for the sockets of one ZeroMQ context, in a thread of its own.

    ZeroMQ asks it at handshakes only. So it also watches for clients that were let in and are on the list no more:
    ``cut`` is set then, for the owner of the socket to drop its connections. Nobody new comes in when it has died, for
    the sockets insist on an answer (``ZAP_ENFORCE_DOMAIN``).

    Attributes:
        cut: somebody is connected who may not be any longer.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path) -> None:
        """Let in the clients on the list in ``folder``, and whoever holds the daemon's own key, which lies beside it.

        Raises:
            KeysError: the daemon's own key cannot be read or made.
        """
        self.pair = curve_keys.server_pair(folder)
        self.cut = threading.Event()
        self._context = context
        self._clients = ClientList(folder)
        self._inside: dict[str, str] = {}
        self._told: set[str] = set()
        self._beaten = time.monotonic()
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="doorkeeper", daemon=True)

    def __enter__(self) -> "Doorkeeper":
        self._thread.start()
        self._ready.wait(_LATELY_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(_LATELY_S)

    @property
    def alive(self) -> bool:
        """The thread is running."""
        return self._thread.is_alive()

    @property
    def well(self) -> bool:
        """It has lately been seen at work."""
        return time.monotonic() - self._beaten < _LATELY_S

    def _run(self) -> None:
        try:
            # Through a shadow: destroying the context from elsewhere then waits until this thread, told by
            # ContextTerminated, has closed its socket itself.
            shadow: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(self._context)
            with shadow.socket(zmq.REP) as door:
                door.linger = 0
                door.bind(_ENDPOINT)
                self._ready.set()
                while not self._stopping.is_set():
                    self._beaten = time.monotonic()
                    if door.poll(_LOOK_MS):
                        door.send_multipart(self._answer(door.recv_multipart()))
                    self._look()
        except zmq.ContextTerminated:
            log.debug("the doorkeeper's door was taken away")
        except Exception:  # the boundary of the thread; who owns the socket sees that it has ended
            log.exception("the doorkeeper failed; nobody new is let in")

    def _answer(self, question: Sequence[bytes]) -> list[bytes]:
        """The answer to a handshake."""
        key = _client_key(question)
        name = "this machine" if key == self.pair.public else self._clients.now().names.get(key)
        if name is None:
            if key not in self._told and len(self._told) < _TOLD:
                self._told.add(key)
                address = question[3].decode(errors="replace") if len(question) > 3 else "?"
                log.warning(
                    "a client at %s is not let in: its key %s is not on the list",
                    address,
                    key or "is missing",
                )
            return _reply(question, b"300", b"not on the list")
        self._inside[key] = name
        return _reply(question, b"200", b"OK", name.encode())

    def _look(self) -> None:
        """See whether somebody inside has been taken off the list."""
        names = self._clients.now().names
        for key in [key for key in self._inside if key not in names and key != self.pair.public]:
            log.info("%s was revoked: every connection is made anew", self._inside.pop(key))
            self.cut.set()


def _client_key(question: Sequence[bytes]) -> str:
    """The client's public key; empty where the question is none, or is not about CURVE."""
    match question:
        case [b"1.0", _, _, _, _, b"CURVE", key] if len(key) == 32:
            return z85.encode(key).decode()
    return ""


def _reply(question: Sequence[bytes], code: bytes, text: bytes, user: bytes = b"") -> list[bytes]:
    """An answer after RFC 27.

    The code for strangers is 300, which hangs up on them, and not 400: libzmq's clients would not try again after
    that, and one whose key is put on the list later would stay out until it is started anew.
    """
    number = question[1] if len(question) > 1 else b""
    return [b"1.0", number, code, text, user, b""]
