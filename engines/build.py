"""Build TensorRT plans from ONNX: one code path for TensorRT 10.3 to 11 and for TensorRT for RTX.

The network is strongly typed and quantisation is explicit, so the graph says all that the builder once took as flags
(see ``engines.precision``). What differs between the libraries:

- TensorRT builds on the GPU that the plan is for, and times its kernels there. Norm parameters stay refittable.
- TensorRT for RTX builds for a compute capability without having such a GPU. A refittable plan it builds only where a
  GPU is present; elsewhere the norm parameters are fixed, and the plan's key says so.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import onnx

from engines.engine import EngineError
from engines.model import read_model, with_dims
from engines.norms import read_norms
from engines.pack import file_digest
from engines.plans import Library, Plan, PlanError, PlanKey, check_key, read_plan, remedy, write_plan
from engines.precision import Precision, for_tensorrt
from engines.probe import Device, load_library
from engines.sources.storage import locked, write_file

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told the name of a phase, the steps of it that are done and how many it has; from any thread."""

_OLDEST = (10, 3)
_WORKSPACE = 256 << 20  # bytes that a kernel may use while it runs: an Orin shares its memory with all else
_FLAGS = ("strongly_typed", f"workspace={_WORKSPACE}")


@dataclass(frozen=True)
class Target:
    """What a plan is built for.

    Attributes:
        library: who builds it.
        capability: compute capability, such as ``8.7``.
        device: the GPU of that capability that is here; None builds ahead of time, which TensorRT for RTX can.
    """

    library: Library
    capability: str
    device: Device | None


@dataclass(frozen=True)
class Model:
    """What a plan is built from.

    Attributes:
        path: the ONNX file of the pack; for ``int8`` its quantised form is looked for (see ``onnx_file``).
        dims: sizes for the open dimensions of its inputs.
    """

    path: Path
    dims: Mapping[str, int] = field(hash=False)


def choose_target(library: Library, capability: str | None, device: Device | None) -> Target:
    """The target that is asked for.

    Args:
        library: who builds.
        capability: compute capability to build for, such as ``8.6``; None: that of ``device``.
        device: the GPU that a probe has found; None if there is none.

    Raises:
        EngineError: it cannot be had here; says why.
    """
    if library == "tensorrt":
        if device is None:
            raise EngineError(
                "TensorRT builds on the GPU that the plan is for, and there is none here; run this on the Orin, or "
                "build for an RTX card with --backend tensorrt-rtx"
            )
        if capability not in (None, device.capability):
            raise EngineError(
                f"TensorRT builds for the GPU that is here ({device.name}, {device.capability}), not for {capability}; "
                "leave out --compute-capability"
            )
        return Target(library, device.capability, device)
    if capability is None:
        if device is None:
            raise EngineError("there is no GPU here to build for; name one with --compute-capability 86")
        capability = device.capability
    return Target(library, capability, device if device and device.capability == capability else None)


def onnx_file(path: Path, precision: Precision) -> Path:
    """The ONNX file behind a plan: that of the pack; for ``int8`` the one of the same name in its folder ``int8``."""
    return path.parent / "int8" / path.name if precision == "int8" else path


def plan_file(path: Path, library: Library, precision: Precision) -> Path:
    """Where the plan of a pack's ONNX file is kept."""
    return path.parent / "plans" / f"{library}-{precision}" / f"{path.stem}.plan"


def wanted_key(model: Model, target: Target, precision: Precision, version: str) -> PlanKey:
    """The key that a plan must have to be used; what can be refitted is left open.

    Raises:
        EngineError: the ONNX file is missing.
    """
    source = onnx_file(model.path, precision)
    if not source.is_file():
        hint = "`cabinsense calibrate int8` makes it" if precision == "int8" else "`cabinsense models fetch`"
        raise EngineError(f"{source}: no such model; {hint}")
    return PlanKey(
        onnx=file_digest(source),
        library=target.library,
        version=version,
        device=target.device.name if target.device else "",
        capability=target.capability,
        precision=precision,
        dims=dict(model.dims),
        flags=_FLAGS,
    )


def ensure_plan(
    model: Model,
    target: Target,
    precision: Precision,
    progress: Progress = lambda *_: None,
    *,
    force: bool = False,
) -> tuple[Plan, bool]:
    """The plan of a model, built where the one on disk cannot be used; and whether it was built just now.

    Until a new plan is whole and on disk the old one stays, also when building fails or the power does.

    Raises:
        EngineError: the library or the model is missing, the library refuses the model, or the plan cannot be written.
    """
    library = load_library(target.library)
    wanted = wanted_key(model, target, precision, str(library.__version__))
    file = plan_file(model.path, target.library, precision)
    try:
        if not force:
            plan = read_plan(file)
            check_key(plan.key, wanted, str(file))
            return plan, False
    except PlanError as error:
        if remedy(error.trouble, can_build=True, rebuilt=False) == "report":
            raise
        if error.trouble != "missing":
            log.warning("%s", error)
    folder = file.parent.parent
    try:
        with locked(folder / ".lock"):
            plan = build_plan(model, target, precision, folder / f"{target.library}.timings", progress)
            write_plan(file, plan)
    except OSError as error:
        raise EngineError(f"{folder}: {error.strerror}; make the folder writable") from error
    return read_plan(file), True


