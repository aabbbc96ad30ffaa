"""The published schema: one struct for each topic.

Every message has two parts: the topic, and one of these structs as JSON or MessagePack. Fields are only ever added
within one schema version; a change of meaning or a removal raises it. ``docs/events.md`` is made from this file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agent.perception.types import Exposure, View

SCHEMA = 1

Box = Annotated[
    tuple[float, float, float, float], Meta(description="Left, top, right and bottom edge, frame pixels.")
]
Point = Annotated[tuple[float, float], Meta(description="x and y, frame pixels.")]


class Event(Struct, frozen=True, kw_only=True):
    """What every message carries."""

    schema: Annotated[int, Meta(description="Version of this schema.")] = SCHEMA
    seq: Annotated[
        int, Meta(description="Counts the messages of this topic from 1; a gap means messages were missed.")
    ] = 0
    repeats: Annotated[
        int,
        Meta(
            description="The `seq` under which this was last sent, when it is sent again because somebody has just "
            "subscribed; 0 for news."
        ),
    ] = 0
    monotonic: Annotated[
        float, Meta(description="Seconds on the agent's monotonic clock when the frame was captured.")
    ]
    utc: Annotated[str, Meta(description="The same moment in UTC, RFC 3339 with microseconds.")]
    camera: Annotated[str, Meta(description="Name of the camera; empty where no camera is meant.")] = ""
    frame: Annotated[int, Meta(description="Index of the camera's frame; -1 where no frame is meant.")] = -1
    valid: Annotated[
        bool,
        Meta(
            description="What the message says may be believed. False when the frame was too old or the camera blind."
        ),
    ] = True


class Pose(Struct, frozen=True):
    """Head pose in degrees; 0 is frontal."""

    yaw: Annotated[float, Meta(description="Turn to the right of the image, degrees.")]
    pitch: Annotated[float, Meta(description="Nod upwards, degrees.")]
    roll: Annotated[float, Meta(description="Tilt clockwise, degrees.")]


class QualityReport(Struct, frozen=True):
    """How fit a face is for recognition."""

    size: Annotated[float, Meta(description="Distance between the eyes, frame pixels.")]
    sharpness: Annotated[float, Meta(description="Variance of the chip's Laplacian.")]
    brightness: Annotated[float, Meta(description="Mean luma of the chip, 0 to 255.")]
    contrast: Annotated[float, Meta(description="Standard deviation of the chip's luma.")]
    reasons: Annotated[
        tuple[str, ...],
        Meta(
            description="What is wrong, as codes: `too_small`, `blurred`, `too_dark`, `too_bright`, "
            "`low_contrast`, `turned_away`. Empty for a good face."
        ),
    ] = ()


class FaceReport(Struct, frozen=True, kw_only=True):
    """One face of a `face` event."""

    track: Annotated[int, Meta(description="Number of the track; one face keeps it while it is followed.")]
    box: Box
    score: Annotated[float, Meta(description="The detector's confidence, 0 to 1.")]
    landmarks: Annotated[
        tuple[Point, ...],
        Meta(
            description="Left eye, right eye, nose tip, left and right corner of the mouth, as seen in the image."
        ),
    ]
    coasting: Annotated[
        bool, Meta(description="The face was not found in this frame; its place is predicted.")
    ]
    state: Annotated[
        Literal["seen", "confirmed", "unknown"], Meta(description="What is decided about the identity.")
    ]
    person: Annotated[str | None, Meta(description="Name of the person when `state` is `confirmed`.")] = None
    emotion: Annotated[str | None, Meta(description="The expression, when known.")] = None
    quality: Annotated[
        QualityReport | None, Meta(description="How good the face is, when it was looked at.")
    ] = None
    pose: Annotated[Pose | None, Meta(description="Head pose, when it was looked at.")] = None


class FaceEvent(Event, frozen=True, kw_only=True, tag="face", tag_field="topic"):
    """Sent for every frame: all faces in it, largest first, possibly none."""

    faces: Annotated[tuple[FaceReport, ...], Meta(description="The faces.")]
    stage_ms: Annotated[dict[str, float], Meta(description="Milliseconds spent in each step.")]
    total_ms: Annotated[float, Meta(description="Milliseconds that the frame took.")]
    rung: Annotated[
        int,
        Meta(
            description="Step of the budget's ladder in force, 0 to 5: 0 leaves nothing out, each step leaves out more "
            "than the one below it. See docs/budget.md."
        ),
    ]
    late: Annotated[bool, Meta(description="The frame took longer than `budget.frame_ms`.")] = False
    view: Annotated[
        View,
        Meta(
            description="How the camera saw, as in `health`. While it is `covered` or `frozen` nothing is `valid`; "
            "while it is `dark` or in `glare`, the faces are there, but others may be, too."
        ),
    ] = "clear"


class IdentityEvent(Event, frozen=True, kw_only=True, tag="identity", tag_field="topic"):
    """Sent when what is known about a track's identity changes."""

    track: Annotated[int, Meta(description="Number of the track.")]
    change: Annotated[
        Literal["seen", "confirmed", "unknown", "lost"],
        Meta(
            description="`seen`: a new face. `confirmed`: it is `person`. `unknown`: it is nobody known. "
            "`lost`: the track has ended."
        ),
    ]
    person: Annotated[str | None, Meta(description="Name of the person; also of the one who was lost.")] = (
        None
    )
    score: Annotated[float | None, Meta(description="Cosine to the best template.")] = None
    threshold: Annotated[
        float | None, Meta(description="Cosine from which a person counts as recognised.")
    ] = None
    second: Annotated[float | None, Meta(description="Cosine to the best template of another person.")] = None
    reason: Annotated[
        str | None,
        Meta(
            description="Why `unknown`. `empty_gallery`: nobody is enrolled. `pack_mismatch`: people are, but by "
            "another pack. `below_threshold`: nobody is near enough. `ambiguous`: two people are too alike, or the "
            "looks do not agree. `rejected`: whoever is near enough is ruled out by a face that was marked as not "
            "theirs. `poor_quality`: the face is not seen well enough. `invalid`: the network gave no embedding."
        ),
    ] = None


