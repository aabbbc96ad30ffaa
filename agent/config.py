"""The whole configuration: one TOML file, one struct a table, every key typed, bounded and described.

A key that is not listed here is an error, so that a slip of the pen never goes unnoticed. ``cabinsense config
reference`` prints what stands here.
"""

import codecs
import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from agent import paths
from engines.errors import UserError

MOST_CAMERAS = 16
Fraction = Annotated[float, Meta(ge=0, le=1)]
TemplateMethod = Literal["mean", "trimmed", "weighted", "clusters"]
"""How samples become templates, the simplest first; see ``agent.gallery.templates``."""


class ConfigError(UserError):
    """The configuration cannot be used; the message names the file, the key and the remedy."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: immutable, and strict about its keys."""


class Camera(_Table, frozen=True):
    """One source of frames."""

    name: Annotated[
        str, Meta(description="What events call this camera.", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")
    ]
    source: Annotated[
        str,
        Meta(
            description="A device (`/dev/video0` or `0`), a sensor on a Jetson's CSI connector (`csi://0`), a video "
            "file, a folder of images, an `rtsp://` or `http://` address, or a GStreamer pipeline that ends in "
            "`appsink`.",
            min_length=1,
        ),
    ]
    width: Annotated[
        int, Meta(description="Width to ask of a device or sensor, pixels; 0 leaves it.", ge=0, le=16384)
    ] = 0
    height: Annotated[
        int, Meta(description="Height to ask of a device or sensor, pixels; 0 leaves it.", ge=0, le=16384)
    ] = 0
    fps: Annotated[
        float,
        Meta(
            description="Frames a second to ask of a device or sensor, or at which to play a file or folder; 0 leaves "
            "it: a file then plays at its own rate.",
            ge=0,
            le=1000,
        ),
    ] = 0.0
    loop: Annotated[bool, Meta(description="Start a file or folder again at its end.")] = False
    every_frame: Annotated[
        bool,
        Meta(description="Wait until a frame of a file or folder has been looked at instead of dropping it."),
    ] = False
    retry_s: Annotated[
        float,
        Meta(
            description="Longest wait between two tries to open a camera that fails, seconds.", gt=0, le=300
        ),
    ] = 1.0
    stall_s: Annotated[
        float,
        Meta(description="A camera that delivers nothing for so long is reopened, seconds.", gt=0, le=300),
    ] = 5.0
    frozen_s: Annotated[
        float,
        Meta(
            description="A live camera whose picture does not change at all for so long is taken for frozen, seconds; "
            "0: never.",
            ge=0,
            le=3600,
        ),
    ] = 5.0


class Engine(_Table, frozen=True):
    """How models run. What is asked for here runs, or the agent does not start and says why."""

    backend: Annotated[
        Literal["onnxruntime", "openvino", "litert", "tensorrt"],
        Meta(
            description="What runs the models. `openvino` and `litert` come with the extras of those names, `tensorrt` "
            "with NVIDIA's own packages."
        ),
    ] = "onnxruntime"
    providers: Annotated[
        tuple[Literal["cpu", "cuda", "tensorrt"], ...],
        Meta(
            description="What ONNX Runtime runs them on, the preferred one first. Without `cpu` among them nothing may "
            "run on the processor.",
            min_length=1,
        ),
    ] = ("cpu",)
    fallback: Annotated[
        bool,
        Meta(
            description="Where that does not run, let ONNX Runtime do it on the processor; `health` then says so."
        ),
    ] = False
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        Meta(
            description="What the models compute in. `int8` needs what `cabinsense calibrate int8` makes; `fp16` is "
            "for `tensorrt`."
        ),
    ] = "fp32"
    threads: Annotated[
        int,
        Meta(description="Threads that share one run of a model; 0: one a core, four at most.", ge=0, le=64),
    ] = 0
    spinning: Annotated[
        bool,
        Meta(description="Keep idle threads busy between operators: faster alone, slower beside other work."),
    ] = False


