"""Keeps a worker running: starts it, listens to it, kills it when it hangs or talks nonsense, and starts another."""

import logging
from collections.abc import Sequence
from pathlib import Path

from agent.adaptation.messages import Beat, Decided, Failed, FromWorker, MessageError, Reset
from agent.adaptation.process import COMMAND, WorkerProcess
from agent.adaptation.ring import RingWriter, Shape
from agent.adaptation.types import Sample
from agent.adaptation.watch import WorkerWatch
from agent.config import AdaptationSettings

log = logging.getLogger(__name__)

_TROUBLES = {
    "silent": "it has shown no sign of life for {hang_s:g} s (adaptation.hang_s)",
    "busy": "it has taken more than {decide_s:g} s over one decision (adaptation.decide_s)",
}


class Keeper:
    """One worker at a time. Not thread-safe; used by one thread, whose end the worker does not outlive.

    Attributes:
        problem: why there is no worker that works, in words; empty while there is one, and while the first one begins.
    """

    def __init__(
        self, face: Path, shape: Shape, settings: AdaptationSettings, command: Sequence[str] = COMMAND
    ) -> None:
        """Keep a worker for the face network in file ``face``; none runs yet.

        Args:
            face: the file.
            shape: of the ring.
            settings: as configured.
            command: what is started; see ``agent.adaptation.process``.
        """
        self.problem = ""
        self._face = face
        self._settings = settings
        self._command = command
        self._watch = WorkerWatch(settings)
        self._ring = RingWriter(shape)
        self._worker: WorkerProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process number of the worker; None while there is none."""
        return self._worker.pid if self._worker else None

    @property
    def ready(self) -> bool:
        """There is a worker, and it has begun its work."""
        return self._watch.ready

    @property
    def starts(self) -> int:
        """Workers started so far."""
        return self._watch.starts

    @property
    def chips(self) -> int:
        """Chips given to workers so far."""
        return self._ring.written

    def tend(self, now: float, epoch: int) -> tuple[list[Decided], bool]:
        """Look after the worker; to be called several times a second.

        Args:
            now: monotonic seconds.
            epoch: of the samples that count, for a worker that is started now.

        Returns:
            What it has decided, and whether it was lost.
        """
        if self._worker is None:
            if self._watch.may_start(now):
                self._start(now, epoch)
            return [], False
        decisions: list[Decided] = []
        lost = ""
        try:
            messages, open_still = self._worker.hear()
            for message in messages:
                lost = self._take_in(message, now, decisions) or lost
            if not open_still:
                lost = lost or "it has ended"
        except MessageError as error:
            lost = f"it has sent nonsense: {error}"
        trouble = self._watch.trouble(now)
        if not lost and trouble is not None:
            lost = _TROUBLES[trouble].format(hang_s=self._settings.hang_s, decide_s=self._settings.decide_s)
        if lost:
            self.dismiss(lost, now)
        return decisions, bool(lost)

    def dismiss(self, why: str, now: float, *, in_vain: bool = False) -> None:
        """End the worker for a reason in words; another one follows.

        Args:
            why: the reason.
            now: monotonic seconds.
            in_vain: it has done nothing of use, so wait longer before the next.
        """
        if self._worker is None:
            return
        pid = self._worker.pid
        self._worker.end()
        self._worker = None
        self._watch.ended(now, in_vain=in_vain)
        self.problem = f"the worker of the adaptation was lost: {why}; the pack's own network runs meanwhile"
        log.warning("worker %d of the adaptation: %s; another one is started", pid, why)

    def put(self, sample: Sample, epoch: int) -> None:
        """Give a sample to the worker, which may or may not look at it in time."""
        self._ring.put(sample, epoch)

    def reset(self, reason: str, epoch: int) -> None:
        """Let the worker forget everything; samples of ``epoch`` count from now on."""
        if self._worker:
            self._worker.tell(Reset(reason, epoch))

    def close(self) -> None:
        """End the worker and give back the memory of the ring."""
        if self._worker:
            self._worker.end()
            self._worker = None
        self._ring.close()

    def _start(self, now: float, epoch: int) -> None:
        self._watch.started(now)
        try:
            self._worker = WorkerProcess(self._command, self._face, self._settings, self._ring, epoch)
        except OSError as error:
            self._watch.ended(now)
            self.problem = f"the worker of the adaptation cannot be started: {error}"
            log.warning("%s; it is tried again", self.problem)

    def _take_in(self, message: FromWorker, now: float, decisions: list[Decided]) -> str:
        """Take note of what the worker has said; why it is lost with that, or nothing."""
        match message:
            case Failed():
                return f"it has failed: {message.message}"
            case Beat():
                self._hear(now, message.busy_s, ready=message.ready)
            case Decided():
                self._hear(now, 0.0, ready=True)
                decisions.append(message)
        return ""

    def _hear(self, now: float, busy_s: float, *, ready: bool) -> None:
        """The worker has shown a sign of life."""
        if ready and not self._watch.ready:
            self.problem = ""
        self._watch.heard(now, busy_s, ready=ready)
