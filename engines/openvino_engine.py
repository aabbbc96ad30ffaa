"""The OpenVINO backend: a compiled model whose inputs and outputs are bound to fixed memory once."""

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import onnx

from engines.buffers import allocate, copy_feeds
from engines.engine import Array, EngineError, NormParameters, TensorSpec
from engines.model import read_model, with_dims
from engines.norms import write_norms

# OpenVINO reports every import of itself over the network, unless it finds no telemetry package. An agent that watches
# faces in a car calls nobody. An entry of None makes the import of that package fail, which OpenVINO puts up with.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402 - only now


class OpenVINOEngine:
    """An ``Engine`` on OpenVINO's CPU plugin."""

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        """Compile ``model``.

        Args:
            model: the network, with the shapes of all tensors, as from ``with_dims``.
            threads: threads that share one run; 0 lets OpenVINO choose.

        Raises:
            EngineError: OpenVINO refuses the model.
        """
        self._model = model
        self._threads = threads
        compiled = _compile(model, threads)
        self.inputs = tuple(_spec(value.name, compiled.input(value.name)) for value in model.graph.input)
        self.outputs = tuple(_spec(value.name, compiled.output(value.name)) for value in model.graph.output)
        self._buffers, self._results = allocate(self.inputs), allocate(self.outputs)
        self._request = compiled.create_infer_request()
        for name, array in (*self._buffers.items(), *self._results.items()):
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    @classmethod
    def load(cls, path: Path, threads: int, dims: Mapping[str, int]) -> "OpenVINOEngine":
        """Load an ONNX file; ``dims`` gives sizes to the symbolic dimensions of its inputs (``{"N": 1}``).

        Raises:
            EngineError: the file is missing or no ONNX model, a dimension has no size, or the model does not load.
        """
        return cls(with_dims(read_model(path), dims), threads)

    def buffer(self, name: str) -> Array:
        """The memory bound to an input."""
        return self._buffers[name]

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """Run once; see ``Engine.run``."""
        copy_feeds(feeds or {}, self._buffers)
        self._request.start_async()  # infer() would look through feeds and make a dictionary of results each time
        self._request.wait()
        return self._results

    def with_norms(self, params: NormParameters) -> "OpenVINOEngine":
        """A new engine with other norm parameters; see ``Engine.with_norms``."""
        return OpenVINOEngine(write_norms(self._model, params), self._threads)

    def close(self) -> None:
        """Drop the compiled model and its memory."""
        del self._request


@cache
def _core() -> openvino.Core:
    """One for the process: it holds the plugins."""
    return openvino.Core()


def _compile(model: onnx.ModelProto, threads: int) -> openvino.CompiledModel:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # left alone, it computes in bfloat16 where the processor can
        "ENABLE_CPU_PINNING": False,  # the cores belong to cameras and sockets too
    }
    try:
        network = _core().read_model(model=model.SerializeToString(), weights=b"")
        return _core().compile_model(network, "CPU", settings)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO refuses the model {model.graph.name}: {error}") from error


def _spec(name: str, port: openvino.ConstOutput) -> TensorSpec:
    return TensorSpec(name, tuple(port.shape), port.element_type.to_dtype())
