"""The configuration read again while the daemon runs: what takes effect at once, and what waits for a restart."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from agent.config import Config, ConfigError
from agent.live import Change, Live

log = logging.getLogger(__name__)

LIVE = (
    "detector.threshold",
    "detector.overlap",
    "detector.max_faces",
    "tracking",
    "budget",
    "quality",
    "identity",
    "driver.zone",
    "driver.side",
    "driver.yaw",
    "driver.pitch",
    "driver.max_yaw",
    "driver.max_down",
    "adaptation",
    "freshness",
    "events.health_s",
    "supervision",
    "log",
)
"""Keys, and tables with all of their keys, that take effect while the daemon runs. All others need a restart."""


def change(running: Config, wanted: Config) -> Change:
    """What becomes of ``wanted`` while ``running`` is in force.

    Raises:
        ConfigError: what may change does not go with what may not.
    """
    have, want = msgspec.to_builtins(running), msgspec.to_builtins(wanted)
    flat, other = dict(_flat(have)), dict(_flat(want))
    differing = [key for key in flat | other if flat.get(key) != other.get(key)]
    changed = tuple(key for key in differing if _is_live(key))
    for key in changed:
        table, _, name = key.rpartition(".")
        (have[table] if table else have)[name] = other[key]
    try:
        config = msgspec.convert(have, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the new configuration does not go with what needs a restart: {error}; restart the daemon"
        ) from error
    return Change(config, changed, tuple(key for key in differing if not _is_live(key)))


def _flat(tables: dict[str, Any]) -> list[tuple[str, Any]]:
    """Each key with its table's name before it; what is in a list or deeper is one value."""
    keys = []
    for name, value in tables.items():
        if isinstance(value, dict):
            keys += [(f"{name}.{key}", each) for key, each in value.items()]
        else:
            keys.append((name, value))
    return keys


def _is_live(key: str) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in LIVE)


class Reloader:
    """Reads the configuration again when it is asked to, from whichever thread.

    Attributes:
        waiting: keys that differ from what the daemon was started with, and need a restart.
    """

    def __init__(self, read: Callable[[], Config], live: Live) -> None:
        """``read`` gives the configuration as it is now; what changes goes into ``live``."""
        self._read = read
        self._live = live
        self._lock = threading.Lock()
        self._refused = ""
        self.waiting: tuple[str, ...] = ()

    def reload(self) -> Change:
        """Read it again. One that cannot be used is refused as a whole, and the running one stays.

        Raises:
            ConfigError: it cannot be used.
        """
        with self._lock:
            try:
                done = change(self._live.config, self._read())
            except ConfigError as error:
                self._refused = str(error)
                log.error("the configuration was read again and refused: %s", error)  # noqa: TRY400
                raise
            self._refused, self.waiting = "", done.waiting
            self._live.config = done.config
        told = [f"changed: {', '.join(done.changed) or 'nothing'}"]
        if done.waiting:
            told.append(f"a restart is needed for: {', '.join(done.waiting)}")
        log.info("the configuration was read again; %s", "; ".join(told))
        return done

    def problems(self) -> tuple[str, ...]:
        """What a person should know, with the remedy."""
        problems = []
        if self._refused:
            problems.append(f"the new configuration was refused, the old one is in force: {self._refused}")
        if self.waiting:
            keys = ", ".join(self.waiting)
            problems.append(f"the configuration has changed where that needs a restart of the daemon: {keys}")
        return tuple(problems)