class Detector(_Table, frozen=True):
    """Finding faces."""

    width: Annotated[
        int, Meta(description="Width of the detector's input, pixels.", ge=64, le=4096, multiple_of=32)
    ] = 320
    height: Annotated[
        int, Meta(description="Height of the detector's input, pixels.", ge=64, le=4096, multiple_of=32)
    ] = 256
    threshold: Annotated[Fraction, Meta(description="Least score of a face.")] = 0.5
    overlap: Annotated[Fraction, Meta(description="Greatest overlap (IoU) of two faces.")] = 0.3
    max_faces: Annotated[
        int, Meta(description="Faces looked at in one frame, largest first.", ge=1, le=64)
    ] = 8


class Tracking(_Table, frozen=True):
    """Following faces over frames."""

    overlap: Annotated[
        Fraction, Meta(description="Least overlap (IoU) of a face with its predicted place.")
    ] = 0.3
    lost_s: Annotated[
        float, Meta(description="A track ends when its face is unseen for so long, seconds.", gt=0, le=60)
    ] = 1.0
    refresh_s: Annotated[
        float,
        Meta(
            description="Age from which the embedding of a decided track is computed anew, seconds.",
            ge=0,
            le=60,
        ),
    ] = 0.2
    emotion_s: Annotated[
        float, Meta(description="Time constant of the smoothing of expressions, seconds.", ge=0, le=60)
    ] = 0.6


class Budget(_Table, frozen=True):
    """What a frame may cost; see docs/budget.md."""

    frame_ms: Annotated[
        float,
        Meta(
            description="Time that a frame may take, milliseconds. Work is left out before it takes longer; 0 sets no "
            "limit.",
            ge=0,
            le=10_000,
        ),
    ] = 20.0
    power_modes: Annotated[
        dict[str, Annotated[float, Meta(gt=0, le=1)]],
        Meta(
            description="Share of `frame_ms` to plan with in a power mode of a Jetson, by the name that `nvpmodel -q` "
            "gives it; all of it in modes that are not named."
        ),
    ] = field(default_factory=dict)


class Quality(_Table, frozen=True):
    """What a face must be to be recognised or enrolled."""

    min_eye_distance: Annotated[
        float, Meta(description="Least distance between the eyes, frame pixels.", ge=0, le=10_000)
    ] = 16.0
    min_share: Annotated[
        Fraction,
        Meta(
            description="Least distance between the eyes as a share of the frame's longer side: so much of a face the "
            "detector must be shown to place the landmarks well, however many pixels the camera has. With a wider "
            "`detector.width` it may be less."
        ),
    ] = 0.03
    min_sharpness: Annotated[
        float, Meta(description="Least variance of the chip's Laplacian.", ge=0, le=65_025)
    ] = 12.0
    min_brightness: Annotated[float, Meta(description="Least mean luma of the chip.", ge=0, le=255)] = 35.0
    max_brightness: Annotated[float, Meta(description="Greatest mean luma of the chip.", ge=0, le=255)] = (
        225.0
    )
    min_contrast: Annotated[
        float, Meta(description="Least standard deviation of the chip's luma.", ge=0, le=128)
    ] = 12.0
    max_yaw: Annotated[float, Meta(description="Greatest turn of the head, degrees.", ge=0, le=90)] = 40.0
    max_pitch: Annotated[float, Meta(description="Greatest nod of the head, degrees.", ge=0, le=90)] = 35.0
    max_roll: Annotated[float, Meta(description="Greatest tilt of the head, degrees.", ge=0, le=180)] = 45.0


class Identity(_Table, frozen=True):
    """Deciding who it is."""

    threshold: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None,
        Meta(description="Least cosine of a known person; leave it out to use the pack's own."),
    ] = None
    margin: Annotated[
        float,
        Meta(description="Least lead of the best person over the second best, as a cosine.", ge=0, le=1),
    ] = 0.015
    votes: Annotated[int, Meta(description="Looks at a track that a decision needs.", ge=1, le=50)] = 3
    window: Annotated[int, Meta(description="Newest looks at a track that are counted.", ge=1, le=200)] = 9


