"""ONNX to LiteRT (TensorFlow Lite), for the operators that the project's networks use.

The converters at hand bring TensorFlow, or PyTorch and JAX (``docs/decisions`` has the sizes). This one needs nothing
but the schema that comes with the LiteRT runtime. Norm parameters are folded into the convolution in front of them, so
that an adapted network costs no more than the frozen one. An operator that is not known here is refused by name.

ONNX keeps images as [N, C, H, W]; LiteRT's kernels want [N, H, W, C]. Tensors of four dimensions are kept channels
last from operator to operator, and turned only where an input or output of the graph promises otherwise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import helper, numpy_helper

from engines.engine import Array, EngineError
from engines.model import read_model, with_dims

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
_LAST = (0, 2, 3, 1)  # transposes [N, C, H, W] to [N, H, W, C]
_FIRST = (0, 3, 1, 2)  # and back
_AXIS = (0, 3, 1, 2)  # axis i of [N, C, H, W] is axis _AXIS[i] of [N, H, W, C]


def convert(onnx_path: Path, tflite_path: Path, dims: Mapping[str, int]) -> None:
    """Write an ONNX file as a ``.tflite`` file.

    Args:
        onnx_path: the model.
        tflite_path: is written, or overwritten.
        dims: sizes for the symbolic dimensions of the inputs (``{"N": 1}``); a ``.tflite`` file has static shapes.

    Raises:
        EngineError: the file is no ONNX model, or has an operator that cannot be converted.
    """
    tflite_path.write_bytes(to_tflite(with_dims(read_model(onnx_path), dims)))


def to_tflite(model: onnx.ModelProto) -> bytes:
    """The content of a ``.tflite`` file that computes what ``model`` does; inputs and outputs keep names and shapes.

    Args:
        model: with the shapes of all tensors, as from ``with_dims``.

    Raises:
        EngineError: the model has an operator, or a use of one, that cannot be converted.
    """
    converter = _Converter(model)
    for node in converter.nodes():
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise EngineError(
                f"LiteRT: operator {node.op_type} cannot be converted; there are {', '.join(sorted(_HANDLERS))}"
            )
        handler(converter, node)
    return converter.finish()


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


class _Converter:
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

    # What handlers ask about the graph.

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
            raise _refusal(node, f"its input {node.input[position]} is no constant")
        return value

    # What handlers append.

    def add(self, value: Array) -> int:
        """Append a constant; its index."""
        data = np.ascontiguousarray(value)
        self._buffers.append(_Buffer(data.reshape(-1).view(np.uint8)))
        return self._tensor(f"constant{len(self._tensors)}", data.shape, data.dtype, len(self._buffers) - 1)

    def read(self, name: str) -> int:
        """The LiteRT tensor of an ONNX tensor as operators want it: channels last where it has four dimensions."""
        place = self._places.get(name)
        if place is None:
            return self.add(_channels_last(self.constants[name]))
        if len(self.shapes[name]) == 4 and not place.last:
            return self._turn(place.index, f"{name}.last", self.shapes[name], _LAST)
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
                shape = [shape[axis] for axis in _LAST]
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
            turned = [shape[axis] for axis in _LAST] if place.last else shape
            outputs.append(
                self._turn(place.index, f"{value.name}.first", turned, _FIRST) if place.last else place.index
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


def _refusal(node: onnx.NodeProto, why: str) -> EngineError:
    return EngineError(f"LiteRT: {node.op_type} {node.output[0]} cannot be converted: {why}")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _channels_last(value: Array) -> Array:
    return value.transpose(_LAST) if value.ndim == 4 else value


# Operators with a window: convolutions and pools.


def _fold(c: _Converter, node: onnx.NodeProto, weight: Array, bias: Array) -> tuple[str, Array, Array, int]:
    """Fold what follows a convolution into it: factors and addends for each channel, and the activation.

    Args:
        c: the converter.
        node: the convolution.
        weight: [out, …].
        bias: [out].

    Returns:
        The tensor that is computed now, weight and bias as float32, and the code of the activation.
    """
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    name = node.output[0]
    while (reader := c.sole_reader(name)) is not None:
        if reader.op_type == "BatchNormalization":
            gain, shift, mean, variance = (c.constant(reader, i).astype(np.float64) for i in range(1, 5))
            factor = gain / np.sqrt(variance + _attributes(reader).get("epsilon", 1e-5))
            addend = shift - mean * factor
        elif reader.op_type in ("Mul", "Add"):
            other = next(i for i in (1, 0) if reader.input[i] != name)
            value = c.constants.get(reader.input[other])
            if value is None or value.shape != (1, bias.size, 1, 1):
                break
            per_channel = value.reshape(-1).astype(np.float64)
            factor = per_channel if reader.op_type == "Mul" else np.ones_like(bias)
            addend = per_channel if reader.op_type == "Add" else np.zeros_like(bias)
        else:
            break
        weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        bias = bias * factor + addend
        name = c.absorb(reader)
    name, activation = _activation(c, name)
    return name, weight.astype(np.float32), bias.astype(np.float32), activation


def _activation(c: _Converter, name: str) -> tuple[str, int]:
    """The ReLU behind tensor ``name``, if only it reads that: the tensor computed then, and the activation's code."""
    reader = c.sole_reader(name)
    if reader is not None and reader.op_type == "Relu":
        return c.absorb(reader), tfl.ActivationFunctionType.RELU
    return name, tfl.ActivationFunctionType.NONE


