"""The control protocol: requests to the running daemon and its replies, and a client.

A request and its reply are one JSON object each, sent from a ZeroMQ REQ (or DEALER) socket to the daemon's ROUTER.
``op`` in a request says what is wanted; ``reply`` in the answer says what came of it.
"""

import socket
import time
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import msgspec
import zmq
from msgspec import Meta, Struct

from agent import sockets
from agent.config import Curve
from agent.events import DriverEvent, EnrollmentEvent, HealthEvent
from agent.gallery.types import Person
from engines.errors import UserError

MAX_REQUEST = 64 * 1024
"""Bytes that a request may have; the daemon hangs up on a longer one."""
_PROBE_S = 0.3  # for a TCP endpoint; a local socket answers or refuses at once
_STEP_S = 0.1
_ALIVE_S = 1.0  # how often it looks whether the daemon still lives


class ControlError(UserError):
    """The daemon cannot be asked, or has refused.

    Attributes:
        code: what a program may look at: ``no_daemon``, ``no_answer``, ``endpoint``, ``key`` (we are not let in), or
            the code of a ``Refused``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="op"):
    """What every request is."""


class Record(_Request, frozen=True, tag="record"):
    """Record a person. The reply, ``Recorded``, comes when that is over.

    Attributes:
        name: of the person; empty: the next free ``Driver N``.
        seconds: how long to look at most; None: ``enrolment.seconds`` of the configuration.
        camera: which camera to look through; empty: the first.
        add: the person is enrolled already and gets more samples.
        anyway: do it also if the person seems to be enrolled under another name, or not to be the one of this name.
        progress: until then send a ``Progress`` for each event of the recording, and at least one a second. Who asks
            for that and goes away ends the recording.
    """

    name: str
    seconds: Annotated[float, Meta(ge=0.5, le=60)] | None = None
    camera: str = ""
    add: bool = False
    anyway: bool = False
    progress: bool = False


class Cancel(_Request, frozen=True, tag="cancel"):
    """End the recording; nothing of it is kept. The reply is ``Done``, also when there was no recording."""


class ListPeople(_Request, frozen=True, tag="gallery.list"):
    """Everybody in the gallery. The reply is ``People``."""


class DeletePerson(_Request, frozen=True, tag="gallery.delete"):
    """Forget a person. The reply is ``Done``; its notes are backups that the person may still be in."""

    name: str


class RenamePerson(_Request, frozen=True, tag="gallery.rename"):
    """Give a person another name. The reply is ``Done``."""

    name: str
    to: str


class RejectPerson(_Request, frozen=True, tag="gallery.reject"):
    """Mark the face that is taken for a person now as not being that person. The reply is ``Done``.

    Attributes:
        name: of the person that it is not.
        camera: which camera sees the face; empty: any.
    """

    name: str
    camera: str = ""


class ReloadGallery(_Request, frozen=True, tag="gallery.reload"):
    """Read the gallery again: another process has changed it. The reply is ``Done``."""


class Reload(_Request, frozen=True, tag="reload"):
    """Read the configuration again. The reply is ``Reloaded``."""


class ResetAdaptation(_Request, frozen=True, tag="adaptation.reset"):
    """Go back to the pack's own face network, and adapt it anew. The reply is ``Done``."""


class GetStatus(_Request, frozen=True, tag="status"):
    """How the daemon is. The reply is ``Status``."""


Request = (
    Record
    | Cancel
    | ListPeople
    | DeletePerson
    | RenamePerson
    | RejectPerson
    | ReloadGallery
    | Reload
    | ResetAdaptation
    | GetStatus
)


class _Reply(Struct, frozen=True, kw_only=True, tag_field="reply"):
    """What every reply is."""


class Done(_Reply, frozen=True, tag="done"):
    """It is done.

    Attributes:
        notes: what could not be done along with it, each with the reason.
    """

    notes: tuple[str, ...] = ()


class Refused(_Reply, frozen=True, tag="refused"):
    """It is not done.

    Attributes:
        code: ``bad_request``, ``busy`` (a recording is going on), ``too_many`` (recordings this minute),
            ``no_camera``, ``no_adaptation`` (it is off), ``gallery``, ``config``, ``cancelled``, ``stopping``, or a
            code of ``agent.enrolment.Refusal`` or ``agent.rejection.Rejection``.
        message: the same for people, with the remedy.
    """

    code: str
    message: str


class Recorded(_Reply, frozen=True, tag="recorded"):
    """A person is enrolled.

    Attributes:
        name: as it is stored.
        taken: samples that this recording gave.
        samples: samples of the person altogether.
        poses: of ``taken``, how many of each pose.
        missing: poses of which there is none.
    """

    name: str
    taken: int
    samples: int
    poses: dict[str, int]
    missing: tuple[str, ...]


class Progress(_Reply, frozen=True, tag="progress"):
    """A recording is going on; more will follow.

    Attributes:
        event: what has happened, as it is published; None is a sign of life.
    """

    event: EnrollmentEvent | None


class People(_Reply, frozen=True, tag="people"):
    """Everybody in the gallery, by name."""

    people: tuple[Person, ...]


