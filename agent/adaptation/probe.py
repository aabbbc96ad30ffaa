"""A graph that tells the moments of what norm layers read: the front of a face network, cut behind the last of them."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from agent.perception.types import Float32, Image
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

_MOMENTS = "moments"
_TINY = 1e-6  # below any variance that an image has; keeps the root of a constant chip finite


def probe_model(model: onnx.ModelProto, layers: Sequence[str]) -> onnx.ModelProto:
    """The front of ``model`` with one output ``moments``, float32 [N, features].

    For each layer in turn it holds the mean of each channel over the picture, then the standard deviations: of what the
    norm layer reads, before its factor and addend.

    Raises:
        EngineError: there is no such norm layer.
    """
    read = _read_by_norms(model.graph)
    missing = [layer for layer in layers if layer not in read]
    if missing or not layers:
        raise EngineError(f"{model.graph.name} has no norm layer {', '.join(missing) or 'to probe'}")
    typed = onnx.shape_inference.infer_shapes(model)
    front = Extractor(typed).extract_model(["chip"], [read[layer] for layer in layers])
    graph = front.graph
    del graph.output[:]
    graph.initializer.append(numpy_helper.from_array(np.float32(_TINY), "probe.tiny"))
    average = partial(helper.make_node, "ReduceMean", axes=[2, 3])  # as operator sets before 18 say it
    parts = []
    for layer in layers:
        x, name = read[layer], f"probe.{layer}"
        graph.node.extend(
            [
                average([x], [f"{name}.around"], keepdims=1),
                helper.make_node("Sub", [x, f"{name}.around"], [f"{name}.away"]),
                helper.make_node("Mul", [f"{name}.away", f"{name}.away"], [f"{name}.square"]),
                average([x], [f"{name}.mean"], keepdims=0),
                average([f"{name}.square"], [f"{name}.var"], keepdims=0),
                helper.make_node("Add", [f"{name}.var", "probe.tiny"], [f"{name}.some"]),
                helper.make_node("Sqrt", [f"{name}.some"], [f"{name}.deviation"]),
            ]
        )
        parts += [f"{name}.mean", f"{name}.deviation"]
    graph.node.append(helper.make_node("Concat", parts, [_MOMENTS], axis=1))
    graph.output.append(helper.make_tensor_value_info(_MOMENTS, TensorProto.FLOAT, ["N", "features"]))
    return front


def front_layers(model: onnx.ModelProto, count: int) -> tuple[str, ...]:
    """The norm layers that are the first to read a map of their size: those of the first ``count`` sizes.

    What light and camera do to a picture shows at the front of a network, and at each scale differently. A network
    without maps behind the picture, such as a transformer, has the first layer alone.
    """
    typed = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in typed.value_info
    }
    planes = {
        tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4
    }  # [1, channels, 1, 1]
    first: dict[int, str] = {}
    for layer, source in _read_by_norms(model.graph).items():
        height, width = shapes.get(source, [0] * 4)[2:] if f"norm.{layer}.scale" in planes else (0, 0)
        if height * width > 1:
            first.setdefault(height, layer)
    return tuple(first.values())[:count]


def _read_by_norms(graph: onnx.GraphProto) -> dict[str, str]:
    """What each norm layer reads, before its factor and addend, in the order of the graph."""
    read = {}
    for node in graph.node:
        factor = next((name for name in node.input if name.startswith("norm.")), None)
        if node.op_type == "Mul" and factor is not None:
            layer = factor.removeprefix("norm.").removesuffix(".scale")
            read[layer] = next(name for name in node.input if name != factor)
    return read


class Probe:
    """The moments of one chip after another; no torch, and only the front of the network is run."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[str], threads: int = 1) -> None:
        """Raises EngineError: there is no such norm layer."""
        self._engine = OnnxRuntimeEngine(probe_model(model, layers), SessionSettings(threads, dims={"N": 1}))

    def moments(self, chip: Image) -> Float32:
        """Float32 [features] of a chip, uint8 BGR [side, side, 3]; a copy."""
        return np.array(self._engine.run({"chip": chip[None]})[_MOMENTS][0], np.float32)
