"""The worker as the daemon holds it: a process with an environment of its own, a socket pair and the ring."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import agent
from agent.adaptation.messages import Begin, FromDaemon, FromWorker, Inbox, MessageError, frame, from_worker
from agent.adaptation.ring import RingWriter
from agent.config import AdaptationSettings

COMMAND = (sys.executable, "-m", "agent.adaptation.worker")
"""What is started; the descriptor of a socket and our process number are put behind it."""

_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "PYTHONFAULTHANDLER",
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_MOST = 1000  # messages at once; a worker says something five times a second
_GONE_S = 1.0  # SIGKILL takes effect at once, unless the kernel itself is at work for the process


class WorkerProcess:
    """One life of the worker. Not thread-safe; the worker is killed when the thread that has made this ends."""

    def __init__(
        self, command: Sequence[str], face: Path, settings: AdaptationSettings, ring: RingWriter, epoch: int
    ) -> None:
        """Start it.

        Args:
            command: see ``COMMAND``.
            face: file of the face network.
            settings: as configured.
            ring: gets the chips.
            epoch: of the samples that count.

        Raises:
            OSError: it cannot be started.
        """
        self._inbox = Inbox()
        self._channel, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(os.getpid())],
                    env=environment(settings.threads),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), ring.file),
                    start_new_session=True,  # Ctrl-C is meant for us, and ends it through us
                )
            except BaseException:
                self._channel.close()
                raise
        shape = ring.shape
        self.tell(Begin(str(face), ring.file, shape.side, shape.labels, shape.slots, settings, epoch))

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def fileno(self) -> int:
        """Descriptor that becomes readable when there is something to hear; for ``select``."""
        return self._channel.fileno()

    def tell(self, message: FromDaemon) -> None:
        """Tell the worker something, without waiting. One that does not listen any more is found out elsewhere."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._channel.send(frame(message), socket.MSG_DONTWAIT)

    def hear(self) -> tuple[list[FromWorker], bool]:
        """What the worker has said since the last time, and whether it may still say something.

        Raises:
            MessageError: it is not a message, or there are too many.
        """
        open_still = self._inbox.receive(self._channel)
        bodies = list(islice(self._inbox.bodies(), _MOST))
        if len(bodies) == _MOST:
            raise MessageError(f"{_MOST} messages at once")
        return [from_worker(body) for body in bodies], open_still

    def end(self) -> None:
        """Kill it, whatever it does, and clear it away."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GONE_S)


def environment(threads: int) -> dict[str, str]:
    """What the worker gets of our environment: nothing secret, and how many threads its libraries may use."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    root = str(Path(agent.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path} | dict.fromkeys(_THREADS, str(threads))
