"""Every backend made in the same way, so that one story is told of all of them."""

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest

from engines.build import Model, choose_target, ensure_plan
from engines.engine import Engine
from engines.model import with_dims
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.plans import Library
from engines.probe import Device, probe_cuda, probe_library
from engines.tensorrt_engine import TensorRTEngine

Make = Callable[[onnx.ModelProto, Mapping[str, int]], Engine]


def _onnxruntime(model: onnx.ModelProto, dims: Mapping[str, int]) -> Engine:
    return OnnxRuntimeEngine(model, SessionSettings(threads=1, dims=dims))


def _openvino(model: onnx.ModelProto, dims: Mapping[str, int]) -> Engine:
    # Not openvino itself: only our module keeps it from reporting its import to a web address.
    backend = pytest.importorskip(
        "engines.openvino_engine", reason="the extra openvino is not installed", exc_type=ImportError
    )
    return backend.OpenVINOEngine(with_dims(model, dims), threads=1)


def _litert(model: onnx.ModelProto, dims: Mapping[str, int]) -> Engine:
    backend = pytest.importorskip(
        "engines.litert_engine", reason="the extra litert is not installed", exc_type=ImportError
    )
    return backend.LiteRTEngine(with_dims(model, dims), threads=1)


def _tensorrt(model: onnx.ModelProto, dims: Mapping[str, int]) -> Engine:
    device, library = _gpu()
    if device is None:
        pytest.skip("TensorRT needs an NVIDIA GPU")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, file)
        ensure_plan(Model(file, dims), choose_target(library, None, device), "fp32")
        return TensorRTEngine.load(file, dims, "fp32", library)


@functools.cache
def _gpu() -> tuple[Device | None, Library]:
    """The GPU that is here, and the library to use it with."""
    return probe_cuda().device, "tensorrt" if probe_library("tensorrt").version else "tensorrt-rtx"


MAKERS: dict[str, Make] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "litert": _litert,
    "tensorrt": _tensorrt,
}


@pytest.fixture(params=MAKERS)
def make(request) -> Make:
    """Makes an engine of a model with these sizes for its symbolic dimensions, on each backend in turn."""
    return MAKERS[request.param]
