"""Join the emotion branch to the face network, so that one run gives embedding and emotion."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.sources.dlib_resnet import EMBEDDING_DIM, FEATURES, SIDE
from engines.sources.onnx_graph import GraphWriter

EMOTION = "emotion"


def join(trunk: onnx.ModelProto, branch: onnx.ModelProto) -> onnx.ModelProto:
    """The face network of a pack: ``trunk`` from ``dlib_resnet.face_network`` with ``branch`` on its feature map.

    Input ``chip``: uint8 BGR [N, 150, 150, 3]. Outputs: ``embedding`` float32 [N, 128] and ``emotion`` float32 [N, K]
    (logits). Weights that the branch stores in float16 or int8 are widened here, so that no node for it runs later.

    Raises:
        ValueError: the branch does not read ``features`` or does not give ``emotion`` for each face.
    """
    if [value.name for value in branch.graph.input] != [FEATURES]:
        raise ValueError(f"the emotion branch must read {FEATURES} and nothing else")
    outputs = {value.name: value.type.tensor_type.shape.dim for value in branch.graph.output}
    if set(outputs) != {EMOTION} or len(outputs[EMOTION]) != 2:
        raise ValueError(f"the emotion branch must give {EMOTION} [N, labels] and nothing else")
    writer = GraphWriter()
    for graph in (trunk.graph, branch.graph):
        _append(writer, graph)
    return writer.model(
        "face",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", EMBEDDING_DIM]),
            helper.make_tensor_value_info(EMOTION, TensorProto.FLOAT, ["N", outputs[EMOTION][1].dim_value]),
        ],
    )


def _append(writer: GraphWriter, graph: onnx.GraphProto) -> None:
    """Append all of a graph, its weights as float32."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    widened = {
        node.output[0]: _widened([stored[name] for name in node.input])
        for node in graph.node
        if node.op_type in {"Cast", "DequantizeLinear"} and all(name in stored for name in node.input)
    }
    narrow = {name for node in graph.node if node.output[0] in widened for name in node.input}
    for name, value in stored.items():
        if name not in narrow:
            writer.constant(name, value)
    for node in graph.node:
        if node.output[0] in widened:
            writer.constant(node.output[0], widened[node.output[0]])
        else:
            writer.copy(node, {})


def _widened(stored: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
    """Float32 of float16, or of int8 and a step for each output channel."""
    value, *steps = (each.astype(np.float32) for each in stored)
    return value * steps[0].reshape(-1, *[1] * (value.ndim - 1)) if steps else value