class EmotionEvent(Event, frozen=True, kw_only=True, tag="emotion", tag_field="topic"):
    """Sent when the expression of a track changes."""

    track: Annotated[int, Meta(description="Number of the track.")]
    label: Annotated[str, Meta(description="The expression.")]
    probabilities: Annotated[dict[str, float], Meta(description="Smoothed probability of every expression.")]


class DriverEvent(Event, frozen=True, kw_only=True, tag="driver", tag_field="topic"):
    """Sent when something about the driver changes, and once a second while the driver's camera delivers frames.

    What it means and how it is decided is in docs/driver.md. What is not known is said to be so, so that it is `valid`
    even while the camera is blind.
    """

    present: Annotated[
        bool | None,
        Meta(description="A face is in the driver's place; none: not known, for the camera does not see it."),
    ]
    track: Annotated[int | None, Meta(description="Number of the driver's track.")] = None
    state: Annotated[
        Literal["seen", "confirmed", "unknown"] | None,
        Meta(description="What is decided about the identity, when somebody is present."),
    ] = None
    person: Annotated[str | None, Meta(description="Name of the person when `state` is `confirmed`.")] = None
    emotion: Annotated[str | None, Meta(description="The expression, when known.")] = None
    pose: Annotated[
        Pose | None,
        Meta(description="Head pose as the camera sees it, when it was seen well in the last 2 s."),
    ] = None
    attention: Annotated[
        Literal["attentive", "distracted", "uncertain"],
        Meta(
            description="Where the head points: `attentive` at the road, `distracted` elsewhere, were it to a mirror; "
            "`uncertain` when it is not seen well enough to say."
        ),
    ]
    since: Annotated[float, Meta(description="When `attention` became so, on the clock of `monotonic`.")]
    away_s: Annotated[
        float, Meta(description="How long the present look away from the road has been seen, seconds.")
    ] = 0.0
    warning: Annotated[
        int,
        Meta(
            description="0: none. 1, 2, 3: the look away has lasted 3, 5, 11 s; 1 also for repeated looks. Whether "
            "the driver is told is up to the car, which knows its speed."
        ),
    ] = 0
    reason: Annotated[
        Literal["long_look", "repeated_looks"] | None,
        Meta(
            description="Why there is a warning. `long_look`: one look away. `repeated_looks`: 10 s of looks away "
            "within 30 s, without 2 s at the road in between."
        ),
    ] = None


