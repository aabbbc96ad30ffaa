"""Ask a process of its own what GPU and which TensorRT are here.

A missing or broken driver can end the process that first touches it. The daemon and ``doctor`` therefore never touch
CUDA or TensorRT before a child has done so and lived; what the child found is the ``Device`` that loading a plan needs.

``python -m engines.probe cuda|tensorrt|tensorrt-rtx`` is that child: it prints one JSON object.
"""

import contextlib
import ctypes
import importlib
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import msgspec
from msgspec import Struct

from engines.engine import EngineError
from engines.plans import Library

_PATIENCE_S = 60.0  # the first use of CUDA after boot takes seconds on a Jetson
_MODULES: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_REMEDIES: dict[Library, str] = {
    "tensorrt": "on a Jetson it comes with JetPack (`sudo apt install nvidia-jetpack`); see docs/orin.md",
    "tensorrt-rtx": "`pip install 'cabinsense[tensorrt-rtx]'` installs it",
}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h


class Device(Struct, frozen=True):
    """A GPU that works.

    Attributes:
        name: as the driver calls it.
        capability: compute capability, such as ``8.7`` for Orin.
        memory_mb: its memory; on a Jetson that is the machine's.
        cuda: newest CUDA version that the driver serves, such as ``12.6``.
    """

    name: str
    capability: str
    memory_mb: int
    cuda: str


class CudaProbe(Struct, frozen=True):
    """What was found of CUDA: a device, or why there is none."""

    device: Device | None = None
    problem: str = ""


class LibraryProbe(Struct, frozen=True):
    """What was found of a TensorRT library: its version, or why it cannot be used."""

    version: str = ""
    problem: str = ""


P = TypeVar("P", CudaProbe, LibraryProbe)


def probe_cuda() -> CudaProbe:
    """Ask a child process for the first GPU."""
    return _ask("cuda", CudaProbe)


def probe_library(library: Library) -> LibraryProbe:
    """Ask a child process to import a TensorRT library."""
    return _ask(library, LibraryProbe)


def load_library(library: Library) -> ModuleType:
    """The Python bindings of a TensorRT library.

    Raises:
        EngineError: they are not installed, or do not find their libraries.
    """
    problems = []
    for name in _MODULES[library]:
        found = _import(name)
        if isinstance(found, ModuleType):
            return found
        problems.append(found)
    raise EngineError(f"{library}: {max(problems, key=len)}; {_REMEDIES[library]}")


def _import(name: str) -> ModuleType | str:
    """A module of bindings, or why it cannot be had."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == name else str(error)
    except (ImportError, OSError) as error:
        return str(error)
    # Type stubs alone import as an empty package of the same name.
    return module if hasattr(module, "Builder") else "not installed"


def _ask(what: str, expect: type[P]) -> P:
    try:
        child = subprocess.run(
            [sys.executable, "-m", "engines.probe", what],
            capture_output=True,
            timeout=_PATIENCE_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return expect(problem=f"the probe did not answer within {_PATIENCE_S:g} s; restart the machine")
    except OSError as error:
        return expect(problem=f"the probe could not be started: {error}")
    return interpret(child.returncode, child.stdout, child.stderr, expect)


def interpret(status: int, output: bytes, errors: bytes, expect: type[P]) -> P:
    """What a child of this exit status and output has found.

    Args:
        status: exit status; negative: the signal that ended the child.
        output: its standard output; its last line is the answer, whatever libraries printed before.
        errors: its standard error.
        expect: the type of the answer.
    """
    if status < 0:
        name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
        return expect(problem=f"the probe was ended by {name}: driver and libraries do not fit each other")
    with contextlib.suppress(msgspec.MsgspecError, IndexError):
        return msgspec.json.decode(output.strip().splitlines()[-1], type=expect)
    told = errors.decode(errors="replace").strip().splitlines()
    return expect(problem=f"the probe failed: {told[-1] if told else f'exit status {status}'}")


def _find_cuda() -> CudaProbe:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return CudaProbe(problem="no CUDA driver (libcuda.so.1)")
    status = driver.cuInit(0)
    if status:
        return CudaProbe(problem=f"the CUDA driver does not start (cuInit: {_error(driver, status)})")
    count, version, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    calls: tuple[Callable[[], int], ...] = (
        lambda: driver.cuDriverGetVersion(ctypes.byref(version)),
        lambda: driver.cuDeviceGetCount(ctypes.byref(count)),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetName(name, len(name), device),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
    )
    for call in calls:
        status = call()
        if status:
            return CudaProbe(problem=f"the CUDA driver fails ({_error(driver, status)})")
    return CudaProbe(
        Device(
            name.value.decode(errors="replace"),
            f"{major.value}.{minor.value}",
            memory.value >> 20,
            f"{version.value // 1000}.{version.value % 1000 // 10}",
        )
    )


def _error(driver: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(text))
    return text.value.decode() if text.value else str(status)


def _find_library(library: Library) -> LibraryProbe:
    try:
        return LibraryProbe(str(load_library(library).__version__))
    except EngineError as error:
        return LibraryProbe(problem=str(error))


def _answer(what: str) -> bytes:
    if what == "cuda":
        return msgspec.json.encode(_find_cuda())
    return msgspec.json.encode(_find_library(msgspec.convert(what, Library)))


if __name__ == "__main__":
    sys.stdout.buffer.write(_answer(sys.argv[1]) + b"\n")
