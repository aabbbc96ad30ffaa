"""The ONNX Runtime backend: a session whose inputs and outputs are bound to fixed memory once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from engines.buffers import allocate, copy_feeds
from engines.engine import Array, EngineError, NormParameters, TensorSpec
from engines.model import read_file

if TYPE_CHECKING:
    # The package takes longer to import than a network to load, so it is left to who changes norm parameters.
    import onnx

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What may run a session's operators: our names, and ONNX Runtime's."""

_REMEDY = (
    "if a driver or library is missing here, ONNX Runtime's own messages above name it: install it, or change "
    "engine.providers"
)
_DTYPES: dict[str, np.dtype[Any]] = {"tensor(uint8)": np.dtype("uint8"), "tensor(float)": np.dtype("float32")}


@dataclass(frozen=True)
class SessionSettings:
    """What a session runs on, and how.

    Attributes:
        threads: threads that share one run; 0 lets ONNX Runtime choose.
        spinning: keep idle threads busy between operators. Faster on a quiet machine, much slower on a busy one.
        dims: sizes for the symbolic dimensions of the inputs (``{"N": 1, "H": 256}``).
        providers: names in ``PROVIDERS``, the preferred one first. Each must start; an operator that none of them knows
            is an error, so nothing runs on the processor unless ``cpu`` is among them.
    """

    threads: int = 0
    spinning: bool = False
    dims: Mapping[str, int] = field(default_factory=dict)
    providers: tuple[str, ...] = ("cpu",)


class OnnxRuntimeEngine:
    """An ``Engine`` on ONNX Runtime. Inputs and outputs lie in main memory, whichever provider runs it."""

    def __init__(
        self,
        model: "onnx.ModelProto | bytes",
        settings: SessionSettings,
        weights: Mapping[str, ort.OrtValue] | None = None,
        path: Path | None = None,
    ) -> None:
        """Load ``model``.

        Args:
            model: complete, or what ``set_aside`` has left of it; or the content of a file.
            settings: how it runs.
            weights: those that were set aside.
            path: of the file, for complaints.

        Raises:
            EngineError: ONNX Runtime refuses the model, a dimension is left without a size, or a provider is missing or
                does not start.
        """
        self._model = model
        self._settings = settings
        self._weights = weights
        self._session = _session(model, settings, weights or {}, path)
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = self._output_specs()
        self._binding = self._session.io_binding()
        self._buffers, self._results = allocate(self.inputs), allocate(self.outputs)
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
        return cls(read_file(path), settings, path=path)

    def buffer(self, name: str) -> Array:
        """The memory bound to an input."""
        return self._buffers[name]

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """Run once; see ``Engine.run``."""
        copy_feeds(feeds or {}, self._buffers)
        self._session.run_with_iobinding(self._binding)
        return self._results

    def with_norms(self, params: NormParameters) -> "OnnxRuntimeEngine":
        """A new engine with other norm parameters; see ``Engine.with_norms``.

        Another thread may run this engine meanwhile, and hardly notices. That is why weights are set aside: to write
        and parse a model of 27 MB keeps the interpreter to itself for 60 ms, without its weights for 2 ms.
        """
        import onnx  # noqa: PLC0415

        from engines.norms import write_norms  # noqa: PLC0415
        from engines.weights import set_aside  # noqa: PLC0415

        if isinstance(self._model, bytes):
            self._model = onnx.load_model_from_string(self._model)
        if self._weights is None:
            self._model, weights = set_aside(self._model)
            self._weights = {name: ort.OrtValue.ortvalue_from_numpy(each) for name, each in weights.items()}
        return OnnxRuntimeEngine(write_norms(self._model, params), self._settings, self._weights)

    def close(self) -> None:
        """Drop the session and its memory."""
        del self._binding, self._session

    def _output_specs(self) -> tuple[TensorSpec, ...]:
        """Shapes of the outputs; where the graph leaves one open, one run on zeros tells."""
        declared = self._session.get_outputs()
        if all(isinstance(side, int) for output in declared for side in output.shape):
            return _specs(declared)
        values = self._session.run(None, allocate(self.inputs))
        return tuple(TensorSpec(o.name, v.shape, v.dtype) for o, v in zip(declared, values, strict=True))


def _session(
    model: "onnx.ModelProto | bytes",
    settings: SessionSettings,
    weights: Mapping[str, ort.OrtValue],
    path: Path | None,
) -> ort.InferenceSession:
    wanted = [PROVIDERS[name] for name in settings.providers]
    _check_offered(wanted)
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # warnings about unused initializers say nothing to a user
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    if "cpu" not in settings.providers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, size in settings.dims.items():
        options.add_free_dimension_override_by_name(name, size)
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    called, content = (
        (path, model) if isinstance(model, bytes) else (model.graph.name, model.SerializeToString())
    )
    try:
        session = ort.InferenceSession(content, options, providers=wanted, enable_fallback=False)
    except Exception as error:  # ONNX Runtime raises a family of its own, none of them exported
        hint = "" if settings.providers == ("cpu",) else f"; {_REMEDY}"
        raise EngineError(
            f"ONNX Runtime ({', '.join(settings.providers)}) refuses the model {called}: "
            f"{str(error).strip().rstrip('.')}{hint}"
        ) from error
    # A provider whose libraries or driver are missing is dropped with no more than a line in the log.
    dropped = [name for name in settings.providers if PROVIDERS[name] not in session.get_providers()]
    if dropped:
        raise EngineError(f"ONNX Runtime's provider {dropped[0]} does not start; {_REMEDY}")
    return session


def _check_offered(wanted: Sequence[str]) -> None:
    """Refuse a provider that this build of ONNX Runtime does not have.

    Raises:
        EngineError: names what it has.
    """
    offered = ort.get_available_providers()
    for ours, theirs in PROVIDERS.items():
        if theirs in wanted and theirs not in offered:
            there = ", ".join(name for name, full in PROVIDERS.items() if full in offered)
            raise EngineError(
                f"this ONNX Runtime has no provider {ours}, only {there}; install onnxruntime-gpu in place of "
                "onnxruntime, or change engine.providers"
            )


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
