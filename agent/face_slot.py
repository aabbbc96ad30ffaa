"""Where the face engine in use changes hands between the perception thread and whoever makes new ones."""

import threading
import time
from collections.abc import Callable

from engines.engine import Engine


class FaceSlot:
    """The face engines of one perception stage: its own, the one that is offered, the one in use.

    With each comes by how much more strictly people are judged while it runs; see ``agent.adaptation.rise``.

    The perception thread takes what is offered between two frames. Engines are closed by whoever offers them, never
    while perception may still run one.

    Attributes:
        source: perception's own engine, as the pack has it. Others may call nothing but its ``with_norms``.
        offered: what is to run from the next frame on; None: the source.
        in_use: what runs; None: the source.
        rise: of what runs; 0 for the source.
        swap_ms: how long the last change took the perception thread, milliseconds.
    """

    def __init__(self, source: Engine) -> None:
        self.source = source
        self.offered: Engine | None = None
        self.in_use: Engine | None = None
        self.rise = 0.0
        self._offered_rise = 0.0
        self.swap_ms = 0.0
        self._made: list[Engine] = []
        self._released = False
        self._lock = threading.Lock()

    def take(self, use: Callable[[Engine], None], *, source_only: bool = False) -> None:
        """Change over to what is offered, in the perception thread.

        Args:
            use: runs another engine from now on.
            source_only: change over to the source, whatever is offered.
        """
        if self.in_use is (None if source_only else self.offered):
            return
        began = time.perf_counter()
        with self._lock:
            wanted = None if source_only else self.offered
            use(self.source if wanted is None else wanted)
            self.in_use = wanted
            self.rise = 0.0 if wanted is None else self._offered_rise
        self.swap_ms = (time.perf_counter() - began) * 1e3

    def release(self) -> None:
        """Perception runs no engine any more."""
        with self._lock:
            self._released, self.in_use, self.offered, self.rise = True, None, None, 0.0

    def offer(self, engine: Engine | None, rise: float = 0.0) -> None:
        """Let this engine run from the next frame on, or the source; it belongs to the slot from now on."""
        with self._lock:
            if engine is not None:
                self._made.append(engine)
            self.offered = None if self._released else engine
            self._offered_rise = rise

    def sweep(self) -> int:
        """Close the engines that are neither offered nor in use, and say how many; errors are for the caller."""
        with self._lock:
            kept = [engine for engine in self._made if engine in (self.offered, self.in_use)]
            gone = [engine for engine in self._made if engine not in kept]
            self._made = kept
        for engine in gone:
            engine.close()
        return len(gone)

    @property
    def empty(self) -> bool:
        """Nothing is left to be closed, and nothing can be offered any more."""
        return self._released and not self._made