def build_plan(
    model: Model, target: Target, precision: Precision, timings: Path, progress: Progress = lambda *_: None
) -> Plan:
    """Build a plan.

    Args:
        model: what to build.
        target: what to build it for.
        precision: what its products run in.
        timings: file of kernel timings, read where it is good and brought up to date, if a GPU is here to be timed.
        progress: told how far it is.

    Raises:
        EngineError: the library or the model is missing, or the library refuses the model.
    """
    library = load_library(target.library)
    version = str(library.__version__)
    if target.library == "tensorrt" and tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise EngineError(f"TensorRT {version} is too old; 10.3 is needed, which JetPack 6.1 brings")
    key = wanted_key(model, target, precision, version)
    source = onnx_file(model.path, precision)
    try:
        graph = for_tensorrt(with_dims(read_model(source), model.dims), precision)
    except ValueError as error:
        raise EngineError(f"{source}: {error}") from error
    refittable = tuple(read_norms(graph)) if target.device is not None else ()
    payload = _Builder(library, target, progress).build(graph, source, refittable, timings)
    return Plan(msgspec.structs.replace(key, refittable=refittable), payload)


class _Builder:
    """One library's builder, with its messages collected."""

    def __init__(self, library: Any, target: Target, progress: Progress) -> None:
        """``library`` is the bindings' module; its types are checked as those of ``tensorrt``."""
        self._library = library
        self._target = target
        self._progress = progress

    def build(
        self, graph: onnx.ModelProto, source: Path, refittable: tuple[str, ...], timings: Path
    ) -> bytes:
        """The serialised plan of ``graph``."""
        if TYPE_CHECKING:
            trt = tensorrt
        else:
            trt = self._library
        messages = collect_messages(trt)
        builder = trt.Builder(messages)
        if builder is None:
            raise EngineError(f"{self._target.library} does not start: {messages.told()}")
        network = builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(network, messages)
        if not parser.parse(graph.SerializeToString()):
            told = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise EngineError(f"{source}: {self._target.library} does not understand it: {told}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the inspector names the layers
        self._aim(config)
        if refittable:
            config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
            lost = [name for name in refittable if not network.mark_weights_refittable(name)]
            if lost:
                raise EngineError(
                    f"{source}: {self._target.library} lost the norm parameters {', '.join(lost[:3])}…; they must be "
                    "initializers that a Mul or Add reads"
                )
        monitor = _monitor(trt, self._progress)
        if monitor is not None:
            config.progress_monitor = monitor
        cache = _load_timings(config, timings) if self._target.device is not None else None
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(f"{source}: {self._target.library} cannot build it: {messages.told()}")
        if cache is not None:
            _save_timings(config, timings)
        return bytes(plan)

    def _aim(self, config: "tensorrt.IBuilderConfig") -> None:
        """Build for the target's compute capability, where the library can build for another than the one here."""
        if self._target.library == "tensorrt":
            return
        known = self._library.ComputeCapability.__members__
        name = f"SM{self._target.capability.replace('.', '')}"
        if name not in known:
            raise EngineError(
                f"{self._target.library} does not build for compute capability {self._target.capability}; it knows "
                + ", ".join(f"{each[2:-1]}.{each[-1]}" for each in known if each.startswith("SM"))
            )
        rtx: Any = config  # these two are not in the API of TensorRT 10
        rtx.num_compute_capabilities = 1
        rtx.set_compute_capability(known[name], 0)


def collect_messages(library: Any) -> Any:
    """A logger for a TensorRT library that hands messages on to ``logging`` and remembers the errors."""
    if TYPE_CHECKING:
        trt = tensorrt
    else:
        trt = library
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.INFO,  # what matters of them comes back in an exception
        trt.ILogger.Severity.WARNING: logging.INFO,
    }

    class Messages(trt.ILogger):
        """What the library says."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Called by the library, from any thread."""
            log.log(levels.get(severity, logging.DEBUG), "%s: %s", trt.__name__, msg)
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(msg)

        def told(self) -> str:
            """The errors so far, in one line."""
            return "; ".join(self.errors) or "it does not say why"

    return Messages()


def _network_flags(trt: Any) -> int:
    """Strongly typed, explicit batch: flags that later versions took for granted and removed."""
    flags = trt.NetworkDefinitionCreationFlag
    wanted = (getattr(flags, name, None) for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH"))
    return sum(1 << int(flag) for flag in wanted if flag is not None)


def _monitor(library: Any, progress: Progress) -> Any:
    """What the library reports its progress to; None where it reports none."""
    if not hasattr(library, "IProgressMonitor"):
        return None
    if TYPE_CHECKING:
        trt = tensorrt
    else:
        trt = library

    class Monitor(trt.IProgressMonitor):
        """Hands on the outermost phases; those inside them come and go too fast to read."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            """A phase begins."""
            if not parent_phase:
                with self._lock:
                    self._steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step of a phase is done; False would stop the build."""
            if phase_name in self._steps:
                progress(phase_name, step + 1, self._steps[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends, sometimes before its last step."""
            with self._lock:
                steps = self._steps.pop(phase_name, None)
            if steps is not None:
                progress(phase_name, steps, steps)

    return Monitor()


def _load_timings(config: "tensorrt.IBuilderConfig", file: Path) -> Any:
    """Attach the timings in ``file``, or new ones where it has none that fit this library and GPU."""
    data = b""
    with suppress(OSError):
        data = file.read_bytes()
    for content in (data, b""):
        with suppress(Exception):  # the bindings raise their own kinds at bytes that they do not like
            cache = config.create_timing_cache(content)
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
    return None


def _save_timings(config: "tensorrt.IBuilderConfig", file: Path) -> None:
    cache = config.get_timing_cache()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, bytes(cache.serialize()))
    except OSError as error:
        log.warning("%s: %s; the next build will take as long", file, error.strerror)