class Driver(_Table, frozen=True):
    """Which face is the driver's, and when it looks at the road; see docs/driver.md."""

    enabled: Annotated[bool, Meta(description="Say who drives and whether they look at the road.")] = True
    camera: Annotated[str, Meta(description="Camera that sees the driver; empty: the first.")] = ""
    zone: Annotated[
        tuple[Fraction, Fraction, Fraction, Fraction],
        Meta(
            description="Where in the picture the driver's face is: left, top, right and bottom edge as shares of its "
            "width and height. A face whose middle is elsewhere is not the driver's."
        ),
    ] = (0.0, 0.0, 1.0, 1.0)
    side: Annotated[
        Literal["either", "left", "right"],
        Meta(
            description="Which of several faces in the zone is the driver's: the one furthest to the left or right in "
            "the picture, or with `either` the largest."
        ),
    ] = "either"
    yaw: Annotated[
        float,
        Meta(
            description="`pose.yaw` of a driver who looks straight ahead, degrees: how the camera is mounted.",
            ge=-60,
            le=60,
        ),
    ] = 0.0
    pitch: Annotated[float, Meta(description="Likewise `pose.pitch`, degrees.", ge=-45, le=45)] = 0.0
    max_yaw: Annotated[
        float,
        Meta(
            description="Turn of the head from straight ahead that still looks at the road, degrees.",
            ge=5,
            le=80,
        ),
    ] = 30.0
    max_down: Annotated[
        float,
        Meta(
            description="Likewise the nod downwards, degrees. Estimates are smaller than the nod; see docs/driver.md.",
            ge=5,
            le=80,
        ),
    ] = 12.0

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        left, top, right, bottom = self.zone
        if not (left < right and top < bottom):
            raise ValueError("driver.zone: left must be below right, and top below bottom")


class Gallery(_Table, frozen=True):
    """The people known."""

    path: Annotated[str, Meta(description="The SQLite file; empty: `gallery.db` in the data folder.")] = ""
    key: Annotated[
        str,
        Meta(
            description="The key that seals it, made where there is none; empty: `gallery.key` beside it. A systemd "
            "credential `cabinsense-gallery-key` goes before."
        ),
    ] = ""
    max_samples: Annotated[int, Meta(description="Samples kept of one person.", ge=1, le=1000)] = 50
    template: Annotated[
        TemplateMethod,
        Meta(
            description="What stands for a person: the mean of the samples, that without outliers, that weighted by "
            "quality, or the means of several clusters; docs/recognition.md compares them."
        ),
    ] = "trimmed"
    templates: Annotated[
        int, Meta(description="Templates of one person at most, with `clusters`.", ge=1, le=16)
    ] = 3


class Enrolment(_Table, frozen=True):
    """Recording a person before a camera."""

    seconds: Annotated[
        float, Meta(description="Longest time that a recording takes, seconds.", ge=0.5, le=60)
    ] = 20.0
    samples: Annotated[
        int, Meta(description="Samples of each pose: straight, left, right, up.", ge=1, le=20)
    ] = 3
    straight: Annotated[
        int,
        Meta(
            description="Straight samples without which nobody is enrolled; the other poses may be missing.",
            ge=1,
        ),
    ] = 2
    per_minute: Annotated[
        int, Meta(description="Recordings a minute that may be begun over the control socket.", ge=1, le=600)
    ] = 6


