"""When a stage is started anew, and when the process has to end: the policy, without threads, clocks or sockets."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.config import Supervision

_NAP_S = 1.0  # whoever judges less often was not running himself, and blames nobody for that time


@dataclass(frozen=True, slots=True)
class Vital:
    """What is known of a stage at a moment.

    Attributes:
        alive: its thread runs.
        ended: it has come to the end of its work, as a camera does that plays a file.
        started: when it was started, monotonic seconds.
        beaten: its last sign of life, monotonic seconds; None before the first.
        stall_s: it is given up after so long without one, seconds.
        first: no stage of this name came before it.
    """

    alive: bool
    ended: bool
    started: float
    beaten: float | None
    stall_s: float
    first: bool = True


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a stage.

    Attributes:
        how: its thread has died, or shows no sign of life.
        hopeless: it has never worked, so it is not tried again: what is wrong is not going to pass.
    """

    how: Literal["died", "stalled"]
    hopeless: bool


class Supervisor:
    """Judges stages, and counts how often they were started anew."""

    def __init__(self, settings: Supervision) -> None:
        self.settings = settings
        self.restarts: Counter[str] = Counter()
        self._at: deque[float] = deque()
        self._judged = float("-inf")
        self._awake = float("-inf")

    def judge(self, vitals: Mapping[str, Vital], now: float) -> dict[str, Trouble]:
        """The stages that are not well at ``now`` monotonic seconds; to be called several times a second.

        Time in which nobody judged does not count: a process that was stopped and goes on finds all of its stages
        silent, and none of them at fault.
        """
        if now - self._judged > _NAP_S:
            self._awake = now
        self._judged = now
        troubles = {}
        for name, vital in vitals.items():
            how = self._trouble(vital, now)
            if how is not None:
                troubles[name] = Trouble(how, hopeless=vital.first and vital.beaten is None)
        return troubles

    def _trouble(self, vital: Vital, now: float) -> Literal["died", "stalled"] | None:
        if vital.ended:
            return None
        if not vital.alive:
            return "died"
        if vital.beaten is None:
            since, patience = vital.started, self.settings.start_s
        else:
            since, patience = vital.beaten, vital.stall_s
        return "stalled" if now - max(since, self._awake) > patience else None

    def may_restart(self, name: str, hanging: int, now: float) -> bool:
        """Whether stage ``name`` may be started anew at ``now``; counts it if so.

        Args:
            name: of the stage.
            hanging: threads of stages that were given up and have not ended. Each holds what it held, such as models.
            now: monotonic seconds.
        """
        while self._at and now - self._at[0] >= self.settings.window_s:
            self._at.popleft()
        if max(len(self._at), hanging) >= self.settings.restarts:
            return False
        self._at.append(now)
        self.restarts[name] += 1
        return True
