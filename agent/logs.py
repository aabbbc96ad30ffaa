"""Where the log goes: to the journal with fields of its own where systemd started us, else to people on stderr.

Names of people and what they look like are personal data: nobody logs them.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from agent.stage import MAY_HANG

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Python's levels and syslog's; what is below the last of them is 7, debug."""


def configure(level: str) -> None:
    """Let the log go where it belongs, from ``level`` on."""
    logging.basicConfig(handlers=[_handler()], format="%(message)s")
    set_level(level)


def set_level(level: str) -> None:
    """Let through what is of ``level`` or above: debug, info, warning or error."""
    logging.getLogger().setLevel(level.upper())


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``stream`` is the journal's, as ``JOURNAL_STREAM`` says (systemd.exec(5)): its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _handler() -> logging.Handler:
    if not is_journal(sys.stderr):
        from rich.console import Console  # noqa: PLC0415
        from rich.logging import RichHandler  # noqa: PLC0415

        return RichHandler(console=Console(stderr=True), show_path=False)
    try:
        from systemd.journal import send  # noqa: PLC0415
    except ImportError:  # comes with the extra `systemd`
        handler = logging.StreamHandler()
        handler.setFormatter(PriorityFormatter())
        return handler
    return JournalHandler(send)


class PriorityFormatter(logging.Formatter):
    """Each line with its priority before it, as sd-daemon(3) has it: ``<4>`` is a warning."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, and the traceback where there is one."""
        lines = super().format(record).splitlines()
        return "\n".join(f"<{priority(record.levelno)}>{line}" for line in lines)


class JournalHandler(logging.Handler):
    """Entries with the fields ``STAGE`` and ``CAMERA``, by which ``journalctl`` selects.

    systemd-python's own handler also sends every attribute of a record, arguments included.
    """

    def __init__(self, send: Callable[..., object]) -> None:
        """``send`` is ``systemd.journal.send``: the message, then fields."""
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        try:
            self._send(self.format(record), **fields(record))
        except Exception:  # as every handler does: the log must not take the service down
            self.handleError(record)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a journal entry. A record says ``extra={"camera": name}`` where one is meant."""
    stage = getattr(record, "stage", None) or (record.threadName or "").removesuffix(MAY_HANG)
    named = {"STAGE": "" if stage == "MainThread" else stage, "CAMERA": getattr(record, "camera", None)}
    return {
        "PRIORITY": priority(record.levelno),
        "SYSLOG_IDENTIFIER": "cabinsense",
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        **{name: value for name, value in named.items() if value},
    }


def priority(level: int) -> int:
    """Syslog's priority of one of Python's levels."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)
