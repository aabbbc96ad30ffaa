"""The record button as a state machine: edges and the time in, presses out. No thread, line or clock."""

from typing import Literal

Press = Literal["short", "long"]


class Button:
    """Tells short presses from long ones, whatever the contacts do.

    Contacts bounce for some milliseconds after each change. So a level counts once it has stood unchanged for the
    debounce time, and as of the moment from which it stood. A long press is told while the button is still down, as
    soon as it has been down long enough; a short one when it is let go.
    """

    def __init__(self, debounce_s: float, long_s: float, *, down: bool = False) -> None:
        """A button that is ``down`` or not to begin with; one that is down then must be let go before it counts.

        Args:
            debounce_s: how long a level must stand, seconds.
            long_s: from how long on a press is a long one, seconds.
            down: the level now.
        """
        self._debounce_s = debounce_s
        self._long_s = long_s
        self._level = self._stable = down
        self._since = float("-inf")  # when the level last changed
        self._pressed: float | None = None  # since when it has been down, while no press of it has been told

    def edge(self, at: float, *, down: bool) -> list[Press]:
        """The presses that are certain before ``at``, when the level changes.

        Args:
            at: monotonic seconds; an edge that comes late counts as of the newest time known.
            down: the new level.
        """
        presses = self.tick(at)
        if down != self._level:
            self._level, self._since = down, max(at, self._since)
        return presses

    def tick(self, now: float) -> list[Press]:
        """The presses that are certain at ``now`` (monotonic seconds), each told once, in order."""
        presses: list[Press] = []
        if self._level != self._stable and now - self._since >= self._debounce_s:
            if self._level:
                self._pressed = self._since
            elif self._pressed is not None:
                presses.append("long" if self._since - self._pressed >= self._long_s else "short")
                self._pressed = None
            self._stable = self._level
        if self._pressed is not None and self._level and now - self._pressed >= self._long_s:
            self._pressed = None
            presses.append("long")
        return presses
