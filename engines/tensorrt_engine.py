"""The TensorRT backend: a verified plan, pinned buffers, one stream and, where it can be recorded, one CUDA graph.

None of this has run on a device yet. The calls are type-checked against the published stubs of TensorRT, and were read
against the source of pycuda; what needs no device (plans, keys, layout of buffers, the exchange of the two engines) is
tested for itself. ``cabinsense doctor --engines`` tries it out on the target.

pycuda frees memory and streams only in a thread that has their context, so everything here is made, used and freed
between a push and a pop of the primary context, which TensorRT uses as well.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from engines.buffers import copy_feeds
from engines.build import (
    Model,
    Progress,
    Target,
    choose_target,
    collect_messages,
    ensure_plan,
    onnx_file,
    plan_file,
    wanted_key,
)
from engines.cuda_graph import CudaGraph
from engines.engine import Array, EngineError, NormParameters, TensorSpec
from engines.model import read_model
from engines.norms import read_norms, write_norms
from engines.plans import Library, Plan, PlanError, check_key, read_plan, remedy
from engines.precision import Precision
from engines.probe import load_library, probe_cuda
from engines.spare import Spare

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger(__name__)

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: work on the default stream does not hold this one up
_DTYPES = {np.dtype("uint8"), np.dtype("float32")}


@dataclass(frozen=True)
class Tensor:
    """An input or output as a plan declares it; an open dimension is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool


def layout(tensors: Iterable[Tensor], name: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a plan; ``name`` is what errors call it.

    Raises:
        EngineError: a dimension is open, or a type is not one that the agent reads.
    """
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for tensor in tensors:
        if any(side < 0 for side in tensor.shape):
            raise EngineError(
                f"{name}: tensor {tensor.name} has open dimensions {tensor.shape}; build the plan anew"
            )
        if tensor.dtype not in _DTYPES:
            raise EngineError(
                f"{name}: tensor {tensor.name} is {tensor.dtype}; only uint8 and float32 are supported"
            )
        spec = TensorSpec(tensor.name, tensor.shape, tensor.dtype)
        (inputs if tensor.is_input else outputs).append(spec)
    return tuple(inputs), tuple(outputs)


class Norms:
    """The norm parameters of a model without the rest of it; immutable."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Keep the norm parameters of ``model``."""
        self._bare = onnx.ModelProto()
        self._bare.graph.initializer.extend(
            tensor for tensor in model.graph.initializer if tensor.name in read_norms(model)
        )

    def changed(self, params: NormParameters) -> "Norms":
        """These, but for ``params``.

        Raises:
            ValueError: a parameter does not exist, has another size, or is not finite.
        """
        return Norms(write_norms(self._bare, params))

    def values(self) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """All of them, each float32 [channels]."""
        return read_norms(self._bare)


class TensorRTEngine:
    """An ``Engine`` on TensorRT or TensorRT for RTX."""

    def __init__(self, instances: "Spare[_Instance]", instance: "_Instance", norms: Norms) -> None:
        """Use ``load``: it checks the plan first, and that there is a GPU."""
        self._instances = instances
        self._instance: _Instance | None = instance
        self._norms = norms
        self.inputs = instance.inputs
        self.outputs = instance.outputs

    @classmethod
    def load(
        cls, path: Path, dims: Mapping[str, int], precision: Precision, library: Library = "tensorrt"
    ) -> "TensorRTEngine":
        """Load the plan of a pack's ONNX file.

        Args:
            path: the ONNX file.
            dims: sizes for the open dimensions of its inputs.
            precision: which plan.
            library: whose plan.

        Raises:
            EngineError: there is no GPU or no library, or they do not work together.
            PlanError: there is no such plan, or it is damaged, made for something else or refused.
        """
        probe = probe_cuda()  # in a process of its own: TensorRT can end the one that it finds no driver in
        if probe.device is None:
            raise EngineError(f'{library}: {probe.problem}; set engine.backend = "onnxruntime"')
        bindings = load_library(library)
        target = choose_target(library, None, probe.device)
        wanted = wanted_key(Model(path, dims), target, precision, str(bindings.__version__))
        file = plan_file(path, library, precision)
        plan = read_plan(file)
        check_key(plan.key, wanted, str(file))
        device = _Device()
        instances = Spare(lambda: _Instance(bindings, device, plan, str(file)), _Instance.close)
        norms = Norms(read_model(onnx_file(path, precision)))
        return cls(instances, instances.take(), norms)

    def buffer(self, name: str) -> Array:
        """The pinned memory of an input; it is copied to the device in each run."""
        return self._live().buffers[name]

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """Run once; see ``Engine.run``."""
        instance = self._live()
        copy_feeds(feeds or {}, instance.buffers)
        instance.run()
        return instance.results

    def with_norms(self, params: NormParameters) -> "TensorRTEngine":
        """The model's spare engine, refitted with other norm parameters and tried out; see ``Engine.with_norms``.

        This engine goes on running meanwhile. Close it when it is replaced: it is the spare one then.

        Raises:
            EngineError: the plan cannot be refitted, or the refitted engine gives no numbers.
        """
        self._live()
        norms = self._norms.changed(params)
        instance = self._instances.take()
        try:
            instance.refit(norms.values())
            instance.check()
        except BaseException:
            self._instances.drop(instance)  # a refit that fails half-way leaves some parameters changed
            raise
        return TensorRTEngine(self._instances, instance, norms)

    def close(self) -> None:
        """Let go of the engine; memory is freed when the last one of the model is closed."""
        if self._instance is not None:
            instance, self._instance = self._instance, None
            self._instances.give_back(instance)

    def _live(self) -> "_Instance":
        if self._instance is None:
            raise EngineError("this engine is closed")
        return self._instance


def ensure_running(
    model: Model, target: Target, precision: Precision, progress: Progress, *, force: bool = False
) -> tuple[Plan, bool]:
    """The plan of a model, as ``ensure_plan`` gives it, and tried out where its GPU is here.

    A plan that TensorRT refuses is built anew, once.

    Raises:
        EngineError: as ``ensure_plan``, or the plan does not run.
    """
    plan, built = ensure_plan(model, target, precision, progress, force=force)
    if target.device is None:
        return plan, built
    try:
        TensorRTEngine.load(model.path, model.dims, precision, target.library).close()
    except PlanError as error:
        if remedy(error.trouble, can_build=True, rebuilt=built) == "report":
            raise
        log.warning("%s", error)
        plan, built = ensure_plan(model, target, precision, progress, force=True)
        TensorRTEngine.load(model.path, model.dims, precision, target.library).close()
    return plan, built


class _Device:
    """The first GPU, with its primary context."""

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda  # noqa: PLC0415
        except ImportError as error:
            raise EngineError(
                f"pycuda cannot be used ({error}); `pip install 'cabinsense[tensorrt]'` with nvcc on the PATH"
            ) from error
        cuda.init()
        self.cuda = cuda
        self._context = cuda.Device(0).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[Any]:
        """Make the context current in this thread; gives pycuda's driver module."""
        self._context.push()
        try:
            yield self.cuda
        finally:
            self.cuda.Context.pop()


class _Instance:
    """One deserialised plan with its memory. Used by one thread at a time."""

    def __init__(self, library: Any, device: _Device, plan: Plan, name: str) -> None:
        """Give ``plan`` to TensorRT; ``name`` is what errors call it."""
        self._library = library
        self._device = device
        self._name = name
        self._refittable = plan.key.refittable
        self._graph: CudaGraph | None = None
        self.buffers: dict[str, Array] = {}
        self.results: dict[str, Array] = {}
        self._memory: dict[str, Any] = {}
        if TYPE_CHECKING:
            trt = tensorrt
        else:
            trt = library
        with device.current() as cuda:
            self._messages = collect_messages(trt)
            self._runtime = trt.Runtime(self._messages)
            engine = self._runtime.deserialize_cuda_engine(plan.payload)
            if engine is None:
                raise PlanError(
                    "refused",
                    f"{name}: TensorRT refuses it: {self._messages.told()}; `cabinsense models build --force` makes "
                    "it anew",
                )
            self._engine = engine
            self.inputs, self.outputs = layout(_tensors(trt, engine), name)
            self._context = engine.create_execution_context()
            if self._context is None:
                raise EngineError(f"{name}: no room for its working memory: {self._messages.told()}")
            self._stream = cuda.Stream(_NON_BLOCKING)
            try:
                self._bind(cuda)
                self._record()
            except BaseException:
                self._free()  # here, where pycuda can
                raise

    def run(self) -> None:
        """Copy the inputs in, run, copy the outputs out, and wait for the end.

        Raises:
            EngineError: the device fails.
        """
        with self._device.current():
            if self._graph is not None:
                self._graph.launch()
            else:
                self._send()
            self._stream.synchronize()

    def refit(self, norms: Mapping[str, Array]) -> None:
        """Exchange the norm parameters, all of them: a spare engine may have any.

        Raises:
            EngineError: the plan cannot be refitted, or TensorRT refuses; the engine is then in no known state.
        """
        if not self._refittable:
            raise EngineError(
                f"{self._name}: its norm parameters are fixed, because it was built without a GPU; build it on this "
                "machine with `cabinsense models build --force`"
            )
        if TYPE_CHECKING:
            trt = tensorrt
        else:
            trt = self._library
        with self._device.current():
            self._stream.synchronize()
            refitter = trt.Refitter(self._engine, self._messages)
            kept = {name: np.ascontiguousarray(value, np.float32) for name, value in norms.items()}
            refused = [
                name
                for name, value in kept.items()
                if not refitter.set_named_weights(name, trt.Weights(value))
            ]
            if refused or not refitter.refit_cuda_engine():
                told = ", ".join(refused or refitter.get_missing_weights()) or self._messages.told()
                raise EngineError(f"{self._name}: cannot be refitted: {told}")
            self._record()

    def check(self) -> None:
        """Run on noise.

        Raises:
            EngineError: an output is not finite.
        """
        noise = np.random.default_rng(0)
        for spec in self.inputs:
            self.buffers[spec.name][...] = noise.integers(0, 256, spec.shape).astype(spec.dtype)
        self.run()
        for name, value in self.results.items():
            if not np.isfinite(value).all():
                raise EngineError(f"{self._name}: with the new norm parameters {name} is not finite")

    def close(self) -> None:
        """Free everything, the pinned memory included: arrays got from this engine must not be used any more."""
        with self._device.current():
            self._stream.synchronize()
            if self._graph is not None:
                self._graph.close()
            self._free()
            del self._context, self._engine, self._stream  # a context goes before the engine it belongs to

    def _bind(self, cuda: Any) -> None:
        """Allocate memory for every input and output, once."""
        for specs, arrays in ((self.inputs, self.buffers), (self.outputs, self.results)):
            for spec in specs:
                arrays[spec.name] = cuda.pagelocked_zeros(spec.shape, spec.dtype)
                self._memory[spec.name] = cuda.mem_alloc(arrays[spec.name].nbytes)
                if not self._context.set_tensor_address(spec.name, int(self._memory[spec.name])):
                    raise EngineError(f"{self._name}: TensorRT refuses the memory of {spec.name}")

    def _free(self) -> None:
        """Release the memory of inputs and outputs."""
        self._memory.clear()
        self.buffers.clear()
        self.results.clear()

    def _record(self) -> None:
        """Record the run as a CUDA graph; where that fails, runs go the slower way."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self._send()  # TensorRT sets itself up in the first run, which must not be recorded
        self._stream.synchronize()
        try:
            self._graph = CudaGraph(self._stream.handle, self._send)
        except (EngineError, OSError) as error:
            log.warning("%s: runs without a CUDA graph: %s", self._name, error)

    def _send(self) -> None:
        """Send one run to the stream."""
        cuda, stream = self._device.cuda, self._stream
        for name, buffer in self.buffers.items():
            cuda.memcpy_htod_async(self._memory[name], buffer, stream)
        if not self._context.execute_async_v3(stream.handle):
            raise EngineError(f"{self._name}: TensorRT fails: {self._messages.told()}")
        for name, result in self.results.items():
            cuda.memcpy_dtoh_async(result, self._memory[name], stream)


def _tensors(library: Any, engine: "tensorrt.ICudaEngine") -> Iterator[Tensor]:
    """What a plan declares."""
    if TYPE_CHECKING:
        trt = tensorrt
    else:
        trt = library
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = engine.get_tensor_shape(name)
        yield Tensor(
            name,
            tuple(shape[axis] for axis in range(len(shape))),
            _numpy_type(trt, engine.get_tensor_dtype(name)),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )


def _numpy_type(library: Any, kind: "tensorrt.DataType") -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(library.nptype(kind))
    except TypeError:  # numpy has no such type
        return np.dtype(np.void)
    return found
