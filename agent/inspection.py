"""Look at a box: what is there, what may be used, what is broken. ``agent.doctor`` says what that means.

Every path is taken below a root, so that the tests can look at a tree of their own. What could end the process (CUDA,
TensorRT) is tried in a child.
"""

import importlib
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agent import __version__, control, paths, upkeep
from agent.config import AdaptationSettings, Config, ConfigError, load
from agent.curve_keys import KeysError
from agent.doctor import Camera, Facts, Gate, Node, OpenCV, Plan, Wish
from agent.gallery.threshold import InForce, of_gallery
from agent.gallery.types import GalleryError
from agent.words import counted
from engines import gates, probe
from engines.engine import EngineError
from engines.errors import UserError
from engines.pack import Pack, PackError, verify
from engines.plans import Library, PlanError, PlanKey, read_plan

_ANSWER_S = 3.0
BACKENDS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai-edge-litert"}
_UNITS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


def inspect(
    config_file: Path | None, root: Path = Path("/"), environment: Mapping[str, str] = os.environ
) -> Facts:
    """Look at everything.

    Args:
        config_file: the configuration; None: the one that the daemon would read.
        root: where /dev, /proc, /sys, /run and /etc are.
        environment: variables of this process.
    """
    config, problem = None, ""
    try:
        config = load(config_file)
    except ConfigError as error:
        problem = str(error)
    settings = config or Config()
    libraries: tuple[Library, ...] = ("tensorrt", "tensorrt-rtx")
    with ThreadPoolExecutor() as pool:  # each probe is a process that takes a second to start
        asked = [pool.submit(probe.probe_library, library) for library in libraries]
        cuda = probe.probe_cuda()
        found = {library: each.result() for library, each in zip(libraries, asked, strict=True)}
    pack, pack_problem = _pack(settings)
    people, threshold, gallery_problem = _gallery(settings, pack)
    daemon, daemon_problem = _daemon(settings)
    return Facts(
        agent=__version__,
        python=platform.python_version(),
        board=_board(root),
        l4t=_l4t(root),
        opencv=_opencv(),
        wish=_wish(config) if config else None,
        config_problem=problem,
        videos=_nodes(root, "dev/video*"),
        cuda=cuda,
        libraries=found,
        pycuda=_installed("pycuda"),
        jtop=_installed("jtop"),
        jtop_socket=next(iter(_nodes(root, "run/jtop.sock")), None),
        gpio_chips=_nodes(root, "dev/gpiochip*"),
        gpio_library=_installed("Jetson.GPIO"),
        systemd=(root / "run/systemd/system").is_dir(),
        notify="NOTIFY_SOCKET" in environment,
        unit=any((root / folder / "cabinsense.service").exists() for folder in _UNITS),
        gallery=str(settings.gallery_path),
        people=people,
        threshold=threshold.words if threshold else "",
        threshold_outgrown=threshold is not None and threshold.outgrown,
        gallery_problem=gallery_problem,
        pack=f"{pack.manifest.name} {pack.manifest.digest[:12]} in {pack.path}" if pack else "",
        pack_problem=pack_problem,
        adaptation_problem=_adaptation(pack, settings.adaptation) if pack else "",
        backends=installed_backends(),
        plans=_plans(pack, cuda.device, {library: each.version for library, each in found.items()})
        if pack
        else (),
        gates=_gates(pack, settings) if pack else (),
        disk_mb=_disk(paths.data_dir()),
        daemon=daemon,
        daemon_problem=daemon_problem,
    )


def _board(root: Path) -> str:
    """The model of a Jetson; empty on other machines, which may have a device tree as well."""
    with suppress(OSError):
        model = (root / "proc/device-tree/model").read_bytes().rstrip(b"\0").decode(errors="replace")
        if "NVIDIA" in model or "Jetson" in model:
            return model
    return ""


def _l4t(root: Path) -> str:
    """The release of Jetson Linux, from a first line such as ``# R36 (release), REVISION: 4.0, …``."""
    with suppress(OSError):
        text = (root / "etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace")
        found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
        if found:
            return f"{found[1]}.{found[2]}"
    return ""


def _opencv() -> OpenCV:
    try:
        cv2 = importlib.import_module("cv2")
        return OpenCV(cv2.__version__, bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)))
    except (ImportError, AttributeError) as error:
        return OpenCV(problem=str(error))


def _wish(config: Config) -> Wish:
    return Wish(
        tuple(Camera(camera.name, camera.source) for camera in config.cameras),
        config.engine.backend,
        config.engine.precision,
        config.engine.backend == "onnxruntime" and bool({"cuda", "tensorrt"} & set(config.engine.providers)),
        config.adaptation.tier,
    )