class Reloaded(_Reply, frozen=True, tag="reloaded"):
    """The configuration was read again.

    Attributes:
        changed: keys that have changed and are in force now.
        waiting: keys that differ from what the daemon was started with, and need a restart.
    """

    changed: tuple[str, ...]
    waiting: tuple[str, ...]


class Status(_Reply, frozen=True, tag="status"):
    """How the daemon is.

    Attributes:
        pack: digest of the running pack.
        state: whether a recording is going on.
        health: the newest health event; None before the first.
        driver: the newest driver event; None before the first.
    """

    pack: str
    state: Literal["idle", "recording"]
    health: HealthEvent | None
    driver: DriverEvent | None = None


Reply = Done | Refused | Recorded | Progress | People | Reloaded | Status
R = TypeVar("R", Done, Recorded, People, Reloaded, Status)

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
encode = msgspec.json.encode


def decode_request(data: bytes) -> Request:
    """The request in ``data``.

    Raises:
        ControlError: it is none; the code is ``bad_request``.
    """
    try:
        return _requests.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError("bad_request", f"not a request: {error}") from error


def daemon_listens(endpoint: str) -> bool:
    """Whether some process listens at ``endpoint``.

    This asks the operating system and not the daemon, so that a busy daemon is never taken for an absent one.

    Raises:
        ControlError: the endpoint cannot be a daemon's, or belongs to another user.
    """
    transport, _, place = endpoint.partition("://")
    try:
        if transport == "ipc":
            name = "\0" + place[1:] if place.startswith("@") else place
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(name)
            return True
        if transport == "tcp":
            host, _, port = place.rpartition(":")
            with socket.create_connection((host.strip("[]").replace("*", "127.0.0.1"), int(port)), _PROBE_S):
                return True
    except PermissionError as error:
        raise ControlError(
            "endpoint", f"{endpoint}: the daemon belongs to another user; run this as that user"
        ) from error
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return False
    except (OSError, ValueError) as error:
        raise ControlError("endpoint", f"{endpoint}: {error}; correct control.endpoint") from error
    raise ControlError("endpoint", f"{endpoint}: control.endpoint must begin with ipc:// or tcp://")


def request(
    endpoint: str,
    request: Request,
    expect: type[R],
    timeout_s: float,
    progress: Callable[[EnrollmentEvent], None] = lambda _: None,
    curve: Curve | None = None,
) -> R:
    """Ask the daemon at ``endpoint`` and wait for its reply.

    Args:
        endpoint: ZeroMQ address of the daemon's control socket.
        request: what to ask.
        expect: the type of the reply to ``request``.
        timeout_s: how long to wait.
        progress: called for each event of a recording, where the request asks for them.
        curve: keys, for an endpoint that asks for them.

    Raises:
        ControlError: no daemon runs there, it does not let us in, it ends before it has answered, it does not answer in
            time, or it refuses.
        KeysError: the endpoint asks for keys, and ``curve`` has none that can be used.
    """
    if not daemon_listens(endpoint):
        raise ControlError(
            "no_daemon", f"no daemon answers at {endpoint}; is it running? `cabinsense run` starts it"
        )
    with (
        zmq.Context() as context,
        context.socket(zmq.DEALER) as client,
        sockets.handshakes(client) as monitor,
    ):
        client.linger = 0
        sockets.connect(client, endpoint, curve)
        client.send_multipart([b"", encode(request)])  # as a REQ socket does, which takes one reply only
        deadline = time.monotonic() + timeout_s
        while isinstance(reply := _receive(client, monitor, endpoint, deadline, timeout_s), Progress):
            if reply.event is not None:
                progress(reply.event)
    if isinstance(reply, Refused):
        raise ControlError(reply.code, reply.message)
    if not isinstance(reply, expect):
        raise ControlError(
            "no_answer", f"{endpoint}: the reply {type(reply).__name__} does not fit the request"
        )
    return reply


def _receive(
    client: "zmq.Socket[bytes]",
    monitor: "zmq.Socket[bytes]",
    endpoint: str,
    deadline: float,
    timeout_s: float,
) -> Reply:
    """The next reply; raises ControlError as ``request`` does."""
    looked = time.monotonic()
    while not client.poll(round(_STEP_S * 1000)):
        now = time.monotonic()
        if now > deadline:
            raise ControlError(
                "no_answer",
                f"the daemon at {endpoint} did not answer within {timeout_s:g} s; look at its log",
            )
        if now - looked >= _ALIVE_S:
            looked = now
            # A daemon that ends in order has replied before it goes: its last word may have just arrived.
            if not daemon_listens(endpoint) and not client.poll(round(_STEP_S * 1000)):
                raise ControlError(
                    "no_daemon",
                    f"the daemon at {endpoint} ended before it answered; look at its log, start it again with "
                    "`cabinsense run`, and try again",
                )
            if sockets.refused(monitor):
                raise ControlError("key", sockets.ask_for_entry(endpoint))
    try:
        return _replies.decode(client.recv_multipart()[-1])
    except msgspec.MsgspecError as error:
        raise ControlError(
            "no_answer", f"{endpoint}: what answers there is not this daemon: {error}"
        ) from error
