"""ONNX to LiteRT (TensorFlow Lite), for the operators that the project's networks use.

The converters at hand bring TensorFlow, or PyTorch and JAX (``docs/decisions`` has the sizes). This one needs nothing
but the schema that comes with the LiteRT runtime. Norm parameters are folded into the convolution in front of them, so
that an adapted network costs no more than the frozen one. An operator that is not known here is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl

from engines.engine import Array, EngineError
from engines.litert_graph import FIRST, LAST, Converter, attributes_of, refusal
from engines.model import read_model, with_dims

_OP = tfl.BuiltinOperator
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
    converter = Converter(model)
    for node in converter.nodes():
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise EngineError(
                f"LiteRT: operator {node.op_type} cannot be converted; there are {', '.join(sorted(_HANDLERS))}"
            )
        handler(converter, node)
    return converter.finish()


# Operators with a window: convolutions and pools.


def _fold(c: Converter, node: onnx.NodeProto, weight: Array, bias: Array) -> tuple[str, Array, Array, int]:
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
            factor = gain / np.sqrt(variance + attributes_of(reader).get("epsilon", 1e-5))
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


def _activation(c: Converter, name: str) -> tuple[str, int]:
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
    attributes = attributes_of(node)
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or attributes.get("ceil_mode", 0):
        raise refusal(node, "auto_pad and ceil_mode are not supported")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    high, wide = attributes.get("strides", (1, 1))
    tall, broad = attributes.get("dilations", (1, 1))
    return _Window((kernel[0], kernel[1]), (high, wide), (tall, broad), ((top, bottom), (left, right)))


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after a side of ``size``."""
    reach = (kernel - 1) * dilation + 1
    total = max(0, (-(-size // stride) - 1) * stride + reach - size)
    return total // 2, total - total // 2


def _scheme(c: Converter, node: onnx.NodeProto, window: _Window) -> int | None:
    """The code of LiteRT's padding that does what the node wants; None where there is none."""
    if not window.padded:
        return int(tfl.Padding.VALID)
    return int(tfl.Padding.SAME) if window.same(c.shapes[node.input[0]][2:]) else None


def _pad(c: Converter, index: int, name: str, shape: Sequence[int], pads: Sequence[tuple[int, int]]) -> int:
    """Append zeros around a tensor; ``shape`` and ``pads`` are in ONNX's order of axes."""
    order = LAST if len(shape) == 4 else range(len(shape))
    padded = [shape[axis] + sum(pads[axis]) for axis in order]
    amounts = c.add(np.array([pads[axis] for axis in order], np.int32))
    return c.emit(_OP.PAD, [index, amounts], name, padded, tfl.PadOptionsT())


def _conv(c: Converter, node: onnx.NodeProto) -> None:
    weight = c.constant(node, 1)
    if weight.ndim != 4:
        raise refusal(node, "only convolutions of images are supported")
    out, channels = weight.shape[0], c.shapes[node.input[0]][1]
    groups = attributes_of(node).get("group", 1)
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
        inputs = [source, c.add(weight.transpose(LAST)), c.add(bias)]
        c.emit(_OP.CONV_2D, inputs, name, options=tfl.Conv2DOptionsT(**common))
    elif groups == channels:
        inputs = [source, c.add(weight.transpose(1, 2, 3, 0)), c.add(bias)]
        options = tfl.DepthwiseConv2DOptionsT(depthMultiplier=out // channels, **common)
        c.emit(_OP.DEPTHWISE_CONV_2D, inputs, name, options=options)
    else:
        raise refusal(node, f"{groups} groups over {channels} channels")


def _conv_transpose(c: Converter, node: onnx.NodeProto) -> None:
    weight = c.constant(node, 1)
    window = _window(node, weight.shape[2:])
    attributes = attributes_of(node)
    if (
        window.padded
        or window.dilations != (1, 1)
        or attributes.get("group", 1) != 1
        or any(attributes.get("output_padding", ()))
        or "output_shape" in attributes
    ):
        raise refusal(node, "padding, dilation and groups are not supported")
    weight = weight.swapaxes(0, 1)
    bias = c.constant(node, 2) if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    shape = [c.shapes[node.output[0]][axis] for axis in LAST]
    name, weight, bias, activation = _fold(c, node, weight, bias)
    options = tfl.TransposeConvOptionsT(
        padding=tfl.Padding.VALID,
        strideH=window.strides[0],
        strideW=window.strides[1],
        fusedActivationFunction=activation,
    )
    inputs = [
        c.add(np.array(shape, np.int32)),
        c.add(weight.transpose(LAST)),
        c.read(node.input[0]),
        c.add(bias),
    ]
    c.emit(_OP.TRANSPOSE_CONV, inputs, name, options=options)


def _pool(c: Converter, node: onnx.NodeProto) -> None:
    attributes = attributes_of(node)
    average = node.op_type == "AveragePool"
    window = _window(node, attributes["kernel_shape"])
    padding = _scheme(c, node, window)
    if (
        padding is None
        or window.dilations != (1, 1)
        or (window.padded and attributes.get("count_include_pad"))
    ):
        raise refusal(node, "of padding there may be none, or what TensorFlow calls SAME; and no dilation")
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


def _binary(c: Converter, node: onnx.NodeProto) -> None:
    rank = len(c.shapes[node.output[0]])
    for name in node.input:
        shape = c.constants[name].shape if name in c.constants else c.shapes[name]
        if rank == 4 and len(shape) != 4 and np.prod(shape) != 1:
            raise refusal(node, f"{name} is stretched over axes that it does not have")
    operator, options = _BINARY[node.op_type]
    name, activation = _activation(c, node.output[0])
    inputs = [c.read(name) for name in node.input]
    c.emit(operator, inputs, name, options=options(fusedActivationFunction=activation))


def _unary(c: Converter, node: onnx.NodeProto) -> None:
    c.emit(_UNARY[node.op_type], [c.read(node.input[0])], node.output[0])


def _cast(c: Converter, node: onnx.NodeProto) -> None:
    c.emit(_OP.CAST, [c.read(node.input[0])], node.output[0], options=tfl.CastOptionsT())


# Operators on shapes.


def _transpose(c: Converter, node: onnx.NodeProto) -> None:
    """Turning an image channels first is no work: it is kept channels last, whatever ONNX sees."""
    order = tuple(attributes_of(node)["perm"])
    source, target = node.input[0], node.output[0]
    if order == FIRST and not c.is_last(source):
        c.alias(target, source, last=True)
    elif order == LAST and c.is_last(source):
        c.alias(target, source, last=False)
    else:
        raise refusal(node, "only between channels first and channels last")


def _pad_node(c: Converter, node: onnx.NodeProto) -> None:
    fill = c.constant(node, 2) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if attributes_of(node).get("mode", b"constant") != b"constant" or np.any(fill):
        raise refusal(node, "only padding with zeros is supported")
    before, after = c.constant(node, 1).reshape(2, -1).tolist()
    name = node.input[0]
    _pad(c, c.read(name), node.output[0], c.shapes[name], list(zip(before, after, strict=True)))


# Operators over axes, and linear layers.


def _mean(c: Converter, node: onnx.NodeProto) -> None:
    axes, keep = ((2, 3), True) if node.op_type == "GlobalAveragePool" else _reduced(c, node)
    rank = len(c.shapes[node.input[0]])
    if rank == 4 and not keep and axes != (2, 3):
        raise refusal(node, "of an image, only height and width may vanish")
    over = np.array([_AXIS[axis] for axis in axes] if rank == 4 else axes, np.int32)
    inputs = [c.read(node.input[0]), c.add(over)]
    c.emit(_OP.MEAN, inputs, node.output[0], options=tfl.ReducerOptionsT(keepDims=keep))


def _length(c: Converter, node: onnx.NodeProto) -> None:
    axes, keep = _reduced(c, node)
    source, name = node.input[0], node.output[0]
    if len(c.shapes[source]) != 2:
        raise refusal(node, "only the length of vectors is supported")
    index = c.read(source)
    squares = c.emit(_OP.MUL, [index, index], f"{name}.squares", c.shapes[source], tfl.MulOptionsT())
    inputs = [squares, c.add(np.array(axes, np.int32))]
    total = c.emit(_OP.SUM, inputs, f"{name}.sum", c.shapes[name], tfl.ReducerOptionsT(keepDims=keep))
    c.emit(_OP.SQRT, [total], name)


def _reduced(c: Converter, node: onnx.NodeProto) -> tuple[tuple[int, ...], bool]:
    """The axes over which a node reduces, and whether they stay with size 1."""
    attributes = attributes_of(node)
    axes = attributes.get("axes")
    if axes is None:  # an input since opset 18
        axes = c.constant(node, 1).tolist()
    rank = len(c.shapes[node.input[0]])
    return tuple(sorted(axis % rank for axis in axes)), bool(attributes.get("keepdims", 1))


def _linear(c: Converter, node: onnx.NodeProto) -> None:
    attributes = attributes_of(node)
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    if len(c.shapes[node.input[0]]) != 2 or not plain or attributes.get("transA", 0):
        raise refusal(node, "only a matrix with constant weights, times a batch of vectors, is supported")
    weight = c.constant(node, 1)
    if not attributes.get("transB", 0):
        weight = weight.T
    inputs = [c.read(node.input[0]), c.add(weight)]
    if len(node.input) > 2:
        inputs.append(c.add(np.broadcast_to(c.constant(node, 2).reshape(-1), len(weight))))
    name, activation = _activation(c, node.output[0])
    options = tfl.FullyConnectedOptionsT(fusedActivationFunction=activation)
    c.emit(_OP.FULLY_CONNECTED, inputs, name, options=options)


_HANDLERS: dict[str, Callable[[Converter, onnx.NodeProto], None]] = {
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