@dataclass(frozen=True)
class _Window:
    """How a convolution or pool moves over its input; each pair is height and width."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    def same(self, sides: Sequence[int]) -> bool:
        """Whether the padding is what TensorFlow calls SAME for an input with these sides."""
        return all(
            pads == _same_padding(*axis)
            for pads, *axis in zip(self.pads, sides, self.kernel, self.strides, self.dilations, strict=True)
        )

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return self.pads != ((0, 0), (0, 0))


def _window(node: onnx.NodeProto, kernel: Sequence[int]) -> _Window:
    attributes = _attributes(node)
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or attributes.get("ceil_mode", 0):
        raise _refusal(node, "auto_pad and ceil_mode are not supported")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    high, wide = attributes.get("strides", (1, 1))
    tall, broad = attributes.get("dilations", (1, 1))
    return _Window((kernel[0], kernel[1]), (high, wide), (tall, broad), ((top, bottom), (left, right)))


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after a side of ``size``."""
    reach = (kernel - 1) * dilation + 1
    total = max(0, (-(-size // stride) - 1) * stride + reach - size)
    return total // 2, total - total // 2


def _scheme(c: _Converter, node: onnx.NodeProto, window: _Window) -> int | None:
    """The code of LiteRT's padding that does what the node wants; None where there is none."""
    if not window.padded:
        return int(tfl.Padding.VALID)
    return int(tfl.Padding.SAME) if window.same(c.shapes[node.input[0]][2:]) else None


def _pad(c: _Converter, index: int, name: str, shape: Sequence[int], pads: Sequence[tuple[int, int]]) -> int:
    """Append zeros around a tensor; ``shape`` and ``pads`` are in ONNX's order of axes."""
    order = _LAST if len(shape) == 4 else range(len(shape))
    padded = [shape[axis] + sum(pads[axis]) for axis in order]
    amounts = c.add(np.array([pads[axis] for axis in order], np.int32))
    return c.emit(_OP.PAD, [index, amounts], name, padded, tfl.PadOptionsT())


def _conv(c: _Converter, node: onnx.NodeProto) -> None:
    weight = c.constant(node, 1)
    if weight.ndim != 4:
        raise _refusal(node, "only convolutions of images are supported")
    out, channels = weight.shape[0], c.shapes[node.input[0]][1]
    groups = _attributes(node).get("group", 1)
    window = _window(node, weight.shape[2:])
    source, padding = c.read(node.input[0]), _scheme(c, node, window)
    if padding is None:
        name, shape = f"{node.output[0]}.padded", c.shapes[node.input[0]]
        source, padding = _pad(c, source, name, shape, ((0, 0), (0, 0), *window.pads)), tfl.Padding.VALID
    bias = c.constant(node, 2) if len(node.input) > 2 else np.zeros(out, np.float32)
    name, weight, bias, activation = _fold(c, node, weight, bias)
    common = {
        "padding": padding,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
        "fusedActivationFunction": activation,
    }
    if groups == 1:
        inputs = [source, c.add(weight.transpose(_LAST)), c.add(bias)]
        c.emit(_OP.CONV_2D, inputs, name, options=tfl.Conv2DOptionsT(**common))
    elif groups == channels:
        inputs = [source, c.add(weight.transpose(1, 2, 3, 0)), c.add(bias)]
        options = tfl.DepthwiseConv2DOptionsT(depthMultiplier=out // channels, **common)
        c.emit(_OP.DEPTHWISE_CONV_2D, inputs, name, options=options)
    else:
        raise _refusal(node, f"{groups} groups over {channels} channels")


def _conv_transpose(c: _Converter, node: onnx.NodeProto) -> None:
    weight = c.constant(node, 1)
    window = _window(node, weight.shape[2:])
    attributes = _attributes(node)
    if (
        window.padded
        or window.dilations != (1, 1)
        or attributes.get("group", 1) != 1
        or any(attributes.get("output_padding", ()))
        or "output_shape" in attributes
    ):
        raise _refusal(node, "padding, dilation and groups are not supported")
    weight = weight.swapaxes(0, 1)
    bias = c.constant(node, 2) if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    shape = [c.shapes[node.output[0]][axis] for axis in _LAST]
    name, weight, bias, activation = _fold(c, node, weight, bias)
    options = tfl.TransposeConvOptionsT(
        padding=tfl.Padding.VALID,
        strideH=window.strides[0],
        strideW=window.strides[1],
        fusedActivationFunction=activation,
    )
    inputs = [
        c.add(np.array(shape, np.int32)),
        c.add(weight.transpose(_LAST)),
        c.read(node.input[0]),
        c.add(bias),
    ]
    c.emit(_OP.TRANSPOSE_CONV, inputs, name, options=options)


def _pool(c: _Converter, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    average = node.op_type == "AveragePool"
    window = _window(node, attributes["kernel_shape"])
    padding = _scheme(c, node, window)
    if (
        padding is None
        or window.dilations != (1, 1)
        or (window.padded and attributes.get("count_include_pad"))
    ):
        raise _refusal(node, "of padding there may be none, or what TensorFlow calls SAME; and no dilation")
    options = tfl.Pool2DOptionsT(
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
    )
    operator = _OP.AVERAGE_POOL_2D if average else _OP.MAX_POOL_2D
    c.emit(operator, [c.read(node.input[0])], node.output[0], options=options)


# Operators on each element.

_BINARY: dict[str, tuple[int, Any]] = {
    "Add": (_OP.ADD, tfl.AddOptionsT),
    "Sub": (_OP.SUB, tfl.SubOptionsT),
    "Mul": (_OP.MUL, tfl.MulOptionsT),
    "Div": (_OP.DIV, tfl.DivOptionsT),
}
_UNARY: dict[str, int] = {"Relu": _OP.RELU, "Sigmoid": _OP.LOGISTIC}


def _binary(c: _Converter, node: onnx.NodeProto) -> None:
    rank = len(c.shapes[node.output[0]])
    for name in node.input:
        shape = c.constants[name].shape if name in c.constants else c.shapes[name]
        if rank == 4 and len(shape) != 4 and np.prod(shape) != 1:
            raise _refusal(node, f"{name} is stretched over axes that it does not have")
    operator, options = _BINARY[node.op_type]
    name, activation = _activation(c, node.output[0])
    inputs = [c.read(name) for name in node.input]
    c.emit(operator, inputs, name, options=options(fusedActivationFunction=activation))


def _unary(c: _Converter, node: onnx.NodeProto) -> None:
    c.emit(_UNARY[node.op_type], [c.read(node.input[0])], node.output[0])


def _cast(c: _Converter, node: onnx.NodeProto) -> None:
    c.emit(_OP.CAST, [c.read(node.input[0])], node.output[0], options=tfl.CastOptionsT())


# Operators on shapes.


def _transpose(c: _Converter, node: onnx.NodeProto) -> None:
    """Turning an image channels first is no work: it is kept channels last, whatever ONNX sees."""
    order = tuple(_attributes(node)["perm"])
    source, target = node.input[0], node.output[0]
    if order == _FIRST and not c.is_last(source):
        c.alias(target, source, last=True)
    elif order == _LAST and c.is_last(source):
        c.alias(target, source, last=False)
    else:
        raise _refusal(node, "only between channels first and channels last")


def _pad_node(c: _Converter, node: onnx.NodeProto) -> None:
    fill = c.constant(node, 2) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if _attributes(node).get("mode", b"constant") != b"constant" or np.any(fill):
        raise _refusal(node, "only padding with zeros is supported")
    before, after = c.constant(node, 1).reshape(2, -1).tolist()
    name = node.input[0]
    _pad(c, c.read(name), node.output[0], c.shapes[name], list(zip(before, after, strict=True)))


# Operators over axes, and linear layers.


def _mean(c: _Converter, node: onnx.NodeProto) -> None:
    axes, keep = ((2, 3), True) if node.op_type == "GlobalAveragePool" else _reduced(c, node)
    rank = len(c.shapes[node.input[0]])
    if rank == 4 and not keep and axes != (2, 3):
        raise _refusal(node, "of an image, only height and width may vanish")
    over = np.array([_AXIS[axis] for axis in axes] if rank == 4 else axes, np.int32)
    inputs = [c.read(node.input[0]), c.add(over)]
    c.emit(_OP.MEAN, inputs, node.output[0], options=tfl.ReducerOptionsT(keepDims=keep))


def _length(c: _Converter, node: onnx.NodeProto) -> None:
    axes, keep = _reduced(c, node)
    source, name = node.input[0], node.output[0]
    if len(c.shapes[source]) != 2:
        raise _refusal(node, "only the length of vectors is supported")
    index = c.read(source)
    squares = c.emit(_OP.MUL, [index, index], f"{name}.squares", c.shapes[source], tfl.MulOptionsT())
    inputs = [squares, c.add(np.array(axes, np.int32))]
    total = c.emit(_OP.SUM, inputs, f"{name}.sum", c.shapes[name], tfl.ReducerOptionsT(keepDims=keep))
    c.emit(_OP.SQRT, [total], name)


def _reduced(c: _Converter, node: onnx.NodeProto) -> tuple[tuple[int, ...], bool]:
    """The axes over which a node reduces, and whether they stay with size 1."""
    attributes = _attributes(node)
    axes = attributes.get("axes")
    if axes is None:  # an input since opset 18
        axes = c.constant(node, 1).tolist()
    rank = len(c.shapes[node.input[0]])
    return tuple(sorted(axis % rank for axis in axes)), bool(attributes.get("keepdims", 1))


def _linear(c: _Converter, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    if len(c.shapes[node.input[0]]) != 2 or not plain or attributes.get("transA", 0):
        raise _refusal(node, "only a matrix with constant weights, times a batch of vectors, is supported")
    weight = c.constant(node, 1)
    if not attributes.get("transB", 0):
        weight = weight.T
    inputs = [c.read(node.input[0]), c.add(weight)]
    if len(node.input) > 2:
        inputs.append(c.add(np.broadcast_to(c.constant(node, 2).reshape(-1), len(weight))))
    name, activation = _activation(c, node.output[0])
    options = tfl.FullyConnectedOptionsT(fusedActivationFunction=activation)
    c.emit(_OP.FULLY_CONNECTED, inputs, name, options=options)


_HANDLERS: dict[str, Callable[[_Converter, onnx.NodeProto], None]] = {
    "AveragePool": _pool,
    "Cast": _cast,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _linear,
    "GlobalAveragePool": _mean,
    "MatMul": _linear,
    "MaxPool": _pool,
    "Pad": _pad_node,
    "ReduceL2": _length,
    "ReduceMean": _mean,
    "Transpose": _transpose,
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_UNARY, _unary),
}
