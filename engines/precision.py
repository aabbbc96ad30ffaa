"""Bring an ONNX graph into the form that TensorRT's strongly typed networks want.

A strongly typed network computes every operator in the type of its inputs; nothing is chosen by builder flags. So the
precision of a plan is written into the graph before it is parsed.
"""

from collections.abc import Iterable
from typing import Literal

import onnx
from onnx import TensorProto, helper, numpy_helper

Precision = Literal["fp32", "fp16", "int8"]

_LARGEST_HALF = 65504
_MULTIPLIERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


def for_tensorrt(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """A copy of ``model`` that TensorRT builds in ``precision``.

    For ``int8`` the model already holds the QuantizeLinear and DequantizeLinear nodes; what they leave out runs in
    float16. Norm parameters, normalisation, sums and the length of the embedding stay in float32 in every precision.

    Raises:
        ValueError: a weight is too large for float16.
    """
    changed = cast_images_first(model)
    return changed if precision == "fp32" else halve(changed)


def cast_images_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """Where a uint8 input is transposed and then cast, cast first: TensorRT lets uint8 meet nothing but a cast."""
    changed = _copy(model)
    graph = changed.graph
    images = {i.name for i in graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8}
    readers = _readers(graph.node)
    for transpose in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in images]:
        casts = readers[transpose.output[0]]
        if [node.op_type for node in casts] != ["Cast"]:
            continue  # TensorRT's parser will refuse the graph and say why
        cast = casts[0]
        permutation = next(a for a in transpose.attribute if a.name == "perm")
        target = next(a for a in cast.attribute if a.name == "to")
        image, between, result = transpose.input[0], transpose.output[0], cast.output[0]
        transpose.CopyFrom(helper.make_node("Cast", [image], [between], name=f"{image}.cast", to=target.i))
        cast.CopyFrom(
            helper.make_node(
                "Transpose", [between], [result], name=f"{image}.transpose", perm=list(permutation.ints)
            )
        )
    return changed


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let convolutions and matrix products run in float16, with a cast before and behind each; the rest stays float32.

    Products whose inputs are dequantised are left alone: they run in int8.

    Raises:
        ValueError: a weight is too large for float16.
    """
    changed = _copy(model)
    graph = changed.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    halves: dict[str, str] = {}

    def half(name: str) -> str:
        if not name or name in halves:
            return halves.get(name, "")
        halves[name] = f"{name}.half"
        tensor = weights.get(name)
        if tensor is not None:
            value = numpy_helper.to_array(tensor)
            if abs(value).max(initial=0) > _LARGEST_HALF:
                raise ValueError(f"the weights {name} do not fit into float16; build fp32")
            graph.initializer.append(numpy_helper.from_array(value.astype("float16"), halves[name]))
        else:
            nodes.append(_cast(name, halves[name], TensorProto.FLOAT16))
        return halves[name]

    for node in list(graph.node):
        if node.op_type not in _MULTIPLIERS or dequantised & set(node.input):
            nodes.append(node)
            continue
        output = node.output[0]
        node.input[:] = [half(name) for name in node.input]
        node.output[:] = [f"{output}.product"]
        nodes += [node, _cast(f"{output}.product", output, TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return changed


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=to)


def _readers(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    return changed
