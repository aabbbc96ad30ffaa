"""CenterFace as published, made to read uint8 BGR images of any size in multiples of 32.

The published file has a fixed 32×32 input and was written for RGB in 0–255 without mean. Here the shape is opened, the
colour order is turned in the first convolution's weights, cast and transposition go into the graph, and the outputs get
names. The arithmetic of the network itself is not touched.
"""

import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.sources.onnx_graph import GraphWriter, image_input

STRIDE = 4
_INPUT = "input.1"
_OUTPUTS = {"537": ("heatmap", 1), "538": ("scale", 2), "539": ("offset", 2), "540": ("landmarks", 10)}


def detector(published: onnx.ModelProto) -> onnx.ModelProto:
    """The detector: ``image`` uint8 BGR [1, H, W, 3] in; ``heatmap``, ``scale``, ``offset`` and ``landmarks`` out.

    The outputs are float32 [1, C, H/4, W/4] with 1, 2, 2 and 10 channels.

    Raises:
        ValueError: the model is not the published CenterFace.
    """
    graph = published.graph
    weights = {t.name: t for t in graph.initializer}
    if not {o.name for o in graph.output} == set(_OUTPUTS) or _INPUT not in {i.name for i in graph.input}:
        raise ValueError("not the published CenterFace: its input or outputs have other names")
    writer = GraphWriter()
    pixels = image_input(writer, "image")
    first = next(node for node in graph.node if _INPUT in node.input)
    used = {name for node in graph.node for name in node.input}
    for name, tensor in weights.items():
        if name in used:  # the file carries counters that no node reads
            value = numpy_helper.to_array(tensor)
            writer.constant(name, value[:, ::-1] if name == first.input[1] else value)
    rename = {_INPUT: pixels} | {old: new for old, (new, _) in _OUTPUTS.items()}
    for node in graph.node:
        writer.copy(node, rename)
    return writer.model(
        "centerface",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "H4", "W4"])
            for name, channels in _OUTPUTS.values()
        ],
    )