def _nodes(root: Path, pattern: str) -> tuple[Node, ...]:
    """Device files, with the kernel's name for video devices; video10 comes after video9."""
    nodes = []
    for path in sorted(root.glob(pattern), key=lambda each: (len(each.name), each.name)):
        name = path.name
        with suppress(OSError):
            name = (root / "sys/class/video4linux" / path.name / "name").read_text(encoding="utf-8").strip()
        nodes.append(Node(f"/{path.relative_to(root)}", name, os.access(path, os.R_OK | os.W_OK)))
    return tuple(nodes)


def _installed(module: str) -> bool:
    """A module is there; it is not imported, for some look for their hardware when they are."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _pack(config: Config) -> tuple[Pack | None, str]:
    try:
        return verify(config.pack_path), ""
    except PackError as error:
        return None, str(error)


def _adaptation(pack: Pack, settings: AdaptationSettings) -> str:
    """Why nothing can be adapted; empty where that is not asked for."""
    if settings.tier == "off":
        return ""
    from agent.adaptation.tiers import means  # noqa: PLC0415 - imports onnx, which takes long

    try:
        means(pack, settings)
    except UserError as error:
        return str(error)
    return ""


def _gallery(settings: Config, pack: Pack | None) -> tuple[int | None, InForce | None, str]:
    """How many people there are, from which score they are recognised, and why the gallery does not open."""
    if not settings.gallery_path.exists():
        return None, None, ""
    try:
        with upkeep.opened(settings, readonly=True) as gallery:
            threshold = of_gallery(settings.identity, pack.manifest, gallery) if pack else None
            return len(gallery.people()), threshold, ""
    except GalleryError as error:
        return None, None, str(error)


def installed_backends() -> dict[str, str]:
    """The version of each backend that is installed; TensorRT is no package of pip's and not among them."""
    found = {}
    for backend, package in BACKENDS.items():
        with suppress(PackageNotFoundError):
            found[backend] = version(package)
    return found


def _plans(pack: Pack, device: probe.Device | None, versions: Mapping[str, str]) -> tuple[Plan, ...]:
    plans = []
    for file in sorted((pack.path / "plans").glob("*/*.plan")):
        name = f"{file.parent.name}/{file.stem}"
        try:
            problem = _misfit(read_plan(file).key, pack, device, versions)
        except PlanError as error:
            problem = str(error)
        plans.append(Plan(name, problem))
    return tuple(plans)


def _misfit(key: PlanKey, pack: Pack, device: probe.Device | None, versions: Mapping[str, str]) -> str:
    """Why a whole plan cannot be used here."""
    if key.precision != "int8" and key.onnx not in (pack.manifest.detector.sha256, pack.manifest.face.sha256):
        return "built from another model"
    here = versions[key.library]
    if here and here != key.version:
        return f"built by {key.library} {key.version}; here is {here}"
    if device is None:
        return "whole, but there is no GPU to run it"
    if (key.device or device.name, key.capability) != (device.name, device.capability):
        return f"built for {key.device or 'any GPU'} of compute capability {key.capability}"
    return ""


def _gates(pack: Pack, config: Config) -> tuple[Gate, ...]:
    """The verdict on the engine that is asked for, and on each that has a report; the reference needs none."""
    asked = (gates.name(config.engine.backend, config.engine.providers), config.engine.precision)
    reports = [file.stem.rpartition("-") for file in sorted((pack.path / "gates").glob("*-*.json"))]
    found = []
    for backend, precision in dict.fromkeys([asked, *((name, precision) for name, _, precision in reports)]):
        if (backend, precision) == ("onnxruntime", "fp32"):
            continue  # the reference itself
        problem = ""
        try:
            gates.require_passed(pack, backend, precision)
        except (EngineError, PackError) as error:
            problem = str(error)
        found.append(Gate(backend, precision, (backend, precision) == asked, problem))
    return tuple(found)


def _disk(folder: Path) -> int:
    """Free megabytes where ``folder`` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // 2**20


def ask_daemon(config: Config) -> str:
    """How the running agent is, in a few words.

    Raises:
        ControlError: none runs, or it does not answer.
        KeysError: it asks for a key, and the configuration has none that can be used.
    """
    status = control.request(
        config.control_endpoint, control.GetStatus(), control.Status, _ANSWER_S, curve=config.curve
    )
    if status.health is None:
        return "runs, has just started"
    problems = counted(len(status.health.problems), "problem")
    return f"runs, {status.health.fps:g} frames a second, {problems}"


def _daemon(config: Config) -> tuple[str, str]:
    """The daemon's answer, and why there is none; both empty if none runs."""
    try:
        return ask_daemon(config), ""
    except KeysError as error:
        return "", str(error)
    except control.ControlError as error:
        return "", "" if error.code == "no_daemon" else str(error)
