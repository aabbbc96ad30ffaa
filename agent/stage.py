"""A stage: one thread of the daemon, with a heartbeat, an orderly end, and a way to be given up when it hangs."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engines.errors import UserError

log = logging.getLogger(__name__)

MAY_HANG = " (may hang)"
"""How the name of a thread ends that may hang in a camera's driver or before a terminal, beyond the reach of a stop."""


class GivenUpError(Exception):
    """The stage was given up: nothing that its thread still does counts any more."""


class Stage:
    """A thread that runs ``work`` until it returns, fails or is told to stop.

    A subclass implements ``work``, looks at ``stopping`` at least every 200 ms and calls ``beat`` in each round, first
    when what it needs is open or loaded. What belongs to the thread (sockets, captures, database connections) is opened
    and closed inside ``work``.

    Python cannot kill a thread. One that hangs is given up instead: it goes on to exist, but everything that others may
    notice of a stage is done ``with self.acting()``, and there a stage that was given up gets no further.

    Attributes:
        name: in the daemon's table, in health events and in the log.
        stopping: set when the stage is to end.
        failure: what ended it; None while it runs and when it ended in order.
        ended: it has come to the end of its work.
        started: when it was started, monotonic seconds.
        beaten: its last sign of life, monotonic seconds; None before the first.
        problem: why it does nothing just now although it runs, in words; empty while all is well.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self.ended = False
        self.started = time.monotonic()
        self.beaten: float | None = None
        self.problem = ""
        self._acts = threading.RLock()
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def work(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def release(self) -> None:
        """Close what a successor must open itself, such as a socket; for stages that have any.

        Called by the supervisor in place of a thread that hangs or has died, and never while that is ``acting``.
        """

    def beat(self) -> None:
        """Say that the stage is alive."""
        self.beaten = time.monotonic()

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Inside, the stage does what others notice: hands a value on, uses its socket, writes to the disk.

        Keep it short. A stage that hangs in here cannot be given up, and the whole process has to end.

        Raises:
            GivenUpError: the stage was given up; nothing inside is done.
        """
        with self._acts:
            if self._given_up:
                raise GivenUpError(self.name)
            yield

    def give_up(self, timeout: float) -> bool:
        """Let the stage do nothing any more, and close what it has open.

        Returns:
            False if it was ``acting`` for all of ``timeout`` seconds, or something cannot be closed.
        """
        self.stopping.set()
        if not self._acts.acquire(timeout=timeout):
            return False
        try:
            self.release()
        except Exception:  # whatever state the thread left things in: a successor would find them as they are
            log.exception("what stage %s had open cannot be closed", self.name)
            return False
        finally:
            self._given_up = True
            self._acts.release()
            self.let_hang()
        return True

    def let_hang(self) -> None:
        """Take note that the thread may outlive the daemon."""
        if self.alive:
            self._thread.name = self.name + MAY_HANG

    def start(self) -> None:
        """Start the thread."""
        self.started = time.monotonic()
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

    def age(self, now: float) -> float:
        """Seconds since the last sign of life, or since the start."""
        return now - (self.beaten or self.started)

    def _run(self) -> None:
        try:
            self.work()
            self.ended = True
        except GivenUpError:
            log.info("stage %s, given up before, has woken up and ended", self.name)
        except UserError as error:  # says all there is to say
            self.failure = error
            log.error("stage %s failed: %s", self.name, error.unnamed)  # noqa: TRY400
        except Exception as error:  # the boundary of the thread: whatever broke is kept for the supervisor
            log.exception("stage %s failed", self.name)
            self.failure = error.with_traceback(None)  # it holds on to all that the thread had in its hands
