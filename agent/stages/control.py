"""The control thread: answers requests, records people, and is the one that writes the gallery."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Literal

import zmq

from agent import control, sockets
from agent.button import Press
from agent.config import Config, ConfigError
from agent.control import ControlError, Done, People, Refused, Reloaded, Reply, Request, Status
from agent.events import Event
from agent.gallery.matcher import Matcher
from agent.gallery.store import Gallery
from agent.gallery.templates import aggregate
from agent.gallery.types import GalleryError, Snapshot
from agent.live import Live
from agent.mailbox import Mailbox
from agent.ratelimit import RateLimit
from agent.rejection import Rejection
from agent.stage import Stage
from agent.stages.recording import Recorder

log = logging.getLogger(__name__)

_IDLE_MS = 100
_RECORDING_MS = 20  # readings wait at most this long; a frame takes longer
_UNREAD = 64  # requests that may wait for the stage
_LINGER_MS = 200  # at the end, for replies that are on their way


class ControlStage(Stage):
    """Serves the control socket until told to stop.

    It fails with EndpointError when the socket is taken, and with GalleryError when the gallery cannot be opened.
    """

    def __init__(
        self, config: Config, pack_digest: str, live: Live, outbox: Mailbox[Event], threshold: float
    ) -> None:
        """Enrol samples as of the pack with ``pack_digest``; leave ``enrollment`` events in ``outbox``.

        Args:
            config: names the socket, the gallery and the cameras.
            pack_digest: of the pack that makes the samples.
            live: what stages share.
            outbox: takes the events.
            threshold: the pack's own, which tells how well samples of one person must agree.
        """
        super().__init__("control")
        self._config = config
        self._pack_digest = pack_digest
        self._live = live
        self._outbox = outbox
        self._threshold = threshold
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open = ExitStack()
        self._open.callback(self._context.destroy, linger=_LINGER_MS)
        self._desk: _Desk | None = None

    def work(self) -> None:
        """Answer and record until told to stop."""
        try:
            door = self._context.socket(zmq.ROUTER)
            door.maxmsgsize = control.MAX_REQUEST
            door.rcvhwm = _UNREAD
            # A reply to a client that has gone is an error then, and so tells that it has.
            door.router_mandatory = True
            with Gallery.open(self._config.gallery_path, key=self._config.gallery_key_path) as gallery:
                entrance = self._open.enter_context(
                    sockets.bound(door, self._config.control_endpoint, self._config.curve)
                )
                self._desk = _Desk(
                    self._config,
                    self._pack_digest,
                    self._live,
                    self._outbox,
                    self._threshold,
                    gallery,
                    door,
                    self.acting,
                )
                while not self.stopping.is_set():
                    with self.acting():
                        well = entrance.tend()
                    if well:
                        self.beat()
                    self._desk.turn()
        finally:
            with self.acting():
                self.release()

    def release(self) -> None:
        """End a recording that is going on, so that nobody waits for its end, and close the socket."""
        if self._desk:
            self._desk.close()
        self._open.close()


class _Desk:
    """What the thread works with once its socket and its gallery are open."""

    def __init__(
        self,
        config: Config,
        pack_digest: str,
        live: Live,
        outbox: Mailbox[Event],
        threshold: float,
        gallery: Gallery,
        door: "zmq.Socket[bytes]",
        acting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._cameras = [camera.name for camera in config.cameras]
        self._button_camera = config.button.camera
        self._pack_digest = pack_digest
        self._live = live
        self._gallery = gallery
        self._door = door
        self._acting = acting
        self._limit = RateLimit(config.enrolment.per_minute)
        self._recorder = Recorder(
            config, pack_digest, live, outbox, threshold, gallery, acting, self._send, self._show_gallery
        )
        self._rejection: tuple[list[bytes], Rejection] | None = None
        self._read_gallery()

    def turn(self) -> None:
        """Serve one request if there is one, and go on with what is going on."""
        with self._acting():
            parts = (
                self._door.recv_multipart()
                if self._door.poll(_RECORDING_MS if self._live.recording.is_set() else _IDLE_MS)
                else None
            )
        if parts:
            *envelope, body = parts
            reply = self._reply(envelope, body)
            if reply is not None:
                self._send(envelope, reply)
        while (press := self._live.presses.take(0)) is not None:
            self._press(press)
        self._recorder.go_on()
        if self._rejection:
            self._look(self._rejection[1])

    def close(self) -> None:
        """End what is going on; nothing of it is kept."""
        if self._rejection:
            self._end_rejection(
                Refused(code="stopping", message="the daemon is stopping; try again when it runs")
            )
        self._recorder.cancel("stopping")

    def _reply(self, envelope: list[bytes], body: bytes) -> Reply | None:
        """The reply to a message, whatever it holds; ``envelope`` is what stands before it."""
        try:
            # A ROUTER puts the sender first. A REQ socket adds an empty frame and wants it back; a DEALER need not.
            if len(envelope) > 2 or any(envelope[1:]):
                return Refused(code="bad_request", message="not a request: it must be one frame of JSON")
            return self._answer(control.decode_request(body), envelope)
        except ControlError as error:
            return Refused(code=error.code, message=str(error))
        except GalleryError as error:
            return Refused(code="gallery", message=str(error))
        except ConfigError as error:
            return Refused(code="config", message=str(error))

    def _answer(self, request: Request, envelope: list[bytes]) -> Reply | None:
        """The reply to a request, or None when it comes later."""
        match request:
            case control.Record():
                self._record(request, envelope)
                return None
            case control.Cancel():
                self._recorder.cancel("cancelled")
            case control.DeletePerson():
                try:
                    with self._acting():
                        return Done(notes=self._gallery.delete(request.name))
                finally:
                    self._show_gallery()
            case control.RenamePerson():
                with self._acting():
                    self._gallery.rename(request.name, request.to)
                self._show_gallery()
            case control.RejectPerson():
                self._begin_rejection(request, envelope)
                return None
            case control.ReloadGallery():
                self._read_gallery()
            case control.Reload():
                with self._acting():
                    change = self._live.reload()
                return Reloaded(changed=change.changed, waiting=change.waiting)
            case control.ResetAdaptation():
                if self._live.config.adaptation.tier == "off":
                    raise ControlError("no_adaptation", "nothing is adapted; adaptation.tier turns it on")
                with self._acting():
                    self._live.reset_adaptation.set()
            case control.ListPeople():
                return People(people=tuple(self._gallery.people()))
            case control.GetStatus():
                state: Literal["recording", "idle"] = "recording" if self._recorder.name else "idle"
                return Status(
                    pack=self._pack_digest, state=state, health=self._live.health, driver=self._live.driver
                )
        return Done()

    def _record(self, request: control.Record, envelope: list[bytes]) -> None:
        now = time.monotonic()
        if wait := self._limit.wait(now):
            raise ControlError("too_many", f"too many recordings; try again in {wait:.0f} s")
        self._begin(request, envelope)
        self._limit.count(now)

    def _begin(self, request: control.Record, envelope: list[bytes] | None) -> None:
        self._check_free()
        camera = self._camera(request.camera or next(iter(self._cameras), "none"))
        self._empty_readings()
        self._recorder.begin(request, camera, envelope)

    def _press(self, press: Press) -> None:
        """The record button: a short press records somebody new, if nobody is being recorded; a long one cancels."""
        if press == "long":
            self._recorder.cancel("cancelled")
        elif not self._recorder.name:
            try:
                self._begin(control.Record(name="", camera=self._button_camera), None)
            except (ControlError, GalleryError) as error:
                code = error.code if isinstance(error, ControlError) else "gallery"
                log.warning("the record button was pressed, but nobody can be recorded: %s", code)
                self._recorder.turn_down(self._button_camera, code, str(error))

    def _check_free(self) -> None:
        """Refuse a second user of the readings."""
        if self._recorder.name:
            raise ControlError(
                "busy", f"{self._recorder.name} is being recorded; try again when that is over"
            )
        if self._rejection:
            raise ControlError("busy", "a face is being marked; try again in a moment")

    def _camera(self, name: str) -> str:
        """The name, which is a camera's or empty."""
        if name and name not in self._cameras:
            known = ", ".join(self._cameras) or "none"
            raise ControlError("no_camera", f"no camera is called {name!r}; the cameras are: {known}")
        return name

    def _empty_readings(self) -> None:
        while self._live.readings.take(0) is not None:
            pass  # left over from the last recording

    def _begin_rejection(self, request: control.RejectPerson, envelope: list[bytes]) -> None:
        self._check_free()
        camera, name = self._camera(request.camera), self._gallery.person(request.name).name
        self._empty_readings()
        self._rejection = envelope, Rejection(name, camera, time.monotonic())
        with self._acting():
            self._live.recording.set()

    def _look(self, rejection: Rejection) -> None:
        """Go on looking for the face that is not a person's."""
        found = None
        while found is None and (reading := self._live.readings.take(0)) is not None:
            found = rejection.find(reading)
        if found is not None:
            try:
                with self._acting():
                    self._gallery.reject(rejection.name, found, self._pack_digest)
                self._show_gallery()
            except (GalleryError, ValueError) as error:
                self._end_rejection(Refused(code="gallery", message=str(error)))
            else:
                self._end_rejection(Done())
        elif rejection.over(time.monotonic()):
            self._end_rejection(Refused(code=rejection.code, message=rejection.advice))

    def _end_rejection(self, reply: Reply) -> None:
        if self._rejection:
            envelope, _ = self._rejection
            self._rejection = None
            with self._acting():
                self._live.recording.clear()
            self._send(envelope, reply)

    def _show_gallery(self) -> None:
        """Let perception match against the gallery as it is after a change.

        The change is on the disk whether or not the gallery can be read, so whoever asked for it is not told otherwise.
        """
        try:
            self._read_gallery()
        except GalleryError as error:
            log.error("nobody is recognised until the gallery can be read again: %s", error.unnamed)  # noqa: TRY400

    def _read_gallery(self) -> None:
        """Let perception match against the gallery as it is now; nobody is matched if it cannot be read.

        Else the one before would stay in force, with people in it who have been deleted since.

        Raises:
            GalleryError: it cannot be read.
        """
        matcher, readable = Matcher(Snapshot()), False
        try:
            matcher = Matcher(self._gallery.snapshot(self._pack_digest, aggregate(self._live.config.gallery)))
            readable = True
        finally:
            with self._acting():
                self._live.matcher, self._live.gallery_readable = matcher, readable

    def _send(self, envelope: list[bytes], reply: Reply) -> bool:
        """Reply; False if the client has gone. One that reads nothing loses the reply.

        An envelope that is none of ours may have a million frames, and is not echoed.
        """
        try:
            with self._acting():
                self._door.send_multipart([*envelope[:2], control.encode(reply)], zmq.NOBLOCK)
        except zmq.Again:
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True
