"""The perception thread: takes the frame that has waited longest, makes a reading of it, hands it on."""

import threading
import time
from collections.abc import Sequence
from functools import partial

from agent.adaptation.rise import raised
from agent.config import Config
from agent.face_slot import FaceSlot
from agent.gallery.matcher import Matcher
from agent.gallery.threshold import in_force
from agent.live import Lesson, Live
from agent.mailbox import Mailbox, take_any
from agent.networks import load
from agent.perception.chain import Chain
from agent.perception.types import Frame, Looked, Reading, Stamp
from agent.stage import Stage
from agent.statistics import FrameTimes
from engines.pack import Pack


class PerceptionStage(Stage):
    """One thread for all cameras. Networks belong to it: whoever takes its place loads his own.

    It fails with EngineError or ConfigError when a model does not load.
    """

    def __init__(
        self,
        config: Config,
        pack: Pack,
        live: Live,
        boxes: Sequence[Mailbox[Frame]],
        arrival: threading.Condition,
        outlets: Sequence[Mailbox[Reading]],
        times: FrameTimes,
        before: "PerceptionStage | None" = None,
    ) -> None:
        """Read from ``boxes``, which share ``arrival``; leave each reading in every one of ``outlets``.

        Args:
            config: says how models run. What may change while the daemon runs is taken from ``live``.
            pack: of the models.
            live: what stages share.
            boxes: one a camera.
            arrival: wakes the stage when one of them has got a frame.
            outlets: get every reading.
            times: gets the times of every reading.
            before: the stage in whose place this is put. Its tracks are told as lost, their numbers not used again.
        """
        super().__init__("perception")
        self.notes: tuple[str, ...] = ()
        self._config = config
        self._pack = pack
        self._live = live
        self._boxes = boxes
        self._arrival = arrival
        self._outlets = outlets
        self._times = times
        self._chain: Chain | None = None
        self._first_tracks = before.next_tracks if before else {}

    @property
    def next_tracks(self) -> dict[str, int]:
        """For each camera the number that its next track gets, where that is not 1."""
        return self._chain.next_tracks if self._chain else self._first_tracks

    def work(self) -> None:
        """Load the models, then read frames until told to stop."""
        for camera in self._first_tracks:
            self._hand_on(Reading(Stamp(camera, -1, time.monotonic(), time.time()), ()))
        networks = load(self._pack, self._config, coarse=True)  # a budget may be set by a reload
        slot = FaceSlot(networks.face)
        try:
            self.notes = networks.notes
            config = self._live.config
            self._chain = Chain(networks, config, time.monotonic, self._first_tracks)
            with self.acting():
                self._live.face = slot
            self._read(self._chain, config, slot)
        finally:
            slot.release()
            slot.sweep()
            networks.close()

    def _read(self, chain: Chain, config: Config, slot: FaceSlot) -> None:
        newest = self._live.matcher
        # A matcher is asked by one thread only, and the one that was given up may have woken up.
        matcher = Matcher(newest.snapshot) if self._first_tracks else newest
        while not self.stopping.is_set():
            self.beat()
            frame = take_any(self._boxes, self._arrival, timeout=0.1)
            if config is not self._live.config:
                config = self._live.config
                chain.reconfigure(config)
            self._end_silent(chain, config.tracking.lost_s)
            if frame is None:
                continue
            if newest is not self._live.matcher:
                newest = matcher = self._live.matcher
                chain.forget_identities()
            known = matcher.snapshot
            threshold = in_force(
                config.identity, self._pack.manifest.face, len(known.names), known.calibrated
            ).value
            chain.budget.ease(self._live.budget_share)
            recording = self._live.recording.is_set()
            # Who is enrolled is so by the pack's own network.
            slot.take(chain.use_face, source_only=recording)
            threshold = raised(threshold, slot.rise)
            ask = partial(matcher.match, threshold=threshold, margin=config.identity.margin)
            learning = self._live.adapting.is_set() and not recording
            if learning is (chain.looked is None):
                chain.looked = [] if learning else None
            reading = chain.process(frame, ask, look_always=recording)
            self._hand_on(reading, recording=recording, looked=chain.looked)
        self._end_silent(chain, 0)

    def _hand_on(
        self, reading: Reading, *, recording: bool = False, looked: list[Looked] | None = None
    ) -> None:
        """Leave a reading to those who want it."""
        with self.acting():
            if reading.frame.index >= 0:
                self._times.add(reading)
            for outlet in self._outlets:
                outlet.put(reading)
            if recording:
                self._live.readings.put(reading)
            if looked is not None:
                self._live.lessons.put(Lesson(reading, tuple(looked)))

    def _end_silent(self, chain: Chain, silence: float) -> None:
        """Tell that nobody is seen any more by a camera that has stopped delivering."""
        for reading in chain.end_silent(time.monotonic(), time.time(), silence):
            self._hand_on(reading)