class EnrollmentEvent(Event, frozen=True, kw_only=True, tag="enrollment", tag_field="topic"):
    """Sent while a person is recorded."""

    person: Annotated[str, Meta(description="Name of the person.")]
    state: Annotated[
        Literal["started", "hint", "sample", "done", "refused"],
        Meta(description="How far the recording is. `hint`: there is something else to tell the person."),
    ]
    samples: Annotated[int, Meta(description="Samples taken so far.")] = 0
    wanted: Annotated[int, Meta(description="Samples that make the recording complete.")] = 0
    pose: Annotated[
        str | None,
        Meta(
            description="The pose that is wanted: `straight`, `left`, `right` (the person's own) or `up`; with "
            "`sample` the pose of the sample."
        ),
    ] = None
    hint: Annotated[
        str | None,
        Meta(
            description="What the person is told, with `started` and `hint`, as a code: docs/enrolment.md lists them."
        ),
    ] = None
    advice: Annotated[
        str | None, Meta(description="`hint`, or with `refused` `reason` with its remedy, in English words.")
    ] = None
    poses: Annotated[
        dict[str, int] | None, Meta(description="With `done`, how many samples there are of each pose.")
    ] = None
    missing: Annotated[
        tuple[str, ...], Meta(description="With `done`, poses of which there is no sample.")
    ] = ()
    reason: Annotated[
        str | None,
        Meta(
            description="Why it was refused: `no_frames`, `camera_lost`, `no_camera`, `no_face`, `several_faces`, "
            "`person_changed`, `several_people`, `poor_quality`, `already_enrolled`, `another_person`, `cancelled`, "
            "`client_gone`, `stopping` or `gallery`."
        ),
    ] = None
    detail: Annotated[
        str | None,
        Meta(
            description="With `poor_quality` what was wrong most often, the code of a hint; with `already_enrolled` "
            "and `another_person` the name of the known person; with `gallery` what went wrong, in words."
        ),
    ] = None


class CameraHealth(Struct, frozen=True, kw_only=True):
    """One camera of a `health` event."""

    name: Annotated[str, Meta(description="Name of the camera.")]
    state: Annotated[
        Literal["opening", "open", "failed", "ended"], Meta(description="Whether it delivers frames.")
    ]
    frames: Annotated[int, Meta(description="Frames captured since the start.")]
    dropped: Annotated[int, Meta(description="Frames replaced by a newer one before they were looked at.")]
    reopened: Annotated[int, Meta(description="Times the camera was opened again.")]
    error: Annotated[str | None, Meta(description="The last failure; None while it works.")] = None
    view: Annotated[
        View,
        Meta(
            description="How it sees. `covered`: nothing is to be seen, for the lens is covered or there is no light. "
            "`frozen`: the picture does not change. `dark` and `glare`: faces may be missed. Else `clear`."
        ),
    ] = "clear"
    exposure: Annotated[
        Exposure | None,
        Meta(
            description="How it should be exposed instead: `raise` or `lower`; none when it is well exposed."
        ),
    ] = None


Tier = Literal["statistics", "gradient"]


_RISE = (
    "By how much more strictly people are judged while this network runs, as a share of the way from the identity "
    "threshold to 1; 0 for the pack's own. `threshold` in `identity` has it in it."
)


class AdaptationHealth(Struct, frozen=True, kw_only=True):
    """The adaptation in a `health` event."""

    tier: Annotated[Tier, Meta(description="As `adaptation.tier` is configured.")]
    state: Annotated[
        Literal["source", "adapted"],
        Meta(description="What runs: the pack's own face network, or one that is adapted."),
    ]
    since: Annotated[
        float, Meta(description="Since when, seconds on the agent's monotonic clock, as `monotonic`.")
    ]
    worker: Annotated[
        int | None, Meta(description="Number of the worker process; none while there is none.")
    ] = None
    ready: Annotated[bool, Meta(description="The worker has begun its work.")] = False
    restarts: Annotated[int, Meta(description="Times a worker was started in place of another.")] = 0
    chips: Annotated[int, Meta(description="Chips given to a worker.")] = 0
    accepted: Annotated[int, Meta(description="Decisions after which another network runs.")] = 0
    refused: Annotated[int, Meta(description="Decisions after which nothing has changed.")] = 0
    resets: Annotated[int, Meta(description="Times it went back to the pack's own network.")] = 0
    reason: Annotated[
        str | None, Meta(description="Of the last decision, as in `adaptation`; none before the first.")
    ] = None
    rise: Annotated[float, Meta(description=_RISE)] = 0.0


