"""What lets an engine go live: the report of a gate that it has passed.

The gate compares an engine with the reference, FP32 on ONNX Runtime's processor kernels (``calibration.gate``). Its
report lies in the pack, ``gates/BACKEND-PRECISION.json``, and names the models, the backend's version and the kind of
machine: a report about something else lets nothing pass.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from msgspec import Struct

from engines.engine import EngineError
from engines.pack import Pack, file_digest

_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "litert": ("ai-edge-litert",),
    "tensorrt": ("tensorrt",),
}


class Verdict(Struct, frozen=True):
    """The part of a gate's report that decides.

    Attributes:
        passed: the engine may go live.
        reasons: why not, in words.
        backend: as ``name`` says it.
        precision: of the engine.
        models: SHA-256 of the ONNX files that were compared, by role.
        runtime: as ``runtime`` says it.
    """

    passed: bool
    reasons: tuple[str, ...]
    backend: str
    precision: str
    models: dict[str, str]
    runtime: str


def name(backend: str, providers: tuple[str, ...] = ("cpu",)) -> str:
    """What reports call a backend: ``onnxruntime-cuda-cpu`` where ONNX Runtime uses other providers than ``cpu``."""
    return backend if backend != "onnxruntime" or providers == ("cpu",) else "-".join((backend, *providers))


def runtime(backend: str) -> str:
    """The backend's package, its version and the kind of machine; another one of these computes in another way."""
    known = _PACKAGES.get(backend.partition("-")[0], ())
    found = next((f"{package} {each}" for package in known if (each := _version(package))), backend)
    return f"{found} {platform.machine()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def models(pack: Pack, precision: str) -> dict[str, Path]:
    """The ONNX files behind the engines of a precision, by role: of ``int8`` those in the folder ``int8``."""
    files = {"detector": pack.detector, "face": pack.face}
    if precision != "int8":
        return files
    return {role: file.parent / "int8" / file.name for role, file in files.items()}


def report_file(folder: Path, backend: str, precision: str) -> Path:
    """Where the report on an engine lies below the folder of a pack."""
    return folder / "gates" / f"{backend}-{precision}.json"


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of models, by role.

    Raises:
        EngineError: one is missing.
    """
    for file in files.values():
        if not file.is_file():
            raise EngineError(f"{file}: no such model; `cabinsense calibrate int8` makes it")
    return {role: file_digest(file) for role, file in files.items()}


def require_passed(pack: Pack, backend: str, precision: str) -> None:
    """Raise unless the engines of a pack on this backend, in this precision, have passed the gate as they are now.

    The reference itself needs no report.

    Args:
        pack: verified.
        backend: as ``name`` says it.
        precision: ``fp32``, ``fp16`` or ``int8``.

    Raises:
        EngineError: there is no report, it is about something else, or it says no.
    """
    if (backend, precision) == ("onnxruntime", "fp32"):
        return
    file = report_file(pack.path, backend, precision)
    remedy = f"`cabinsense calibrate gate --backend {backend} --precision {precision} --data …` checks it"
    try:
        verdict = msgspec.json.decode(file.read_bytes(), type=Verdict)
    except FileNotFoundError:
        raise EngineError(
            f"{backend} {precision} has not passed the gate: {file} is missing; {remedy}"
        ) from None
    except OSError as error:
        raise EngineError(f"{file}: {error.strerror}; make it readable") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EngineError(f"{file}: not a gate's report ({error}); {remedy}") from error
    if not verdict.passed:
        raise EngineError(
            f"{backend} {precision} did not pass the gate: {'; '.join(verdict.reasons)} ({file}); calibrate anew, or "
            "set engine.backend and engine.precision to what has passed"
        )
    found = (verdict.backend, verdict.precision, verdict.models, verdict.runtime)
    if found != (backend, precision, digests(models(pack, precision)), runtime(backend)):
        raise EngineError(f"{file}: the report is about other models or another version; {remedy}")
