"""What the threads of the daemon share besides their mailboxes."""

import threading

from agent.config import Config
from agent.events import HealthEvent
from agent.gallery.matcher import Matcher
from agent.gallery.types import Snapshot
from agent.mailbox import Mailbox
from agent.perception.types import Reading

_UNREAD = 16  # readings that may wait for the control stage, which takes them every few milliseconds


class Live:
    """The state of the running agent. Values are immutable and replaced by assignment, so no reader needs a lock.

    Attributes:
        matcher: answers from ``snapshot``. Only the perception stage asks it.
        health: the newest health event; None before the first. Written by the health stage.
        config: the configuration in force. Written by the daemon when it is read again.
        budget_share: how much of the latency budget to plan with, 0 to 1. Written by the health stage.
        recording: set while the control stage wants ``readings``, in which every face has been looked at.
        readings: filled by the perception stage while ``recording`` is set.
    """

    def __init__(self, snapshot: Snapshot, config: Config | None = None) -> None:
        self.matcher = Matcher(snapshot)
        self.config = config or Config()
        self.health: HealthEvent | None = None
        self.budget_share = 1.0
        self.recording = threading.Event()
        self.readings = Mailbox[Reading](_UNREAD)

    @property
    def snapshot(self) -> Snapshot:
        """The gallery that faces are matched against. Written by the control stage."""
        return self.matcher.snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        # Made here, in the writer's thread: for a large gallery it takes seconds, which no frame may wait for.
        self.matcher = Matcher(snapshot)