class HealthEvent(Event, frozen=True, kw_only=True, tag="health", tag_field="topic"):
    """Sent at an interval: whether the agent is well."""

    uptime: Annotated[float, Meta(description="Seconds since the start.")]
    pack: Annotated[str, Meta(description="Digest of the running pack.")]
    people: Annotated[int, Meta(description="People in the gallery.")]
    cameras: Annotated[tuple[CameraHealth, ...], Meta(description="Every camera.")]
    fps: Annotated[float, Meta(description="Frames looked at a second, since the last health event.")]
    frame_ms: Annotated[
        dict[str, float],
        Meta(description="p50, p95 and p99 of the time a frame took, last minute, milliseconds."),
    ]
    missed: Annotated[
        int, Meta(description="Frames that took longer than `budget.frame_ms`, last minute.")
    ] = 0
    dropped_frames: Annotated[
        int, Meta(description="Frames replaced by a newer one before they were looked at, last minute.")
    ] = 0
    rung: Annotated[int, Meta(description="The newest frame's `rung`.")] = 0
    budget_ms: Annotated[
        float | None,
        Meta(
            description="Time that frames are planned with now: `budget.frame_ms`, less when the board is hot or in "
            "a power mode that is to have less; none without a limit."
        ),
    ] = None
    celsius: Annotated[
        dict[str, float], Meta(description="Temperature of each thermal zone that has one, degrees Celsius.")
    ] = {}
    power_mode: Annotated[str | None, Meta(description="Power mode of a Jetson; none elsewhere.")] = None
    stages: Annotated[dict[str, float], Meta(description="Seconds since the last heartbeat of each stage.")]
    restarts: Annotated[
        dict[str, int],
        Meta(
            description="How often each stage hung or died and was started anew; stages that never were are left out."
        ),
    ] = {}
    adaptation: Annotated[
        AdaptationHealth | None, Meta(description="How the adaptation is; none while it is off.")
    ] = None
    rss_mb: Annotated[float, Meta(description="Memory in use, MiB.")]
    cpu_percent: Annotated[
        float, Meta(description="Processor use since the last health event, 100 is one core.")
    ]
    dropped: Annotated[int, Meta(description="Messages that fell out before they could be published.")]
    stalled: Annotated[
        int,
        Meta(
            description="Times since the start that a subscriber was so slow that it began to miss messages. ZeroMQ "
            "does not tell which, nor how many messages."
        ),
    ] = 0
    problems: Annotated[tuple[str, ...], Meta(description="What is wrong, in words, with the remedy.")] = ()


class AdaptationEvent(Event, frozen=True, kw_only=True, tag="adaptation", tag_field="topic"):
    """Sent for every decision about the network that reads faces: to adapt it, to leave it, to go back."""

    tier: Annotated[Tier, Meta(description="As `adaptation.tier` is configured.")]
    accepted: Annotated[bool, Meta(description="It is in force; else what ran before goes on.")]
    state: Annotated[
        Literal["source", "adapted"],
        Meta(description="What runs from now on: the pack's own face network, or one that is adapted."),
    ]
    reason: Annotated[
        str,
        Meta(
            description="Why, as a code; docs/adaptation.md lists them. Those that begin with `reset:` name what has "
            "made the agent go back to the pack's own network."
        ),
    ]
    figures: Annotated[dict[str, float], Meta(description="The numbers behind it.")] = {}
    layers: Annotated[
        tuple[str, ...],
        Meta(description="Layers whose norm parameters differ from the pack's own from now on."),
    ] = ()
    decide_ms: Annotated[
        float | None, Meta(description="Milliseconds that the worker took to decide; none without one.")
    ] = None
    build_ms: Annotated[
        float | None,
        Meta(description="Milliseconds to build the new engine and try it, beside the work on frames."),
    ] = None
    swap_ms: Annotated[
        float | None,
        Meta(
            description="Milliseconds that the change took away from the work on frames; none when nothing had to "
            "change, or no frame has come since."
        ),
    ] = None
    rise: Annotated[float, Meta(description=_RISE)] = 0.0


TOPICS: dict[str, type[Event]] = {
    "face": FaceEvent,
    "identity": IdentityEvent,
    "emotion": EmotionEvent,
    "driver": DriverEvent,
    "enrollment": EnrollmentEvent,
    "adaptation": AdaptationEvent,
    "health": HealthEvent,
}

AnyEvent = (
    FaceEvent | IdentityEvent | EmotionEvent | DriverEvent | EnrollmentEvent | AdaptationEvent | HealthEvent
)
