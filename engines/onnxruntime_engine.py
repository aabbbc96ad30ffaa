"""The ONNX Runtime backend: a session whose inputs and outputs are bound to fixed memory once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from engines.engine import Array, EngineError, NormParameters, TensorSpec
from engines.norms import write_norms

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(uint8)": np.dtype("uint8"), "tensor(float)": np.dtype("float32")}


@dataclass(frozen=True)
class SessionSettings:
    """How a session uses the processor.

    Attributes:
        threads: threads that share one run; 0 lets ONNX Runtime choose.
        spinning: keep idle threads busy between operators. Faster on a quiet machine, much slower on a busy one.
        dims: sizes for the symbolic dimensions of the inputs (``{"N": 1, "H": 256}``).
    """

    threads: int = 0
    spinning: bool = False
    dims: Mapping[str, int] = field(default_factory=dict)


class OnnxRuntimeEngine:
    """An ``Engine`` on ONNX Runtime's CPU provider."""

    def __init__(self, model: onnx.ModelProto, settings: SessionSettings) -> None:
        """Load ``model``.

        Raises:
            EngineError: ONNX Runtime refuses the model, or a dimension is left without a size.
        """
        self._model = model
        self._settings = settings
        self._session = _session(model, settings)
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = self._output_specs()
        self._binding = self._session.io_binding()
        self._buffers = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
        self._results: dict[str, Array] = {
            spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.outputs
        }
        for name, array in self._buffers.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in self._results.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    @classmethod
    def load(cls, path: Path, settings: SessionSettings) -> "OnnxRuntimeEngine":
        """Load an ONNX file.

        Raises:
            EngineError: the file is missing, is no ONNX model, or does not load.
        """
        try:
            model = onnx.load(str(path))
        except FileNotFoundError:
            raise EngineError(
                f"{path}: no such model; `cabinsense models fetch` makes the default pack"
            ) from None
        except Exception as error:  # protobuf raises its own kinds, by version
            raise EngineError(f"{path}: not an ONNX model ({error})") from error
        return cls(model, settings)

    def buffer(self, name: str) -> Array:
        """The memory bound to an input."""
        return self._buffers[name]

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """Run once; see ``Engine.run``."""
        for name, value in (feeds or {}).items():
            buffer = self._buffers.get(name)
            if buffer is None:
                raise ValueError(f"no input {name}; there are {', '.join(self._buffers)}")
            if value.shape != buffer.shape or value.dtype != buffer.dtype:
                raise ValueError(
                    f"{name} wants {buffer.dtype} {buffer.shape}, not {value.dtype} {value.shape}"
                )
            np.copyto(buffer, value)
        self._session.run_with_iobinding(self._binding)
        return self._results

    def with_norms(self, params: NormParameters) -> "OnnxRuntimeEngine":
        """A new engine with other norm parameters; see ``Engine.with_norms``."""
        return OnnxRuntimeEngine(write_norms(self._model, params), self._settings)

    def close(self) -> None:
        """Drop the session and its memory."""
        del self._binding, self._session

    def _output_specs(self) -> tuple[TensorSpec, ...]:
        """Shapes of the outputs; where the graph leaves one open, one run on zeros tells."""
        declared = self._session.get_outputs()
        if all(isinstance(side, int) for output in declared for side in output.shape):
            return _specs(declared)
        zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
        values = self._session.run(None, zeros)
        return tuple(TensorSpec(o.name, v.shape, v.dtype) for o, v in zip(declared, values, strict=True))


def _session(model: onnx.ModelProto, settings: SessionSettings) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # warnings about unused initializers say nothing to a user
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    for name, size in settings.dims.items():
        options.add_free_dimension_override_by_name(name, size)
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a family of its own, none of them exported
        raise EngineError(f"ONNX Runtime refuses the model {model.graph.name}: {error}") from error


def _specs(nodes: list[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    specs = []
    for node in nodes:
        if node.type not in _DTYPES:
            raise EngineError(
                f"tensor {node.name} has type {node.type}; only uint8 and float32 are supported"
            )
        if not all(isinstance(side, int) for side in node.shape):
            raise EngineError(f"tensor {node.name} has open dimensions {node.shape}; give each a size")
        specs.append(TensorSpec(node.name, tuple(node.shape), _DTYPES[node.type]))
    return tuple(specs)
