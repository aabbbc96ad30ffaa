"""What the findings about a box mean: one line a subject, with its remedy. Pure; ``agent.inspection`` does the finding.

``fail`` is what keeps the agent from doing what its configuration asks for; ``warn`` is what somebody may miss. What a
box does not have and nobody asked for is ``ok``.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from agent.words import counted
from engines.plans import Library
from engines.probe import CudaProbe, Device, LibraryProbe

State = Literal["ok", "warn", "fail"]

_DISK_FULL_MB = 100
_DISK_LOW_MB = 1000
_ORIN_GUIDE = "see docs/orin.md"


class Line(Struct, frozen=True):
    """One finding.

    Attributes:
        subject: what was looked at.
        state: ``ok``, ``warn`` or ``fail``.
        detail: what was found.
        remedy: what helps; empty where nothing has to.
    """

    subject: str
    state: State
    detail: str
    remedy: str = ""


class Report(Struct, frozen=True):
    """All findings.

    Attributes:
        usable: nothing fails.
        lines: in the order in which things depend on each other.
    """

    usable: bool
    lines: tuple[Line, ...]


class OpenCV(Struct, frozen=True):
    """The OpenCV that is imported."""

    version: str = ""
    gstreamer: bool = False
    problem: str = ""


class Node(Struct, frozen=True):
    """A device file, what the kernel calls it, and whether this user may use it."""

    path: str
    name: str
    allowed: bool


class Camera(Struct, frozen=True):
    """A camera of the configuration."""

    name: str
    source: str


class Wish(Struct, frozen=True):
    """What the configuration asks for."""

    cameras: tuple[Camera, ...] = ()
    backend: str = "onnxruntime"
    precision: str = "fp32"
    cuda: bool = False
    adaptation: str = "off"


class Plan(Struct, frozen=True):
    """A TensorRT plan in the pack, and what is the matter with it."""

    name: str
    problem: str = ""


class Gate(Struct, frozen=True):
    """Whether an engine has passed its gate, and why not; ``asked``: the configuration asks for this engine."""

    backend: str
    precision: str
    asked: bool
    problem: str = ""


class Facts(Struct, frozen=True, kw_only=True):
    """What was found on a box. Empty strings and None mean: not there.

    Attributes:
        agent: version of cabinsense.
        python: version of Python.
        board: model of a Jetson.
        l4t: release of its system software, such as ``36.4.0``.
        opencv: what was imported.
        wish: what the configuration asks for; None if it cannot be used.
        config_problem: why not.
        videos: video devices.
        cuda: result of the probe.
        libraries: results of the probes, by library.
        pycuda: it is installed.
        jtop: it is installed.
        jtop_socket: its service's socket; None if there is none.
        gpio_chips: GPIO devices.
        gpio_library: Jetson.GPIO is installed.
        systemd: the machine was started by systemd.
        notify: this process was started by systemd as a service of type notify.
        unit: the service is installed.
        gallery: where it is.
        people: how many are in it; None if there is no gallery yet.
        gallery_problem: why it does not open.
        threshold: the one in force for it, in words; empty where there is no gallery or no pack.
        threshold_outgrown: more people are in it than that was chosen for.
        pack: name and digest.
        pack_problem: why it is not whole.
        adaptation_problem: why nothing can be adapted, where that is asked for.
        backends: version of each backend that can be imported.
        plans: those in the pack.
        gates: of the engine that is asked for, and of every other that has a report or a plan.
        disk_mb: free space for data.
        daemon: how it answers; empty if none runs.
        daemon_problem: why it does not answer.
    """

    agent: str
    python: str
    board: str = ""
    l4t: str = ""
    opencv: OpenCV
    wish: Wish | None
    config_problem: str = ""
    videos: tuple[Node, ...] = ()
    cuda: CudaProbe
    libraries: dict[Library, LibraryProbe]
    pycuda: bool = False
    jtop: bool = False
    jtop_socket: Node | None = None
    gpio_chips: tuple[Node, ...] = ()
    gpio_library: bool = False
    systemd: bool = False
    notify: bool = False
    unit: bool = False
    gallery: str = ""
    people: int | None = None
    gallery_problem: str = ""
    threshold: str = ""
    threshold_outgrown: bool = False
    pack: str = ""
    pack_problem: str = ""
    adaptation_problem: str = ""
    backends: dict[str, str]
    plans: tuple[Plan, ...] = ()
    gates: tuple[Gate, ...] = ()
    disk_mb: int
    daemon: str = ""
    daemon_problem: str = ""

    @property
    def jetson(self) -> bool:
        """The box is a Jetson."""
        return bool(self.board)

    @property
    def asked(self) -> Wish:
        """What is asked for; the defaults if that is not known."""
        return self.wish or Wish()


def report(facts: Facts) -> Report:
    """What the findings mean."""
    lines = (
        *_software(facts),
        *_config(facts),
        *_cameras(facts),
        *_accelerator(facts),
        *_board(facts),
        *_data(facts),
        *_engines(facts),
        *_running(facts),
    )
    return Report(all(line.state != "fail" for line in lines), lines)


def _software(facts: Facts) -> Iterator[Line]:
    yield Line("cabinsense", "ok", f"{facts.agent}, Python {facts.python}")
    cv = facts.opencv
    needed = facts.jetson or any("!" in camera.source for camera in facts.asked.cameras)
    if cv.problem:
        yield Line(
            "OpenCV",
            "fail",
            cv.problem,
            f"install JetPack's python3-opencv; {_ORIN_GUIDE}"
            if facts.jetson
            else "`pip install opencv-python-headless`",
        )
    elif not cv.gstreamer and needed:
        yield Line(
            "OpenCV",
            "warn",
            f"{cv.version}, without GStreamer: pipelines and CSI cameras do not open",
            f"use JetPack's python3-opencv in place of the one from PyPI; {_ORIN_GUIDE}",
        )
    else:
        yield Line("OpenCV", "ok", f"{cv.version}, {'with' if cv.gstreamer else 'without'} GStreamer")


def _config(facts: Facts) -> Iterator[Line]:
    if facts.config_problem:
        yield Line(
            "configuration", "fail", facts.config_problem, "`cabinsense config check` after each change"
        )


def _cameras(facts: Facts) -> Iterator[Line]:
    videos = {video.path: video for video in facts.videos}
    for camera in facts.asked.cameras:
        subject, path = f"camera {camera.name}", camera.source
        if path.isdecimal():
            path = f"/dev/video{path}"
        if not path.startswith("/dev/"):
            yield Line(subject, "ok", "no device: it is tried when the agent runs")
        elif path not in videos:
            there = ", ".join(videos) or "none"
            yield Line(
                subject, "fail", f"{path} is missing; there are: {there}", "plug it in, or correct its source"
            )
        elif not videos[path].allowed:
            yield Line(
                subject, "fail", f"{path}: no permission", "`sudo usermod -aG video USER`, then log in again"
            )
        else:
            yield Line(subject, "ok", f"{path}, {videos[path].name}")
    if not facts.asked.cameras:
        found = ", ".join(f"{video.path} ({video.name})" for video in facts.videos) or "no device"
        yield Line("cameras", "warn", f"none configured; found: {found}", "add a [[cameras]] table")


def _accelerator(facts: Facts) -> Iterator[Line]:
    wish, tensorrt = facts.asked, facts.libraries["tensorrt"]
    wants_gpu = wish.cuda or wish.backend == "tensorrt"
    device = facts.cuda.device
    if device is not None:
        yield Line("CUDA", "ok", _described(device))
    elif wants_gpu or facts.jetson:
        yield Line(
            "CUDA",
            "fail" if wants_gpu else "warn",
            facts.cuda.problem,
            f"install JetPack's CUDA, and in a container run with --runtime nvidia; {_ORIN_GUIDE}"
            if facts.jetson
            else 'install NVIDIA\'s driver, or set engine.backend = "onnxruntime" and engine.providers = ["cpu"]',
        )
    else:
        yield Line("CUDA", "ok", f"{facts.cuda.problem}: the models run on the processor")
    missing: State = "fail" if wish.backend == "tensorrt" else "warn"
    expected = facts.jetson or wish.backend == "tensorrt"
    if tensorrt.version:
        yield Line("TensorRT", "ok", tensorrt.version)
    elif expected:
        yield Line("TensorRT", missing, tensorrt.problem, f"`sudo apt install nvidia-jetpack`; {_ORIN_GUIDE}")
    else:
        yield Line("TensorRT", "ok", "not installed, not asked for")
    if expected and not facts.pycuda:
        yield Line("pycuda", missing, "not installed", "`pip install 'cabinsense[tensorrt]'`")
    rtx = facts.libraries["tensorrt-rtx"]
    if rtx.version:
        yield Line("TensorRT for RTX", "ok", rtx.version)


def _described(device: Device) -> str:
    return f"{device.name}, compute capability {device.capability}, {device.memory_mb} MB, CUDA {device.cuda}"


def _board(facts: Facts) -> Iterator[Line]:
    if not facts.jetson:
        yield Line("board", "ok", "not a Jetson: no jtop, no GPIO needed")
        return
    yield Line("board", "ok", f"{facts.board}, L4T {facts.l4t or 'unknown'}")
    if not facts.jtop:
        yield Line(
            "jtop", "warn", "not installed: no temperatures in health", "`pip install 'cabinsense[orin]'`"
        )
    elif facts.jtop_socket is None:
        yield Line("jtop", "warn", "its service does not run", "`sudo systemctl enable --now jtop`")
    elif not facts.jtop_socket.allowed:
        yield Line("jtop", "warn", f"{facts.jtop_socket.path}: no permission", "`sudo usermod -aG jtop USER`")
    else:
        yield Line("jtop", "ok", facts.jtop_socket.path)
    closed = [chip.path for chip in facts.gpio_chips if not chip.allowed]
    if not facts.gpio_chips:
        yield Line(
            "GPIO", "warn", "no /dev/gpiochip*", "pass the device to the container, or load its driver"
        )
    elif closed:
        yield Line(
            "GPIO", "warn", f"{closed[0]}: no permission", "`sudo usermod -aG gpio USER`, then log in again"
        )
    elif not facts.gpio_library:
        yield Line(
            "GPIO", "warn", "Jetson.GPIO is not installed: no record button", "`pip install Jetson.GPIO`"
        )
    else:
        yield Line("GPIO", "ok", ", ".join(chip.path for chip in facts.gpio_chips))


def _data(facts: Facts) -> Iterator[Line]:
    if facts.pack_problem:
        yield Line("pack", "fail", *_told(facts.pack_problem, "`cabinsense models fetch`"))
    else:
        yield Line("pack", "ok", facts.pack)
    if facts.adaptation_problem:
        told = _told(facts.adaptation_problem, "set adaptation.tier to off")
        yield Line("adaptation", "warn", f"none: {told[0]}", told[1])
    else:
        yield Line("adaptation", "ok", facts.asked.adaptation)
    if facts.gallery_problem:
        yield Line("gallery", "fail", *_told(facts.gallery_problem, "name another under gallery.path"))
    elif facts.people is None:
        yield Line("gallery", "ok", f"none yet at {facts.gallery}")
    else:
        yield Line("gallery", "ok", f"{facts.gallery}, {counted(facts.people, 'person', 'people')}")
    if facts.threshold_outgrown:
        yield Line(
            "threshold",
            "warn",
            f"{facts.threshold}, but more are enrolled: strangers may be given a name",
            "`cabinsense calibrate threshold` chooses another",
        )
    elif facts.threshold:
        yield Line("threshold", "ok", facts.threshold)
    state: State = "ok" if facts.disk_mb >= _DISK_LOW_MB else "warn"
    if facts.disk_mb < _DISK_FULL_MB:
        state = "fail"
    yield Line("disk", state, f"{facts.disk_mb} MB free", "" if state == "ok" else "free some space")


def _engines(facts: Facts) -> Iterator[Line]:
    found = ", ".join(f"{name} {version}" for name, version in facts.backends.items()) or "none"
    wanted = facts.asked.backend
    if wanted in facts.backends or wanted == "tensorrt":
        yield Line("engines", "ok", found)
    else:
        yield Line(
            "engines",
            "fail",
            f"{wanted} is asked for; there are: {found}",
            f"`pip install 'cabinsense[{wanted}]'`",
        )
    for plan in facts.plans:
        asked = wanted == "tensorrt" and plan.name.startswith(f"tensorrt-{facts.asked.precision}/")
        if plan.problem:
            told = _told(plan.problem, "`cabinsense models build` makes it anew")
            yield Line(f"plan {plan.name}", "fail" if asked else "warn", *told)
        else:
            yield Line(f"plan {plan.name}", "ok", "whole, and made for this box")
    for gate in facts.gates:
        subject = f"gate {gate.backend} {gate.precision}"
        if gate.problem:
            told = _told(gate.problem, "`cabinsense calibrate gate` checks it")
            yield Line(subject, "fail" if gate.asked else "warn", *told)
        else:
            yield Line(subject, "ok", "passed")


def _running(facts: Facts) -> Iterator[Line]:
    if facts.notify:
        yield Line("systemd", "ok", "this is a service that reports to it")
    elif not facts.systemd:
        yield Line("systemd", "ok", "not here (a container, perhaps): start the agent by other means")
    elif facts.unit:
        yield Line("systemd", "ok", "the service is installed")
    else:
        yield Line("systemd", "warn", "the service is not installed", "install systemd/cabinsense.service")
    if facts.daemon_problem:
        yield Line("agent", "warn", *_told(facts.daemon_problem, "look at its log"))
    else:
        yield Line("agent", "ok", facts.daemon or "does not run; `cabinsense run` starts it")


def _told(problem: str, otherwise: str) -> tuple[str, str]:
    """An error's message as detail and remedy: messages end in the remedy, behind a semicolon."""
    detail, _, remedy = problem.rpartition("; ")
    return (detail, remedy) if detail else (problem, otherwise)
