"""The adaptation thread: chips to the worker, its decisions back, and new face engines to the perception thread."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from agent import spare_memory
from agent.adaptation.chip_filter import adaptable, adapted
from agent.adaptation.keeper import Keeper
from agent.adaptation.messages import Decided, MessageError, figures_of, norms_of
from agent.adaptation.process import COMMAND
from agent.adaptation.ring import Shape
from agent.adaptation.triggers import CameraWatch, DriverWatch, track_number
from agent.adaptation.types import Norms, Sample
from agent.config import AdaptationSettings
from agent.events import AdaptationEvent, AdaptationHealth, CameraHealth, Event, Tier
from agent.face_slot import FaceSlot
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Looked
from agent.perception.vote import softmax
from agent.publishing import rfc3339
from agent.stage import Stage
from engines.engine import Engine, EngineError
from engines.model import read_model
from engines.pack import Pack, no_bank

log = logging.getLogger(__name__)

_TURN_S = 0.05  # between two looks at everything: chips of a second, decisions of seconds
_TAKEN_S = 1.0  # a change that no frame has brought about for so long is told without its time


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of engines that the perception thread has yet to make, and what is to be told of it.

    Attributes:
        engine: the new one; None: the source.
        event: without ``swap_ms``.
        since: when it was offered, monotonic seconds.
    """

    engine: Engine | None
    event: AdaptationEvent
    since: float


