"""What the threads of the daemon share besides their mailboxes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.button import Press
from agent.config import Config, ConfigError
from agent.events import AdaptationHealth, DriverEvent, HealthEvent
from agent.face_slot import FaceSlot
from agent.gallery.matcher import Matcher
from agent.gallery.types import Snapshot
from agent.led import Sign
from agent.mailbox import Mailbox
from agent.perception.types import Looked, Reading

_PRESSES = 8  # that may wait for the control stage
_UNREAD = 16  # readings that may wait for the control stage, which takes them every few milliseconds
_UNSEEN = (
    16  # likewise for the adaptation stage, with chips of 68 KB; when it builds an engine it misses some
)


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a new configuration.

    Attributes:
        config: in force from now on.
        changed: keys that have changed and take effect.
        waiting: keys that differ from what the daemon was started with, and need a restart.
    """

    config: Config
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A reading, and the looks in it that something may be learned from."""

    reading: Reading
    looked: tuple[Looked, ...]


class Live:
    """The state of the running agent. Values are immutable and replaced by assignment, so no reader needs a lock.

    Attributes:
        matcher: says who it is, from ``snapshot``.
        gallery_readable: False while nobody is matched, for the gallery cannot be read. Written by the control stage.
        health: the newest health event; None before the first. Written by the health stage.
        driver: the newest driver event; None before the first. Written by the publisher stage.
        config: the configuration in force. Written by ``reload``.
        reload: reads the configuration again; see ``agent.reload``. Set by the daemon.
        budget_share: how much of the latency budget to plan with, 0 to 1. Written by the health stage.
        recording: set while the control stage wants ``readings``, in which every face has been looked at.
        readings: filled by the perception stage while ``recording`` is set.
        face: where the adaptation stage offers another face engine; None until the models are loaded. Each perception
            stage sets its own.
        adapting: set while the adaptation stage wants ``lessons``.
        lessons: filled by the perception stage while ``adapting`` is set and ``recording`` is not.
        adaptation: how the adaptation is; None while it is off. Written by the adaptation stage.
        reset_adaptation: set by the control stage when the adaptation is to begin anew.
        presses: of the record button. Filled by the button stage, read by the control stage.
        sign: what the lamp beside the button shows; None before the first recording. Written by the control stage.
    """

    def __init__(self, snapshot: Snapshot, config: Config | None = None) -> None:
        self.matcher = Matcher(snapshot)
        self.gallery_readable = True
        self.config = config or Config()
        self.reload: Callable[[], Change] = _nothing_to_read
        self.health: HealthEvent | None = None
        self.driver: DriverEvent | None = None
        self.budget_share = 1.0
        self.recording = threading.Event()
        self.readings = Mailbox[Reading](_UNREAD)
        self.face: FaceSlot | None = None
        self.adapting = threading.Event()
        self.lessons = Mailbox[Lesson](_UNSEEN)
        self.adaptation: AdaptationHealth | None = None
        self.reset_adaptation = threading.Event()
        self.presses = Mailbox[Press](_PRESSES)
        self.sign: Sign | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The gallery that faces are matched against."""
        return self.matcher.snapshot


def _nothing_to_read() -> Change:
    raise ConfigError("there is no configuration that could be read again")