class Button(_Table, frozen=True):
    """The record button and its lamp. A short press records a new person, a long one cancels."""

    line: Annotated[
        str,
        Meta(
            description="GPIO line of the button: `gpiochip0:23` or the line's name; with `jetson` a pin of the 40-pin "
            "header. Empty: no button."
        ),
    ] = ""
    backend: Annotated[
        Literal["gpiod", "jetson"],
        Meta(description="What drives the lines: libgpiod 2 (extra `gpio`) or Jetson.GPIO (extra `orin`)."),
    ] = "gpiod"
    active_low: Annotated[
        bool, Meta(description="The line is low while the button is pressed: it connects the line to ground.")
    ] = True
    debounce_ms: Annotated[
        float, Meta(description="A level counts once it has stood for so long, milliseconds.", ge=0, le=500)
    ] = 30.0
    long_press_s: Annotated[
        float, Meta(description="From how long on a press is a long one, seconds.", ge=0.3, le=10)
    ] = 1.5
    led: Annotated[
        str, Meta(description="Line of the lamp, named as `line`; it is lit while high. Empty: no lamp.")
    ] = ""
    camera: Annotated[str, Meta(description="Camera through which the button records; empty: the first.")] = (
        ""
    )


class Events(_Table, frozen=True):
    """What is published, and where."""

    endpoint: Annotated[
        str, Meta(description="ZeroMQ address of events; empty: `events.sock` in the runtime folder.")
    ] = ""
    encoding: Annotated[Literal["json", "msgpack"], Meta(description="How events are written.")] = "json"
    queue: Annotated[
        int,
        Meta(description="Messages kept for a slow subscriber before it misses some.", ge=1, le=1_000_000),
    ] = 4000
    queue_mb: Annotated[
        float,
        Meta(
            description="Memory for those messages, MiB. As many are kept as fit if each shows `detector.max_faces` "
            "faces. Slow subscribers share it.",
            gt=0,
            le=4096,
        ),
    ] = 40.0
    health_s: Annotated[
        float, Meta(description="Time between two health events, seconds.", gt=0, le=3600)
    ] = 1.0


class Control(_Table, frozen=True):
    """The socket that takes requests."""

    endpoint: Annotated[
        str, Meta(description="ZeroMQ address of requests; empty: `control.sock` in the runtime folder.")
    ] = ""


class Curve(_Table, frozen=True):
    """Who is let in over the network: the keys of ZeroMQ's CURVE. Endpoints with a socket file need none."""

    folder: Annotated[
        str,
        Meta(
            description="Folder of the daemon's own key and of its list of clients; empty: `curve` in the data folder."
        ),
    ] = ""
    client_key: Annotated[
        str,
        Meta(
            description="For commands such as `cabinsense events`: the file `NAME.key_secret` that `cabinsense keys "
            "new` has made; empty: the daemon's own key, where this user may read it."
        ),
    ] = ""
    server_key: Annotated[
        str,
        Meta(
            description="Likewise: the daemon's public key, 40 characters, as `cabinsense keys list` prints it there; "
            "empty: that of the daemon on this machine.",
            pattern=r"^([0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40})?$",
        ),
    ] = ""
    insecure: Annotated[
        bool,
        Meta(
            description="Let in everybody who reaches a `tcp://` endpoint, without key or encryption; `health` then "
            "says so. For a network on which nobody else is."
        ),
    ] = False

    @property
    def path(self) -> Path:
        """Folder of the keys."""
        return Path(self.folder).expanduser() if self.folder else paths.data_dir() / "curve"


class GradientSettings(_Table, frozen=True):
    """What the tier `gradient` learns by, and its limits. Lengths are relative to the size of a layer's parameters."""

    entropy: Annotated[
        float, Meta(description="Weight of the entropy of sure expressions (Tent, EATA).", ge=0, le=100)
    ] = 0.0
    sure: Annotated[
        float,
        Meta(
            description="Expressions of less entropy than this share of the greatest are sure (EATA).",
            gt=0,
            le=1,
        ),
    ] = 0.4
    views: Annotated[
        float,
        Meta(
            description="Weight of how far the expressions of a face are from what the mixture, before any step, makes "
            "of the face, of its mirror image and of small shifts of both in the mean (MEMO, CoTTA).",
            ge=0,
            le=100,
        ),
    ] = 1.0
    features: Annotated[
        float,
        Meta(
            description="Weight of how far embeddings are from those before any step, squared (feature consistency).",
            ge=0,
            le=1000,
        ),
    ] = 1.0
    rate: Annotated[float, Meta(description="Length of a step (Adam).", gt=0, le=0.1)] = 1e-3
    steps: Annotated[int, Meta(description="Steps before each decision.", ge=1, le=100)] = 2
    batch: Annotated[int, Meta(description="Chips in a step.", ge=1, le=256)] = 8
    memory: Annotated[int, Meta(description="Chips kept to learn from.", ge=8, le=1024)] = 48
    age_s: Annotated[float, Meta(description="How old they may be, seconds.", ge=1, le=3600)] = 60.0
    layers: Annotated[
        int,
        Meta(description="Most layers that may change: those that the first step asks for.", ge=1, le=1000),
    ] = 12
    pull: Annotated[
        float, Meta(description="Share of the way back to the start that follows each step.", ge=0, le=1)
    ] = 0.02
    drift: Annotated[float, Meta(description="Farthest from the start.", gt=0, le=1)] = 0.05


