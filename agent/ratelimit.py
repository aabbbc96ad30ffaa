"""How often something may be done."""

from collections import deque

_MINUTE_S = 60.0


class RateLimit:
    """So many times in any minute."""

    def __init__(self, per_minute: int) -> None:
        """Nothing has been done yet."""
        self._times: deque[float] = deque(maxlen=per_minute)
        self._most = per_minute

    def wait(self, now: float) -> float:
        """Seconds until it may be done again; 0 if it may be at ``now`` (monotonic seconds)."""
        if len(self._times) < self._most:
            return 0.0
        return max(0.0, self._times[0] + _MINUTE_S - now)

    def count(self, now: float) -> None:
        """It is done at ``now``."""
        self._times.append(now)
