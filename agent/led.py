"""What the lamp beside the record button shows: a pattern for each moment of a recording, as a function of time."""

from dataclasses import dataclass
from typing import Literal

from agent.guidance import CALM, POSES

FLASH_S, DARK_S, PAUSE_S = 0.15, 0.25, 0.8
"""The pose that is wanted, counted out: one flash for straight, two for left, three for right, four for up; then a
pause."""
BLINK_S = 0.1
"""Something is to be corrected: on and off so fast, without end."""
DONE_S = 2.0
"""Enrolled: steady for so long."""
REFUSED_S, REFUSALS = 0.5, 3
"""Refused or cancelled: so many long flashes, as long dark between them."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What there is to show.

    Attributes:
        state: how far the recording is.
        since: from when on, monotonic seconds.
        pose: while recording, the pose that is wanted.
        hint: while recording, the code of ``agent.guidance.ADVICE`` that is told.
    """

    state: Literal["recording", "done", "refused"]
    since: float
    pose: str = ""
    hint: str = ""


def lit(sign: Sign | None, now: float) -> bool:
    """Whether the lamp is on at ``now`` (monotonic seconds); None is a daemon that records nobody."""
    if sign is None:
        return False
    age = max(0.0, now - sign.since)
    if sign.state == "done":
        return age < DONE_S
    if sign.state == "refused":
        return age < 2 * REFUSALS * REFUSED_S and age % (2 * REFUSED_S) < REFUSED_S
    if sign.hint not in CALM:
        return age % (2 * BLINK_S) < BLINK_S
    flashes = 1 + [*POSES].index(sign.pose) if sign.pose in POSES else 1
    age %= flashes * (FLASH_S + DARK_S) + PAUSE_S
    return age < flashes * (FLASH_S + DARK_S) and age % (FLASH_S + DARK_S) < FLASH_S


def is_dark(sign: Sign | None, now: float) -> bool:
    """Whether the lamp stays off from ``now`` on, until there is another sign."""
    return sign is None or (
        sign.state != "recording" and now - sign.since > max(DONE_S, 2 * REFUSALS * REFUSED_S)
    )
