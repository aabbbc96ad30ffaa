"""The operators of ONNX in torch, as far as packs' face networks have them.

Each is made of its node's attributes and is then called with the node's inputs in their order, None for one that was
left out. An attribute that is not known here is a ``TypeError``, a value that is not an ``EngineError``: nothing is
passed over. What they compute is written in https://onnx.ai/onnx/operators, for operator set 17.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor
from torch.nn import functional

from engines.engine import EngineError

Operator = Callable[..., Any]
"""From inputs to the output, or to a sequence of the outputs."""

_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def _only(what: str, value: object, known: object) -> None:
    """Raises EngineError where an attribute is not what it always is."""
    if value != known:
        raise EngineError(f"{what} {value!r} cannot be adapted here")


def _around(pads: Sequence[int]) -> tuple[int, ...]:
    """Padding as ONNX has it, all beginnings and then all ends, as ``functional.pad`` has it, last axis first."""
    rank = len(pads) // 2
    return tuple(int(p) for axis in reversed(range(rank)) for p in (pads[axis], pads[axis + rank]))


def _convolution(
    *,
    kernel_shape: Sequence[int] = (),  # noqa: ARG001 - the weight has it
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
) -> Operator:
    top, left, bottom, right = pads
    even, stride, dilation = (top, left) == (bottom, right), tuple(strides), tuple(dilations)

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padding = (top, left) if even else (0, 0)
        x = x if even else functional.pad(x, _around(pads))
        return functional.conv2d(x, weight, bias, stride, padding, dilation, group)

    return apply


def _max_pool(
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_mode: int = 0,
    dilations: Sequence[int] = (1, 1),
    storage_order: int = 0,
) -> Operator:
    _only("pooling with ceil_mode", ceil_mode, 0)
    _only("pooling with storage_order", storage_order, 0)
    kernel, stride, dilation = tuple(kernel_shape), tuple(strides), tuple(dilations)
    return lambda x: functional.max_pool2d(
        functional.pad(x, _around(pads), value=-math.inf), kernel, stride, dilation=dilation
    )


def _average_pool(
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Operator:
    _only("pooling with ceil_mode", ceil_mode, 0)
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        raise EngineError("average pooling with uneven padding cannot be adapted here")
    kernel, stride, inside = tuple(kernel_shape), tuple(strides), bool(count_include_pad)
    return lambda x: functional.avg_pool2d(x, kernel, stride, (top, left), count_include_pad=inside)


def _pad(*, mode: str = "constant") -> Operator:
    _only("padding of mode", mode, "constant")

    def apply(x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
        return functional.pad(x, _around(pads.tolist()), value=0.0 if value is None else float(value))

    return apply


def _resize(
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,  # noqa: ARG001 - of another mode
) -> Operator:
    _only("resizing of mode", mode, "nearest")
    _only("resizing with coordinates", coordinate_transformation_mode, "asymmetric")
    _only("resizing to the nearest", nearest_mode, "floor")

    def apply(
        x: Tensor, _roi: Tensor | None, scales: Tensor | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        if sizes is not None:
            size = sizes.tolist()
        elif scales is not None:
            # In float32, as the runtime has it: the exporter chooses factors whose products are just large enough.
            size = (scales * torch.tensor(x.shape, dtype=torch.float32)).floor().int().tolist()
        else:
            raise EngineError("resizing without a size cannot be adapted here")
        return functional.interpolate(x, size=size[2:], mode="nearest")

    return apply


def _over(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Operator]:
    """A reduction over axes, which are an attribute or, in later operator sets, an input."""

    def make(*, axes: Sequence[int] = (), keepdims: int = 1) -> Operator:
        def apply(x: Tensor, given: Tensor | None = None) -> Tensor:
            chosen = tuple(axes) if given is None else tuple(given.tolist())
            return reduce(x, chosen, bool(keepdims))

        return apply

    return make


def _product_and_sum(
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX' name
    transB: int = 0,  # noqa: N803
) -> Operator:
    _only("Gemm with factors", (alpha, beta, transA), (1.0, 1.0, 0))
    return lambda x, weight, bias=None: functional.linear(x, weight if transB else weight.T, bias)


def _layer_norm(*, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Operator:
    _only("LayerNormalization with stash_type", stash_type, TensorProto.FLOAT)
    return lambda x, scale, bias=None: functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def _cast(*, to: int) -> Operator:
    if to not in _TYPES:
        raise EngineError(f"a Cast to {TensorProto.DataType.Name(to)} cannot be adapted here")
    return lambda x: x.to(_TYPES[to])


def _shape(*, start: int = 0) -> Operator:
    return lambda x: torch.tensor(x.shape[start:])


def _slice() -> Operator:
    def apply(
        x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        count = len(starts)
        along = range(count) if axes is None else axes.tolist()
        by = [1] * count if steps is None else steps.tolist()
        cut = [slice(None)] * x.dim()
        for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), by, strict=True):
            cut[axis] = slice(start, end, step)
        return x[tuple(cut)]

    return apply


def _gather(*, axis: int = 0) -> Operator:
    def apply(x: Tensor, places: Tensor) -> Tensor:
        size = x.shape[axis]
        found = x.index_select(axis, torch.where(places < 0, places + size, places).flatten())
        at = axis % x.dim()
        return found.reshape((*x.shape[:at], *places.shape, *x.shape[at + 1 :]))

    return apply


def _filled(*, value: onnx.TensorProto | None = None) -> Operator:
    content = torch.zeros(1) if value is None else torch.tensor(numpy_helper.to_array(value))
    return lambda shape: content.expand(shape.tolist())


def _reshape(*, allowzero: int = 0) -> Operator:
    _only("Reshape with allowzero", allowzero, 0)
    return lambda x, shape: x.reshape(
        [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    )


def _squeeze() -> Operator:
    return lambda x, axes: x.squeeze(tuple(axes.tolist()))


def _unsqueeze() -> Operator:
    def apply(x: Tensor, axes: Tensor) -> Tensor:
        rank = x.dim() + len(axes)
        for axis in sorted(int(axis) % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return apply


def _quotient(one: Tensor, other: Tensor) -> Tensor:
    """Of whole numbers ONNX gives the whole part."""
    whole = not (one.is_floating_point() or other.is_floating_point())
    return torch.div(one, other, rounding_mode="trunc" if whole else None)


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    common = torch.broadcast_shapes(x.shape, tuple(shape.tolist()))  # type: ignore[no-untyped-call]
    return x.expand(common)


def _plain(function: Operator) -> Callable[[], Operator]:
    """An operator without attributes."""
    return lambda: function


OPERATORS: Mapping[str, Callable[..., Operator]] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Concat": lambda *, axis: lambda *parts: torch.cat(parts, axis),
    "ConstantOfShape": _filled,
    "Conv": _convolution,
    "Div": _plain(_quotient),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Expand": _plain(_expand),
    "Flatten": lambda *, axis=1: lambda x: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gather": _gather,
    "Gemm": _product_and_sum,
    "GlobalAveragePool": _plain(lambda x: x.mean((2, 3), keepdim=True)),
    "HardSigmoid": lambda *, alpha=0.2, beta=0.5: lambda x: (alpha * x + beta).clamp(0, 1),
    "LayerNormalization": _layer_norm,
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "PRelu": _plain(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Pad": _pad,
    "ReduceL2": _over(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceMean": _over(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda *, axis=-1: lambda x: x.softmax(axis),
    "Split": lambda *, axis=0: lambda x, sizes: x.split(sizes.tolist(), axis),
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Transpose": lambda *, perm: lambda x: x.permute(*perm),
    "Unsqueeze": _unsqueeze,
    "Where": _plain(torch.where),
}


def build(node: onnx.NodeProto, graph: str) -> Operator:
    """What a node computes.

    Args:
        node: of a graph.
        graph: its name, for the message.

    Raises:
        EngineError: the operator, or an attribute of it, is not known here.
    """
    make = OPERATORS.get(node.op_type)
    if make is None:
        raise EngineError(f"{graph}: operator {node.op_type} cannot be adapted here")
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    plain = {
        name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()
    }
    try:
        return make(**plain)
    except (TypeError, EngineError) as error:
        raise EngineError(
            f"{graph}: operator {node.op_type} with {', '.join(plain)} cannot be adapted here ({error})"
        ) from error