class AdaptationSettings(_Table, frozen=True):
    """Adapting the face network to light and camera while it runs; see docs/adaptation.md."""

    tier: Annotated[
        Literal["off", "statistics", "gradient"],
        Meta(
            description="How: not at all; by the statistics of what norm layers read; or by gradient from there on, "
            "for which the extra `adapt` is needed."
        ),
    ] = "off"
    every_s: Annotated[
        float, Meta(description="Least time between two decisions, seconds.", ge=0.05, le=3600)
    ] = 1.0
    duty: Annotated[
        float,
        Meta(description="Greatest share of the time that the worker spends on decisions.", ge=0.01, le=1),
    ] = 0.25
    threads: Annotated[int, Meta(description="Threads of the worker.", ge=1, le=64)] = 1
    nice: Annotated[
        int, Meta(description="Niceness of the worker: at 19 it gets what others leave.", ge=0, le=19)
    ] = 10
    max_away_s: Annotated[
        float,
        Meta(
            description="An adapted network that no decision has confirmed for so long gives way to the pack's own, "
            "seconds.",
            ge=1,
            le=86_400,
        ),
    ] = 60.0
    hang_s: Annotated[
        float,
        Meta(
            description="A worker that shows no sign of life for so long is killed and started anew, seconds.",
            ge=0.5,
            le=300,
        ),
    ] = 10.0
    decide_s: Annotated[
        float,
        Meta(
            description="Likewise one that takes so long over one decision, or over its beginning, seconds.",
            ge=1,
            le=3600,
        ),
    ] = 60.0
    gradient: GradientSettings = field(default_factory=GradientSettings)


class Freshness(_Table, frozen=True):
    """What is too old to be believed."""

    max_age_s: Annotated[
        float,
        Meta(
            description="A reading whose frame is older than this is published as not valid, seconds.", gt=0
        ),
    ] = 0.5


class Supervision(_Table, frozen=True):
    """What becomes of a stage of the agent that hangs or dies: it is started anew, a few times."""

    stall_s: Annotated[
        float,
        Meta(
            description="A stage that shows no sign of life for so long is given up and started anew, seconds.",
            ge=0.5,
            le=300,
        ),
    ] = 5.0
    disk_s: Annotated[
        float,
        Meta(
            description="Likewise the stage that writes the gallery and may wait for the disk.",
            ge=0.5,
            le=300,
        ),
    ] = 15.0
    start_s: Annotated[
        float,
        Meta(description="Time a stage has to begin, in which models are loaded, seconds.", ge=1, le=3600),
    ] = 60.0
    restarts: Annotated[
        int,
        Meta(
            description="Stages that may be started anew within `window_s`; after that the agent ends with status 1, "
            "and what has started it, as systemd does, starts it anew.",
            ge=0,
            le=1000,
        ),
    ] = 5
    window_s: Annotated[
        float, Meta(description="The time in which `restarts` are counted, seconds.", gt=0, le=86_400)
    ] = 60.0


