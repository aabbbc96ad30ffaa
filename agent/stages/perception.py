"""The perception thread: takes the frame that has waited longest, makes a reading of it, hands it on."""

import threading
import time
from collections.abc import Sequence
from functools import partial

from agent.config import Config
from agent.live import Live
from agent.mailbox import Mailbox, take_any
from agent.perception.chain import Chain
from agent.perception.types import Frame, Reading
from agent.stage import Stage
from agent.statistics import FrameTimes


class PerceptionStage(Stage):
    """One thread for all cameras."""

    def __init__(
        self,
        config: Config,
        chain: Chain,
        threshold: float,
        live: Live,
        boxes: Sequence[Mailbox[Frame]],
        arrival: threading.Condition,
        outlets: Sequence[Mailbox[Reading]],
    ) -> None:
        """Read from ``boxes``, which share ``arrival``; leave each reading in every one of ``outlets``."""
        super().__init__("perception")
        self.times = FrameTimes()
        self._chain = chain
        self._threshold = threshold
        self._margin = config.identity.margin
        self._lost_s = config.tracking.lost_s
        self._live = live
        self._boxes = boxes
        self._arrival = arrival
        self._outlets = outlets

    def work(self) -> None:
        """Read frames until told to stop."""
        matcher = self._live.matcher
        while not self.stopping.is_set():
            self.beat()
            frame = take_any(self._boxes, self._arrival, timeout=0.1)
            self._end_silent(self._lost_s)
            if frame is None:
                continue
            if matcher is not self._live.matcher:
                matcher = self._live.matcher
                self._chain.forget_identities()
            ask = partial(matcher.match, threshold=self._threshold, margin=self._margin)
            recording = self._live.recording.is_set()
            reading = self._chain.process(frame, ask, look_always=recording)
            self.times.add(reading)
            for outlet in self._outlets:
                outlet.put(reading)
            if recording:
                self._live.readings.put(reading)
        self._end_silent(0)

    def _end_silent(self, silence: float) -> None:
        """Tell that nobody is seen any more by a camera that has stopped delivering."""
        for reading in self._chain.end_silent(time.monotonic(), time.time(), silence):
            for outlet in self._outlets:
                outlet.put(reading)
