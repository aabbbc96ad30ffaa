"""A stage: one thread of the daemon, with a heartbeat and an orderly end."""

import logging
import threading
import time

log = logging.getLogger(__name__)

MAY_HANG = " (may hang)"
"""How the name of a thread ends that may hang in a camera's driver or before a terminal, beyond the reach of a stop."""


class Stage:
    """A thread that runs ``work`` until it returns, fails or is told to stop.

    A subclass implements ``work``, looks at ``stopping`` at least every 200 ms and calls ``beat`` in each round.
    What belongs to the thread (sockets, captures, database connections) is opened and closed inside ``work``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self.beaten = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def work(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def beat(self) -> None:
        """Say that the stage is alive."""
        self.beaten = time.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the stage to end; does not wait."""
        self.stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end; False if it did not come within ``timeout`` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """The thread is running."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.work()
        except Exception as error:  # the boundary of the thread: whatever broke is kept for the supervisor
            self.failure = error
            log.exception("stage %s failed", self.name)