class Metrics(_Table, frozen=True):
    """Figures for Prometheus; needs the extra `metrics`."""

    listen: Annotated[
        str,
        Meta(
            description="Where to answer: an address and a port, such as `127.0.0.1:9464`, or "
            "`unix:/FOLDER/NAME.sock`; empty: nowhere.",
            pattern=r"^(|unix:/.+|[0-9.]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5})$",
        ),
    ] = ""
    expose: Annotated[
        bool,
        Meta(
            description="Answer on an address that other machines reach, too: everybody there may read the figures."
        ),
    ] = False

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        host, _, port = self.listen.rpartition(":")
        if not self.listen or self.listen.startswith("unix:"):
            return
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError as error:
            raise ValueError(f"metrics.listen: {error}") from error
        if not 0 < int(port) < 65_536:
            raise ValueError("metrics.listen: a port is 1 to 65535")
        if not (address.is_loopback or self.expose):
            raise ValueError(
                f"metrics.listen: other machines reach {host}; name 127.0.0.1, or set metrics.expose = true"
            )


class Log(_Table, frozen=True):
    """What is logged: to the journal where systemd has started the agent, else to the standard error output."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")
    ] = "info"


class Gate(_Table, frozen=True):
    """What an engine may differ from FP32 on ONNX Runtime and still go live. Losses are shares: 0.01 is a point."""

    mean_drift: Annotated[
        float,
        Meta(
            description="Greatest mean drift of embeddings, as a share of the gap between the mean scores of genuine "
            "and impostor pairs.",
            gt=0,
            le=1,
        ),
    ] = 0.03
    p99_drift: Annotated[
        float, Meta(description="Likewise the drift that one embedding in a hundred exceeds.", gt=0, le=1)
    ] = 0.1
    emotion_change: Annotated[
        Fraction, Meta(description="Greatest share of faces whose first expression changes.")
    ] = 0.05
    emotion_kl: Annotated[
        float, Meta(description="Greatest mean divergence of expressions, nats.", gt=0, le=10)
    ] = 0.02
    emotion_loss: Annotated[
        Fraction, Meta(description="Greatest loss in the accuracy of expressions, where labels are given.")
    ] = 0.01
    tar_loss: Annotated[
        Fraction, Meta(description="Greatest loss in TAR at FAR 0.001, where pairs are given.")
    ] = 0.01
    accuracy_loss: Annotated[
        Fraction,
        Meta(description="Greatest loss in the accuracy of verification, where pairs are given."),
    ] = 0.003
    detection_iou: Annotated[
        float, Meta(description="Least mean overlap (IoU) of a face's two boxes.", ge=0.5, lt=1)
    ] = 0.9
    detection_missed: Annotated[Fraction, Meta(description="Greatest share of faces missed.")] = 0.02
    detection_extra: Annotated[
        Fraction, Meta(description="Greatest share of faces found that the reference does not find.")
    ] = 0.02
    landmark_shift: Annotated[
        float,
        Meta(
            description="Greatest mean shift of landmarks, as a share of the distance between the eyes.",
            gt=0,
            le=1,
        ),
    ] = 0.03


class Config(_Table, frozen=True):
    """The configuration file."""

    pack: Annotated[
        str, Meta(description="Folder of the model pack; empty: `packs/default` in the data folder.")
    ] = ""
    cameras: Annotated[
        tuple[Camera, ...], Meta(description="The cameras, in `[[cameras]]` tables.", max_length=MOST_CAMERAS)
    ] = ()
    engine: Engine = field(default_factory=Engine)
    detector: Detector = field(default_factory=Detector)
    tracking: Tracking = field(default_factory=Tracking)
    budget: Budget = field(default_factory=Budget)
    quality: Quality = field(default_factory=Quality)
    identity: Identity = field(default_factory=Identity)
    driver: Driver = field(default_factory=Driver)
    gallery: Gallery = field(default_factory=Gallery)
    enrolment: Enrolment = field(default_factory=Enrolment)
    button: Button = field(default_factory=Button)
    events: Events = field(default_factory=Events)
    control: Control = field(default_factory=Control)
    curve: Curve = field(default_factory=Curve)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    freshness: Freshness = field(default_factory=Freshness)
    supervision: Supervision = field(default_factory=Supervision)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        names = [camera.name for camera in self.cameras]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two cameras are called {twice[0]}; names must differ")
        if self.cameras and self.driver.camera and self.driver.camera not in names:
            raise ValueError(
                f"driver.camera: no camera is called {self.driver.camera}; the cameras are: {', '.join(names)}"
            )
        if self.identity.votes > self.identity.window:
            raise ValueError(
                "identity.votes must not be above identity.window: no decision would ever be made"
            )
        if self.events_endpoint == self.control_endpoint:
            raise ValueError("events.endpoint and control.endpoint must differ")
        if self.gallery_path == self.gallery_key_path:
            raise ValueError("gallery.path and gallery.key must differ")
        if self.quality.min_brightness >= self.quality.max_brightness:
            raise ValueError("quality.min_brightness must be below quality.max_brightness")
        if self.enrolment.straight > self.enrolment.samples:
            raise ValueError(
                "enrolment.straight must not be above enrolment.samples: nobody would ever be enrolled"
            )
        if self.button.led and not self.button.line:
            raise ValueError("button.led needs button.line")

    def resolved(self) -> "Config":
        """This with every path and address that a default leaves open."""
        return msgspec.structs.replace(
            self,
            pack=str(self.pack_path),
            gallery=msgspec.structs.replace(
                self.gallery, path=str(self.gallery_path), key=str(self.gallery_key_path)
            ),
            events=msgspec.structs.replace(self.events, endpoint=self.events_endpoint),
            control=msgspec.structs.replace(self.control, endpoint=self.control_endpoint),
            curve=msgspec.structs.replace(self.curve, folder=str(self.curve.path)),
        )

    @property
    def pack_path(self) -> Path:
        """Folder of the pack."""
        return Path(self.pack).expanduser() if self.pack else paths.data_dir() / "packs" / "default"

    @property
    def gallery_path(self) -> Path:
        """File of the gallery."""
        return Path(self.gallery.path).expanduser() if self.gallery.path else paths.data_dir() / "gallery.db"

    @property
    def gallery_key_path(self) -> Path:
        """File of the gallery's key."""
        return Path(self.gallery.key).expanduser() if self.gallery.key else paths.key_of(self.gallery_path)

    @property
    def driver_camera(self) -> str:
        """Name of the camera that sees the driver; empty if none does."""
        first = self.cameras[0].name if self.cameras else ""
        return (self.driver.camera or first) if self.driver.enabled else ""

    @property
    def events_endpoint(self) -> str:
        """Address of the event socket."""
        return self.events.endpoint or f"ipc://{paths.runtime_dir() / 'events.sock'}"

    @property
    def control_endpoint(self) -> str:
        """Address of the control socket."""
        return self.control.endpoint or f"ipc://{paths.runtime_dir() / 'control.sock'}"


SYSTEM_PATH = Path("/etc/cabinsense/config.toml")
"""The one file that need not exist: whoever names another means it."""


def default_path() -> Path:
    """The file read when none is named: ``CABINSENSE_CONFIG``, else ``SYSTEM_PATH``."""
    return Path(os.environ.get("CABINSENSE_CONFIG") or SYSTEM_PATH)


def load(path: Path | None = None) -> Config:
    """Read the configuration; without ``path`` the default file, or all defaults where that does not exist.

    Raises:
        ConfigError: the file is missing, is not TOML, or has a key that is unknown or out of bounds.
    """
    if path is None:
        path = default_path()
        if path == SYSTEM_PATH and not path.exists():
            return Config()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name another file with --config") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Config:
    """The configuration in ``data``; ``name`` is what errors call it.

    Raises:
        ConfigError: as ``load``.
    """
    try:
        return msgspec.toml.decode(data.removeprefix(codecs.BOM_UTF8), type=Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {error}; `cabinsense config reference` lists every key") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from error
