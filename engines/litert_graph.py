"""A LiteRT graph under construction from an ONNX one: tensors, constants, operators, and the file they become.

ONNX keeps images as [N, C, H, W]; LiteRT's kernels want [N, H, W, C]. Tensors of four dimensions are kept channels
last from operator to operator, and turned only where an input or output of the graph promises otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import helper, numpy_helper

from engines.engine import Array, EngineError

LAST = (0, 2, 3, 1)  # transposes [N, C, H, W] to [N, H, W, C]
FIRST = (0, 3, 1, 2)  # and back
_OP = tfl.BuiltinOperator
_OPTIONS = tfl.BuiltinOptions
_SIGNATURE = "serving_default"  # what LiteRT's own converter calls the list of inputs and outputs by name
_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # the schema's `force_align` of a buffer's data, which the Python packer does not know
_TYPES = {
    np.dtype("float32"): tfl.TensorType.FLOAT32,
    np.dtype("uint8"): tfl.TensorType.UINT8,
    np.dtype("int32"): tfl.TensorType.INT32,
}
# The version that brought bias and activation; of every other operator the first one will do.
_VERSIONS = {_OP.TRANSPOSE_CONV: 4}


class _Buffer(tfl.BufferT):  # type: ignore[misc]  # the generated schema has no types
    """The bytes of a constant."""

    def Pack(self, builder: flatbuffers.Builder) -> Any:  # noqa: N802 - named by the schema's compiler
        builder.Prep(_ALIGNMENT, self.data.size)
        return super().Pack(builder)


@dataclass(frozen=True)
class _Place:
    """Where a tensor of the ONNX graph is held: index of the LiteRT tensor, and whether it is channels last."""

    index: int
    last: bool


class Converter:
    """The flatbuffer under construction, and what is known of the ONNX graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        values = (*graph.input, *graph.value_info, *graph.output)
        self.shapes = {v.name: tuple(side.dim_value for side in v.type.tensor_type.shape.dim) for v in values}
        self._onnx_kinds = {
            v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in values
        }
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}
        self._absorbed: set[str] = set()  # outputs of nodes that have become part of the operator in front
        self._places: dict[str, _Place] = {}
        self._buffers: list[tfl.BufferT] = [tfl.BufferT()]  # the first is empty by definition
        self._tensors: list[tfl.TensorT] = []
        self._kinds: list[np.dtype[Any]] = []  # of each of them
        self._operators: list[tfl.OperatorT] = []
        self._codes: list[int] = []
        for value in graph.input:
            index = self._tensor(value.name, self.shapes[value.name], self._onnx_kinds[value.name])
            self._places[value.name] = _Place(index, False)

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """The nodes in order, without those absorbed meanwhile."""
        return (node for node in self._graph.node if node.output[0] not in self._absorbed)

    # What operators ask about the graph.

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """The only node that reads a tensor; None where there are others, or where it is an output of the graph."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def absorb(self, node: onnx.NodeProto) -> str:
        """Take a node as done; its output."""
        self._absorbed.add(node.output[0])
        return str(node.output[0])

    def constant(self, node: onnx.NodeProto, position: int) -> Array:
        """The constant that a node reads at ``position``."""
        value = self.constants.get(node.input[position])
        if value is None:
            raise refusal(node, f"its input {node.input[position]} is no constant")
        return value

    # What operators append.

    def add(self, value: Array) -> int:
        """Append a constant; its index."""
        data = np.ascontiguousarray(value)
        self._buffers.append(_Buffer(data.reshape(-1).view(np.uint8)))
        return self._tensor(f"constant{len(self._tensors)}", data.shape, data.dtype, len(self._buffers) - 1)

    def read(self, name: str) -> int:
        """The LiteRT tensor of an ONNX tensor as operators want it: channels last where it has four dimensions."""
        place = self._places.get(name)
        if place is None:
            return self.add(channels_last(self.constants[name]))
        if len(self.shapes[name]) == 4 and not place.last:
            return self._turn(place.index, f"{name}.last", self.shapes[name], LAST)
        return place.index

    def emit(
        self,
        operator: int,
        inputs: Sequence[int],
        name: str,
        shape: Sequence[int] | None = None,
        options: Any = None,
    ) -> int:
        """Append an operator; the index of its output.

        Args:
            operator: its code.
            inputs: indices of the LiteRT tensors that it reads.
            name: the ONNX tensor that it computes, or a new name for one of the first input's type.
            shape: of the output; None: that of the ONNX tensor.
            options: the table of options that belongs to the code.
        """
        known = name in self.shapes
        if shape is None:
            shape = self.shapes[name]
            if len(shape) == 4:
                shape = [shape[axis] for axis in LAST]
        kind = self._onnx_kinds.get(name, self._kinds[inputs[0]])
        output = self._tensor(name, shape, kind)
        if known:
            self._places[name] = _Place(output, len(shape) == 4)
        if operator not in self._codes:
            self._codes.append(operator)
        made = tfl.OperatorT(opcodeIndex=self._codes.index(operator), inputs=list(inputs), outputs=[output])
        if options is not None:
            made.builtinOptionsType = getattr(_OPTIONS, type(options).__name__.removesuffix("T"))
            made.builtinOptions = options
        self._operators.append(made)
        return output

    def alias(self, name: str, of: str, last: bool) -> None:
        """Say that tensor ``name`` is held where ``of`` is, now seen as channels last or not."""
        self._places[name] = _Place(self._places[of].index, last)

    def is_last(self, name: str) -> bool:
        """Whether a tensor is held channels last."""
        return self._places[name].last

    def finish(self) -> bytes:
        """The file's content."""
        inputs = [self._places[value.name].index for value in self._graph.input]
        outputs = []
        for value in self._graph.output:
            place, shape = self._places[value.name], self.shapes[value.name]
            turned = [shape[axis] for axis in LAST] if place.last else shape
            outputs.append(
                self._turn(place.index, f"{value.name}.first", turned, FIRST) if place.last else place.index
            )
        signature = tfl.SignatureDefT(
            inputs=[tfl.TensorMapT(v.name, i) for v, i in zip(self._graph.input, inputs, strict=True)],
            outputs=[tfl.TensorMapT(v.name, i) for v, i in zip(self._graph.output, outputs, strict=True)],
            signatureKey=_SIGNATURE,
        )
        codes = [
            tfl.OperatorCodeT(
                # the old field has eight bits; a code beyond them is only in the new one
                deprecatedBuiltinCode=min(code, 127),
                builtinCode=code,
                version=_VERSIONS.get(code, 1),
            )
            for code in self._codes
        ]
        model = tfl.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=codes,
            subgraphs=[
                tfl.SubGraphT(
                    tensors=self._tensors,
                    inputs=inputs,
                    outputs=outputs,
                    operators=self._operators,
                    name=self._graph.name,
                )
            ],
            description="cabinsense",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(sum(b.data.size for b in self._buffers[1:]) + (1 << 20))
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())

    def _tensor(self, name: str, shape: Sequence[int], kind: np.dtype[Any], buffer: int = 0) -> int:
        if kind not in _TYPES:
            raise EngineError(f"LiteRT: tensor {name} has type {kind}, which cannot be converted")
        self._tensors.append(
            tfl.TensorT(shape=list(shape), type=_TYPES[kind], buffer=buffer, name=name, hasRank=True)
        )
        self._kinds.append(kind)
        return len(self._tensors) - 1

    def _turn(self, index: int, name: str, shape: Sequence[int], order: Sequence[int]) -> int:
        """Append a transposition of a tensor that has ``shape``."""
        by = self.add(np.array(order, np.int32))
        turned = [shape[axis] for axis in order]
        return self.emit(_OP.TRANSPOSE, [index, by], name, turned, tfl.TransposeOptionsT())


def refusal(node: onnx.NodeProto, why: str) -> EngineError:
    """What to raise where a use of an operator cannot be converted."""
    return EngineError(f"LiteRT: {node.op_type} {node.output[0]} cannot be converted: {why}")


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def channels_last(value: Array) -> Array:
    """A constant of four dimensions as [N, H, W, C]; others as they are."""
    return value.transpose(LAST) if value.ndim == 4 else value
