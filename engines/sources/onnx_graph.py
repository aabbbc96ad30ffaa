"""A small writer of ONNX graphs: each call appends one node and returns the name of its output."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # old enough for TensorRT 10.3, new enough for everything the project's networks use
IR_VERSION = 8


class GraphWriter:
    """Collects nodes and initializers, then makes a checked model of them."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add an initializer; adding the same name twice is a programming error."""
        if name in self._initializers:
            raise ValueError(f"initializer {name} exists already")
        self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node with one output."""
        self._nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def copy(self, node: onnx.NodeProto, rename: Mapping[str, str]) -> None:
        """Append a node of another graph with some of its tensors renamed."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [rename.get(name, name) for name in node.input]
        copied.output[:] = [rename.get(name, name) for name in node.output]
        self._nodes.append(copied)

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The finished model, checked with shape inference.

        Raises:
            onnx.checker.ValidationError: the nodes do not form a valid graph.
        """
        graph = helper.make_graph(
            self._nodes, name, list(inputs), list(outputs), initializer=list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cabinsense",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def image_input(writer: GraphWriter, name: str) -> str:
    """Turn the uint8 BGR image [N, height, width, 3] ``name`` into float32 [N, 3, height, width]."""
    planes = writer.node("Transpose", [name], f"{name}.planes", perm=[0, 3, 1, 2])
    return writer.node("Cast", [planes], f"{name}.float", to=TensorProto.FLOAT)


def norm(
    writer: GraphWriter, x: str, layer: str, scale: NDArray[np.float32], shift: NDArray[np.float32]
) -> str:
    """A norm layer: ``x · scale + shift`` for each channel, with parameters named for ``engines.norms``.

    It is written as two plain nodes because TensorRT's parser would fold a BatchNormalization into the
    convolution under a name of its own, which could then not be refitted. ONNX Runtime fuses the two nodes when
    it loads.
    """
    scaled = writer.node(
        "Mul", [x, writer.constant(f"norm.{layer}.scale", scale.reshape(1, -1, 1, 1))], f"{layer}.scaled"
    )
    return writer.node(
        "Add", [scaled, writer.constant(f"norm.{layer}.shift", shift.reshape(1, -1, 1, 1))], f"{layer}.norm"
    )
