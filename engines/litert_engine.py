"""The LiteRT (TensorFlow Lite) backend: a pack's ONNX is converted in memory when it is loaded."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter

from engines.buffers import allocate, copy_feeds
from engines.engine import Array, EngineError, NormParameters, TensorSpec
from engines.litert_convert import to_tflite
from engines.model import read_model, with_dims
from engines.norms import write_norms


class LiteRTEngine:
    """An ``Engine`` on LiteRT's CPU kernels (XNNPACK).

    The interpreter owns its tensors and refuses to run while anybody holds a view of one, so that here inputs and
    outputs are copied: some tens of microseconds.
    """

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        """Convert and load ``model``.

        Args:
            model: the network, with the shapes of all tensors, as from ``with_dims``.
            threads: threads that share one run; 0 is one.

        Raises:
            EngineError: the model cannot be converted.
        """
        self._model = model
        self._threads = threads
        try:
            self._interpreter = Interpreter(model_content=to_tflite(model), num_threads=max(1, threads))
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"LiteRT refuses the model {model.graph.name}: {error}") from error
        given, made = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = _specs(model.graph.input, given)
        self.outputs = _specs(model.graph.output, made)
        self._buffers, self._results = allocate(self.inputs), allocate(self.outputs)
        self._indices = {
            value.name: detail["index"]
            for values, details in ((model.graph.input, given), (model.graph.output, made))
            for value, detail in zip(values, details, strict=True)
        }

    @classmethod
    def load(cls, path: Path, threads: int, dims: Mapping[str, int]) -> "LiteRTEngine":
        """Load an ONNX file; ``dims`` gives sizes to the symbolic dimensions of its inputs (``{"N": 1}``).

        Raises:
            EngineError: the file is missing or no ONNX model, a dimension has no size, or it cannot be converted.
        """
        return cls(with_dims(read_model(path), dims), threads)

    def buffer(self, name: str) -> Array:
        """The memory from which an input is copied."""
        return self._buffers[name]

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """Run once; see ``Engine.run``."""
        copy_feeds(feeds or {}, self._buffers)
        for name, array in self._buffers.items():
            np.copyto(self._interpreter.tensor(self._indices[name])(), array)
        self._interpreter.invoke()
        for name, array in self._results.items():
            np.copyto(array, self._interpreter.tensor(self._indices[name])())
        return self._results

    def with_norms(self, params: NormParameters) -> "LiteRTEngine":
        """A new engine with other norm parameters, converted anew; see ``Engine.with_norms``."""
        return LiteRTEngine(write_norms(self._model, params), self._threads)

    def close(self) -> None:
        """Drop the interpreter and its memory."""
        del self._interpreter


def _specs(
    values: Iterable[onnx.ValueInfoProto], details: Iterable[dict[str, Any]]
) -> tuple[TensorSpec, ...]:
    """Names as in the ONNX graph, whose order the converter keeps; shape and dtype as LiteRT has them."""
    return tuple(
        TensorSpec(value.name, tuple(detail["shape"].tolist()), np.dtype(detail["dtype"]))
        for value, detail in zip(values, details, strict=True)
    )
