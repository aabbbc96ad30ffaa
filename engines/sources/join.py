"""Join the emotion branch to the face network, so that one run gives embedding and emotion."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.sources.dlib_resnet import EMBEDDING_DIM, FEATURES, SIDE
from engines.sources.onnx_graph import GraphWriter

EMOTION = "emotion"


def join(trunk: onnx.ModelProto, branch: onnx.ModelProto) -> onnx.ModelProto:
    """The face network of a pack: ``trunk`` from ``dlib_resnet.face_network`` with ``branch`` on its feature map.

    Input ``chip``: uint8 BGR [N, 150, 150, 3]. Outputs: ``embedding`` float32 [N, 128] and ``emotion`` float32 [N, K]
    (logits). Weights that the branch stores as float16 behind a Cast are widened here, so that no Cast runs later.

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
    """Append all of a graph, float16 weights widened."""
    halves = {}
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT16:
            halves[tensor.name] = value.astype(np.float32)
        else:
            writer.constant(tensor.name, value)
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in halves:
            writer.constant(node.output[0], halves[node.input[0]])
        else:
            writer.copy(node, {})
