"""When a worker is started, and when it is taken for dead: the policy, without processes or clocks."""

from collections import deque
from typing import Literal

from agent.config import AdaptationSettings

_FIRST_WAIT_S = 0.2  # before a worker is started anew; doubles with each in a row that came to nothing
_LONGEST_WAIT_S = 30.0
STARTS, WINDOW_S = 40, 600.0
"""Workers that may be started within so many seconds. Each costs seconds of a core, for which there is better use."""
_NAP_S = 1.0  # whoever looks less often was not running himself, and blames nobody for that time

Trouble = Literal["silent", "busy"]


class WorkerWatch:
    """Knows when which worker was started and has last been heard.

    Attributes:
        starts: workers started so far.
    """

    def __init__(self, settings: AdaptationSettings) -> None:
        """Judge by ``settings``."""
        self.starts = 0
        self._settings = settings
        self._up = False
        self._ready = False
        self._heard = 0.0
        self._busy_s = 0.0
        self._in_vain = 0
        self._not_before = float("-inf")
        self._started: deque[float] = deque()
        self._looked = float("-inf")

    @property
    def ready(self) -> bool:
        """The worker that runs has begun its work."""
        return self._up and self._ready

    def may_start(self, now: float) -> bool:
        """No worker runs, and it is time for another one."""
        while self._started and now - self._started[0] >= WINDOW_S:
            self._started.popleft()
        return not self._up and now >= self._not_before and len(self._started) < STARTS

    def started(self, now: float) -> None:
        """A worker was started."""
        self.starts += 1
        self._started.append(now)
        self._up, self._ready, self._heard, self._busy_s = True, False, now, 0.0

    def heard(self, now: float, busy_s: float, *, ready: bool) -> None:
        """The worker has shown a sign of life."""
        self._heard, self._busy_s = now, busy_s
        self._ready = self._ready or ready

    def trouble(self, now: float) -> Trouble | None:
        """What is wrong with the worker at ``now``; to be asked several times a second.

        Time in which nobody asked does not count: it may have been said, and not been heard.
        """
        if now - self._looked > _NAP_S:
            self._heard = max(self._heard, now)
        self._looked = now
        if not self._up:
            return None
        if now - self._heard > self._settings.hang_s:
            return "silent"
        return "busy" if self._busy_s > self._settings.decide_s else None

    def ended(self, now: float, *, in_vain: bool = False) -> None:
        """The worker has ended or was killed; ``in_vain``: although it was ready, nothing of use came from it."""
        self._in_vain = 0 if self._ready and not in_vain else self._in_vain + 1
        self._not_before = now + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**self._in_vain)
        self._up = self._ready = False
