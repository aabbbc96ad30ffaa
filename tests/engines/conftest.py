"""Every backend made in the same way, so that one story is told of all of them."""

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.build import Model, choose_target, ensure_plan
from engines.engine import Engine
from engines.model import with_dims
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.plans import Library
from engines.probe import Device, probe_cuda, probe_library
from engines.sources.onnx_graph import GraphWriter, image_input, norm
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


@pytest.fixture(scope="session")
def small() -> onnx.ModelProto:
    """A face network of three layers, built as the real one is: milliseconds to load, microseconds to run."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    writer = GraphWriter()
    x = image_input(writer, "chip")
    x = norm(writer, x, "input", np.full(3, 1 / 256, np.float32), np.full(3, -0.5, np.float32))
    for layer, (channels, out) in enumerate([(3, 16), (16, 64)]):
        weight = writer.constant(f"{layer}.weight", some(out, channels, 3, 3))
        x = writer.node(
            "Conv", [x, weight], f"{layer}.conv", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        )
        x = norm(writer, x, f"layer{layer}", 1 + some(out), some(out))
        x = writer.node("Relu", [x], f"{layer}.relu")
    x = writer.node("ReduceMean", [x], "pool", axes=[2, 3], keepdims=0)
    raw = writer.node("MatMul", [x, writer.constant("embed", some(64, 8192))], "raw")
    length = writer.node("ReduceL2", [raw], "length", axes=[1], keepdims=1)
    writer.node("Div", [raw, length], "embedding")
    writer.node(
        "Gemm",
        [x, writer.constant("head", some(7, 64)), writer.constant("bias", some(7))],
        "emotion",
        transB=1,
    )
    return writer.model(
        "small",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", 24, 24, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 8192]),
            helper.make_tensor_value_info("emotion", TensorProto.FLOAT, ["N", 7]),
        ],
    )