class AdaptationStage(Stage):
    """Adapts while ``adaptation.tier`` is not ``off``; the perception thread notices nothing but another engine.

    Whatever happens to the worker, the pack's own network, the source, takes over and the daemon goes on.

    Attributes:
        problem: why nothing is adapted just now, with what becomes of it; empty while all is well.
    """

    def __init__(
        self,
        pack: Pack,
        live: Live,
        outbox: Mailbox[Event],
        cameras: Callable[[], Sequence[CameraHealth]],
        names: Sequence[str],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Offer engines in ``live.face``.

        Args:
            pack: its face network is adapted.
            live: what stages share.
            outbox: takes an event for each decision.
            cameras: how the cameras are.
            names: of all cameras.
            command: starts a worker.
        """
        super().__init__("adaptation")
        self._pack = pack
        self._live = live
        self._outbox = outbox
        self._cameras = cameras
        self._names = names
        self._command = command
        self._settings = AdaptationSettings()
        self._tier: Tier = "statistics"
        self._source: Norms = {}
        self._keeper: Keeper | None = None
        self._slot: FaceSlot | None = None
        self._camera_watch, self._driver_watch = CameraWatch(), DriverWatch()
        self._epoch = 0
        self._learn_from = 0.0
        self._paused = False
        self._norms: Norms = {}
        self._rise = 0.0
        self._state_since = self._confirmed = time.monotonic()
        self._change: _Change | None = None
        self._accepted = self._refused = self._resets = 0
        self._reason: str | None = None
        self._refused_for: set[str] = set()  # since what runs has last changed

    def work(self) -> None:
        """Adapt until told to stop."""
        try:
            self._source = adaptable(read_model(self._pack.face))
            while not self.stopping.is_set():
                self.beat()
                self._turn(time.monotonic())
                self.stopping.wait(_TURN_S)
        finally:
            with self.acting():
                self.release()

    def release(self) -> None:
        """Let the source run again, and end the worker."""
        self._live.adapting.clear()
        self._live.adaptation = None
        if self._slot:
            self._slot.offer(None)
        if self._keeper:
            self._keeper.close()
            self._keeper = None

    def _turn(self, now: float) -> None:
        """Look at everything once."""
        settings = self._live.config.adaptation
        if settings != self._settings:
            self._reconfigure(settings, now)
        if self._keeper is None:
            self._settle(now)
            return
        if self._slot is not self._live.face:
            self._follow(self._live.face, now)
        self._heed(now)
        with self.acting():
            decisions, lost = self._keeper.tend(now, self._epoch)
        for decision in decisions:
            self._consider(self._keeper, decision, now)
        if lost:
            self._reset("worker", now)
        self._feed(self._keeper, now)
        if self._norms and now - self._confirmed > settings.max_away_s:
            self._reset("stale", now)
        self._settle(now)
        with self.acting():
            self.problem = self._keeper.problem
            self._live.adaptation = self._health(self._keeper)

    def _reconfigure(self, settings: AdaptationSettings, now: float) -> None:
        """Begin anew by other settings, or end."""
        if self._settings.tier != "off":
            self._reset("settings", now)
        self._live.adapting.clear()
        while self._live.lessons.take(0) is not None:
            pass  # chips of before; nobody is to learn from them
        with self.acting():
            if self._keeper:
                self._keeper.close()
            self._keeper, self.problem, self._live.adaptation = None, "", None
            self._settings = settings
            if settings.tier == "off":
                return
            self._tier = settings.tier
            if self._pack.bank is None:
                self.problem = f"nothing is adapted: {no_bank(self._pack)}"
                log.warning(self.problem)
                return
            face = self._pack.manifest.face
            shape = Shape(face.side, len(face.labels))
            self._keeper = Keeper(self._pack.face, shape, settings, self._command)
            self._live.adapting.set()

    def _follow(self, slot: FaceSlot | None, now: float) -> None:
        """The perception stage is another one, with a source of its own: begin there."""
        first = self._slot is None
        if self._slot:
            self._slot.offer(None)
        self._slot = slot
        if not first:
            self._reset("perception", now)

    def _heed(self, now: float) -> None:
        """Go back to the source when what was learned is about something else than what is seen now."""
        if self._live.reset_adaptation.is_set():
            self._live.reset_adaptation.clear()
            self._reset("request", now)
        if trigger := self._camera_watch.look(self._cameras()):
            self._reset(trigger, now)
        recording = self._live.recording.is_set()
        if recording and not self._paused:
            self._reset("recording", now)
        self._paused = recording

    def _reset(self, trigger: str, now: float) -> None:
        """Back to the source at once; what was seen so far does not count any more."""
        self._epoch += 1
        self._learn_from = now
        self._resets += 1
        with self.acting():
            if self._keeper:
                self._keeper.reset(trigger, self._epoch)
        self._go_over(None, {}, 0.0, f"reset:{trigger}", now)

    def _feed(self, keeper: Keeper, now: float) -> None:
        """Hand on the chips that have come in."""
        while (lesson := self._live.lessons.take(0)) is not None:
            frame = lesson.reading.frame
            if trigger := self._driver_watch.look(lesson.reading):
                self._reset(trigger, now)
            if lesson.reading.valid and frame.captured >= self._learn_from and not self._paused:
                for looked in lesson.looked:
                    keeper.put(self._sample(frame.camera, looked), self._epoch)

    def _sample(self, camera: str, looked: Looked) -> Sample:
        track = track_number(self._names, camera, looked.track)
        return Sample(looked.chip, tuple(softmax(looked.logits).tolist()), track, looked.captured)

    def _consider(self, keeper: Keeper, decision: Decided, now: float) -> None:
        """Do what the worker has decided, if it can be done and is about what is seen now."""
        slot = self._slot
        if decision.epoch != self._epoch or self._paused or slot is None:
            return
        try:
            norms = norms_of(decision, self._source)
        except MessageError as error:
            self._refuse("invalid", decision)
            with self.acting():
                keeper.dismiss(f"it has proposed what cannot be: {error}", now, in_vain=True)
            self._reset("worker", now)
            return
        if not decision.accepted:
            self._refuse(decision.reason, decision)
            return
        self._confirmed = now
        if _same(norms, self._norms):
            self._tell(self._event(decision.reason, decision), level=logging.DEBUG)
        elif not norms:
            self._go_over(None, {}, 0.0, decision.reason, now, decision)
        else:
            self._build(slot, norms, decision)

    def _build(self, slot: FaceSlot, norms: Norms, decision: Decided) -> None:
        """Make an engine with new norm parameters, try it, and offer it."""
        began = time.monotonic()
        try:
            engine = adapted(slot.source, norms)
        except (EngineError, ValueError) as error:
            log.warning("no engine could be made of what the adaptation proposes: %s", error)
            self._refuse("engine", decision)
            return
        try:
            # The first run chooses kernels and reserves memory: here it costs no frame anything.
            well = all(np.isfinite(output).all() for output in engine.run().values())
        except EngineError as error:
            log.warning("the engine of what the adaptation proposes does not run: %s", error)
            well = False
        now = time.monotonic()
        if not well or self._live.recording.is_set() or slot is not self._live.face:
            engine.close()
            self._refuse("overtaken" if well else "engine", decision)
            return
        self._go_over(engine, norms, decision.rise, decision.reason, now, decision, (now - began) * 1e3)

    def _go_over(
        self,
        engine: Engine | None,
        norms: Norms,
        rise: float,
        reason: str,
        now: float,
        decision: Decided | None = None,
        build_ms: float | None = None,
    ) -> None:
        """Let perception run ``engine``, which has ``norms`` and ``rise``, from the next frame on; None: the source."""
        self._settle(now, last=True)
        if bool(norms) != bool(self._norms):
            self._state_since = now
        self._norms, self._rise = norms, rise
        self._refused_for.clear()
        self._accepted += decision is not None
        event = self._event(reason, decision, build_ms)
        slot = self._slot
        if slot is None or slot.in_use is engine:  # only the source can run already
            self._tell(event)
            return
        with self.acting():
            slot.offer(engine, rise)
        self._change = _Change(engine, event, now)

    def _settle(self, now: float, *, last: bool = False) -> None:
        """Tell of a change once it was made, at the ``last`` in any case; close engines that nobody needs any more."""
        slot, change = self._slot, self._change
        if slot is None:
            return
        if change is not None:
            made = slot.in_use is change.engine
            if made or last or now - change.since > _TAKEN_S:
                self._change = None
                self._tell(change.event, slot.swap_ms if made else None)
        with self.acting():
            if slot.sweep():
                spare_memory.give_back()

    def _refuse(self, reason: str, decision: Decided) -> None:
        """What runs goes on."""
        self._refused += 1
        level = logging.DEBUG if reason in self._refused_for else logging.INFO
        self._refused_for.add(reason)
        self._tell(self._event(reason, decision, accepted=False), level=level)

    def _event(
        self,
        reason: str,
        decision: Decided | None = None,
        build_ms: float | None = None,
        *,
        accepted: bool = True,
    ) -> AdaptationEvent:
        self._reason = reason
        return AdaptationEvent(
            monotonic=time.monotonic(),
            utc=rfc3339(time.time()),
            tier=self._tier,
            accepted=accepted,
            state=_state(self._norms),
            reason=reason,
            figures=figures_of(decision) if decision else {},
            layers=layers(self._norms),
            rise=round(self._rise, 4),
            decide_ms=round(decision.seconds * 1e3, 3) if decision else None,
            build_ms=None if build_ms is None else round(build_ms, 3),
        )

    def _tell(
        self, event: AdaptationEvent, swap_ms: float | None = None, *, level: int = logging.INFO
    ) -> None:
        """Publish a decision, and log it: what changes nothing, and is not refused for a new reason, at ``DEBUG``."""
        if swap_ms is not None:
            event = msgspec.structs.replace(event, swap_ms=round(swap_ms, 4))
        log.log(
            level,
            "adaptation: %s, %s; %s runs, %d layers changed",
            event.reason,
            "accepted" if event.accepted else "refused",
            "the source" if event.state == "source" else "an adapted network",
            len(event.layers),
        )
        with self.acting():
            self._outbox.put(event)

    def _health(self, keeper: Keeper) -> AdaptationHealth:
        return AdaptationHealth(
            tier=self._tier,
            state=_state(self._norms),
            since=self._state_since,
            worker=keeper.pid,
            ready=keeper.ready,
            restarts=max(0, keeper.starts - 1),
            chips=keeper.chips,
            accepted=self._accepted,
            refused=self._refused,
            resets=self._resets,
            reason=self._reason,
            rise=round(self._rise, 4),
        )


def layers(norms: Norms) -> tuple[str, ...]:
    """The norm layers that parameters belong to, sorted; ``chip`` is the filter before the network."""
    return tuple(sorted({name.removeprefix("norm.").rpartition(".")[0] for name in norms}))


def _state(norms: Norms) -> Literal["source", "adapted"]:
    return "adapted" if norms else "source"


def _same(norms: Norms, others: Norms) -> bool:
    return norms.keys() == others.keys() and all(np.array_equal(norms[name], others[name]) for name in norms)
