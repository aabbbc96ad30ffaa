"""How hot the board is, in which power mode, and what share of the latency budget that leaves.

The board slows its own clocks when it becomes too hot, all at once and for everybody. Doing less before that keeps it
cooler, and what is left out is then chosen: see ``agent.perception.budget``.

Everything is read where jetson-stats reads it, from sysfs and ``nvpmodel``; so it needs neither that package nor its
service. None of this has run on a board.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_RAMP_C = 10.0
"""The budget shrinks over so many degrees below the point where the kernel throttles: our choice. On an Orin that point
is 99 °C for the processor (trip ``cpu-sw-throttle`` in Linux's device tree of the Tegra234)."""

_LEAST = 0.25
"""Share of the budget that is left where the kernel throttles: our choice."""

_PLAUSIBLE_C = (-40.0, 150.0)  # sensors that are switched off tell nonsense
_ASK_S = 2.0  # longest wait for nvpmodel's answer
_ZONES_S = 2.0  # temperatures move within seconds
_MODE_S = 60.0  # power modes are changed by people


@dataclass(frozen=True, slots=True)
class Zone:
    """A thermal zone of the kernel.

    Attributes:
        name: its type, such as ``cpu-thermal``.
        celsius: its temperature.
        throttles: from which temperature the kernel slows clocks for its sake, °C; None if it never does.
    """

    name: str
    celsius: float
    throttles: float | None = None


def share(zones: Iterable[Zone], mode: str | None, modes: Mapping[str, float]) -> float:
    """The share of the budget to plan with, ``_LEAST`` to 1 for heat, and no more than the power mode allows.

    Args:
        zones: as they are now. The one nearest to its limit decides; one without a limit says nothing.
        mode: the power mode; None if there are none.
        modes: share of the budget by power mode, as configured; 1 for a mode that is not named.
    """
    allowed = modes.get(mode, 1.0) if mode is not None else 1.0
    for zone in zones:
        if zone.throttles is not None:
            headroom = min(1.0, max(0.0, (zone.throttles - zone.celsius) / _RAMP_C))
            allowed = min(allowed, _LEAST + (1 - _LEAST) * headroom)
    return allowed


def zones(root: Path = Path("/")) -> tuple[Zone, ...]:
    """The thermal zones that can be read just now; sysfs is below ``root``."""
    found = []
    for folder in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        with suppress(OSError, ValueError):  # the zone of a part that has no power cannot be read
            celsius = _celsius(folder / "temp")
            if _PLAUSIBLE_C[0] < celsius < _PLAUSIBLE_C[1]:
                name = (folder / "type").read_text(encoding="utf-8").strip()
                found.append(Zone(name, celsius, _throttles(folder)))
    return tuple(found)


def _throttles(folder: Path) -> float | None:
    """The lowest trip point that is ``passive``, which is how the kernel calls slowing clocks in place of a fan."""
    limits = []
    for kind in folder.glob("trip_point_*_type"):
        with suppress(OSError, ValueError):
            if kind.read_text(encoding="utf-8").strip() == "passive":
                limits.append(_celsius(kind.with_name(kind.name.replace("_type", "_temp"))))
    return min(
        (limit for limit in limits if limit > 0), default=None
    )  # one that is not used stands at 0 or below


def _celsius(file: Path) -> float:
    """A temperature of sysfs, which is in thousandths of a degree."""
    return int(file.read_text(encoding="utf-8")) / 1e3


def power_mode(search: str = os.environ.get("PATH", "")) -> str | None:
    """The name of the power mode of a Jetson, such as ``MAXN``; None elsewhere, or if it cannot be told.

    Args:
        search: folders in which ``nvpmodel`` is looked for; it lies in /usr/sbin, which users may not search.
    """
    program = shutil.which("nvpmodel", path=os.pathsep.join([search, "/usr/sbin"]))
    if program is None:
        return None
    try:
        said = subprocess.run(
            [program, "-q"], capture_output=True, text=True, errors="replace", timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode: *(\S+)", said.stdout)
    return found[1] if found else None


class Thermometer:
    """What was read last, and when.

    Attributes:
        zones: the thermal zones.
        mode: the power mode.
    """

    def __init__(self) -> None:
        self.zones: tuple[Zone, ...] = ()
        self.mode: str | None = None
        self._zones_at = self._mode_at = float("-inf")

    def look(self, now: float) -> None:
        """Read what is old at ``now``, seconds."""
        if now - self._zones_at >= _ZONES_S:
            self.zones, self._zones_at = zones(), now
        if now - self._mode_at >= _MODE_S:
            self.mode, self._mode_at = power_mode(), now
