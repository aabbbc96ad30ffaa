"""The part of the control thread that records people: a session's readings in, events, replies and samples out."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from agent import control
from agent.config import Config
from agent.control import Progress, Recorded, Refused, Reply
from agent.enrolment import Judgement, Refusal, Session, agreement_floor, conflict
from agent.events import EnrollmentEvent, Event
from agent.gallery.store import Gallery
from agent.gallery.types import GalleryError
from agent.guidance import ADVICE
from agent.led import Sign
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Stamp
from agent.publishing import rfc3339

_ALIVE_S = 1.0  # a client that wants to see the progress hears from us at least so often

State = Literal["started", "hint", "sample", "done", "refused"]


@dataclass(slots=True)
class _Recording:
    """A recording that is going on, and whom to tell of it.

    Attributes:
        envelope: of the client that asked for it; None for the button.
        name: of the person, as it will be stored.
        request: what was asked for.
        camera: the one that sees the person.
        session: what has come of it so far.
        hint: what was told last.
        known: whether the gallery has been asked about the person.
        sent: when the client last heard of it, monotonic seconds.
    """

    envelope: list[bytes] | None
    name: str
    request: control.Record
    camera: str
    session: Session
    hint: str
    sent: float
    known: bool = False


class Recorder:
    """Records one person at a time."""

    def __init__(
        self,
        config: Config,
        pack_digest: str,
        live: Live,
        outbox: Mailbox[Event],
        threshold: float,
        gallery: Gallery,
        acting: Callable[[], AbstractContextManager[None]],
        send: Callable[[list[bytes], Reply], bool],
        show_gallery: Callable[[], None],
    ) -> None:
        """A recorder of the stage whose ``acting`` it is.

        Args:
            config: how long, how many samples.
            pack_digest: of the pack that makes the samples.
            live: what stages share.
            outbox: takes the events.
            threshold: the pack's own.
            gallery: takes the samples.
            acting: see ``Stage.acting``.
            send: replies to an envelope, and says whether the client is still there.
            show_gallery: lets perception match against the gallery as it is now.
        """
        self._settings = config.enrolment
        self._max_samples = config.gallery.max_samples
        self._pack_digest = pack_digest
        self._live = live
        self._outbox = outbox
        self._threshold = threshold
        self._gallery = gallery
        self._acting = acting
        self._send = send
        self._show_gallery = show_gallery
        self._recording: _Recording | None = None

    @property
    def name(self) -> str:
        """Whoever is being recorded; empty if nobody is."""
        return self._recording.name if self._recording else ""

    def begin(self, request: control.Record, camera: str, envelope: list[bytes] | None) -> None:
        """Begin to record before ``camera``; the client of ``envelope`` is told of the end.

        Raises:
            GalleryError: the name cannot be used.
        """
        if request.name or request.add:
            name = self._gallery.check_new(request.name, add=request.add)
        else:
            name = self._gallery.next_driver_name()
        now = time.monotonic()
        seconds = self._settings.seconds if request.seconds is None else request.seconds
        session = Session(camera, now, seconds, self._settings, self._max_samples, self._threshold)
        self._recording = _Recording(envelope, name, request, camera, session, session.hint, now)
        with self._acting():
            self._live.recording.set()
        self._guide(self._recording, "started")

    def turn_down(self, camera: str, code: str, message: str) -> None:
        """Tell of a recording that could not begin, where no client is told."""
        self._show(Sign("refused", time.monotonic()))
        self._publish("", camera, "refused", None, reason=code, advice=message)

    def cancel(self, code: str) -> None:
        """End a recording that is going on, for a reason that is a code of ``ADVICE``; nothing of it is kept."""
        if self._recording:
            self._refuse(self._recording, code, ADVICE[code])

    def go_on(self) -> None:
        """Take in what was seen meanwhile, and come to an end when it is time."""
        recording = self._recording
        if recording is None:
            return
        session = recording.session
        while self._recording is recording and (reading := self._live.readings.take(0)) is not None:
            pose = session.wanted
            if session.add(reading):
                self._tell(recording, "sample", reading.frame, pose=pose)
        if self._recording is not recording:
            return  # the client has gone
        if session.wanted != "straight" and not recording.known and (refusal := self._conflict(recording)):
            self._refuse(recording, refusal.code, refusal.advice, refusal.detail)
        elif session.over(time.monotonic()):
            self._finish(recording)
        elif session.hint != recording.hint:
            recording.hint = session.hint
            self._guide(recording, "hint")
        elif recording.request.progress and time.monotonic() - recording.sent >= _ALIVE_S:
            self._reply(recording, Progress(event=None))

    def _conflict(self, recording: _Recording) -> Refusal | None:
        """Why the gallery speaks against enrolling this person; asked once, of the straight looks."""
        recording.known = True
        request, straight = recording.request, recording.session.straight
        if request.anyway or not straight:
            return None
        running, floor = self._live.config.identity.threshold, agreement_floor(self._threshold)
        judgement = Judgement(self._threshold if running is None else running, floor)
        name = recording.name if request.add else None
        return conflict([sample.embedding for sample in straight], self._live.snapshot, name, judgement)

    def _finish(self, recording: _Recording) -> None:
        """The session is over: enrol the person, or say why not."""
        session, request, name = recording.session, recording.request, recording.name
        taken = session.samples
        refusal = session.refusal() or (None if recording.known else self._conflict(recording))
        if refusal:
            self._refuse(recording, refusal.code, refusal.advice, refusal.detail)
            return
        try:
            with self._acting():
                samples = self._gallery.enrol(
                    name, taken, self._pack_digest, self._max_samples, add=request.add
                )
        except (
            GalleryError,
            ValueError,
        ) as error:  # ValueError: the samples do not fit those that are stored
            self._refuse(recording, "gallery", str(error), str(error))
            return
        self._show_gallery()
        poses, missing = session.poses, session.missing
        self._tell(recording, "done", poses=poses, missing=missing)
        self._end(
            recording,
            "done",
            Recorded(name=name, taken=len(taken), samples=samples, poses=poses, missing=missing),
        )

    def _refuse(self, recording: _Recording, code: str, message: str, detail: str = "") -> None:
        self._tell(recording, "refused", reason=code, detail=detail or None, advice=message)
        self._end(recording, "refused", Refused(code=code, message=message))

    def _end(self, recording: _Recording, state: Literal["done", "refused"], reply: Reply) -> None:
        with self._acting():
            self._live.recording.clear()
        self._show(Sign(state, time.monotonic()))
        self._recording = None
        if recording.envelope is not None:
            self._send(recording.envelope, reply)

    def _guide(self, recording: _Recording, state: Literal["started", "hint"]) -> None:
        """Tell the person what to do now, in words and by the lamp."""
        session = recording.session
        pose = session.wanted or ""
        self._show(Sign("recording", time.monotonic(), pose, recording.hint))
        self._tell(recording, state, pose=pose, hint=recording.hint, advice=ADVICE[recording.hint])

    def _tell(self, recording: _Recording, state: State, frame: Stamp | None = None, **fields: Any) -> None:
        """Publish an event, and send it to the client if that wants to see the progress."""
        session = recording.session
        event = self._publish(
            recording.name,
            recording.camera,
            state,
            frame,
            samples=len(session.samples),
            wanted=session.complete,
            **fields,
        )
        if recording.request.progress and state not in {"done", "refused"}:
            self._reply(recording, Progress(event=event))

    def _reply(self, recording: _Recording, reply: Progress) -> None:
        recording.sent = time.monotonic()
        if recording.envelope is not None and not self._send(recording.envelope, reply):
            recording.envelope = None
            if self._recording is recording:
                self.cancel("client_gone")

    def _publish(
        self, person: str, camera: str, state: State, frame: Stamp | None, **fields: Any
    ) -> EnrollmentEvent:
        stamp = frame or Stamp(camera, -1, time.monotonic(), time.time())
        event = EnrollmentEvent(
            monotonic=stamp.captured,
            utc=rfc3339(stamp.utc),
            camera=stamp.camera,
            frame=stamp.index,
            person=person,
            state=state,
            **fields,
        )
        with self._acting():
            self._outbox.put(event)
        return event

    def _show(self, sign: Sign) -> None:
        """Let the lamp show something else."""
        with self._acting():
            self._live.sign = sign
