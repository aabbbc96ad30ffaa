"""Quantise a network to eight bits: Q/DQ pairs before each convolution and matrix product, nothing else changed.

A pair stands before the input and before the weights of each Conv, Gemm and MatMul, and before nothing else. What a
product gives is not rounded: bias, norm parameters, activation and sum behind it stay in float, where a backend may
fuse them with the product and adaptation can still change them. Each product has pairs of its own, so one layer goes
back to float without touching another (``restore``).
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from agent.perception.types import Image
from engines.errors import UserError
from engines.model import drop_unused

Method = Literal["entropy", "percentile", "minmax"]
Progress = Callable[[int, int], None]
"""Called with how many of how many images have been seen."""

METHODS: dict[str, CalibrationMethod] = {
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
    "minmax": CalibrationMethod.MinMax,
}
"""How the range of an activation is chosen from what is seen: least divergence, nearly all of it, all of it."""

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""The operators that run in eight bits. ConvTranspose is not among them: few backends have it."""

_AT_ONCE = 8  # images whose activations are in memory together: some 30 MB each
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
    "CalibTensorRangeSymmetric": True,
}


class QuantisationError(UserError):
    """A network cannot be quantised; the message says why."""


def quantise(
    model: onnx.ModelProto, images: Iterable[Image], method: Method, progress: Progress = lambda *_: None
) -> onnx.ModelProto:
    """The model with Q/DQ pairs: int8, symmetric, weights by channel.

    Args:
        model: one uint8 input [N or 1, height, width, 3], products in float.
        images: what activations are measured on, at least one, each of the input's size.
        method: how ranges are chosen, a key of ``METHODS``.
        progress: told of each image.

    Raises:
        QuantisationError: what ONNX Runtime made is not what was asked of it.
    """
    named = _with_names(model)
    reader = _Reader(named.graph.input[0].name, list(images), progress)
    with tempfile.TemporaryDirectory() as folder, _silence():
        file = Path(folder) / "int8.onnx"
        quantize_static(
            named,
            file,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options=_OPTIONS | {"CalibStridedMinMax": reader.stride},
        )
        made = onnx.load(str(file))
    made.graph.name = model.graph.name
    _only_products(made.graph)
    _check(model, made)
    return made


def layers(model: onnx.ModelProto) -> list[str]:
    """The names of the products that run in eight bits, in the order of the graph."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and any(name in dequantised for name in node.input)
    ]


def restore(model: onnx.ModelProto, kept: Iterable[str]) -> onnx.ModelProto:
    """A copy of a quantised model in which the products named run in float again.

    Raises:
        ValueError: one of them is no quantised product of the model.
    """
    wanted = set(kept)
    unknown = wanted - set(layers(model))
    if unknown:
        raise ValueError(f"the model has no quantised layer {sorted(unknown)[0]}")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.name in wanted and node.op_type in PRODUCTS:
            node.input[:] = [_before_pair(name, makers) for name in node.input]
    drop_unused(graph)
    return changed


def weight_count(model: onnx.ModelProto) -> tuple[int, int]:
    """How many weights of the model's products run in eight bits, and how many there are."""
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    quantised, total = 0, 0
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            origin = _before_pair(node.input[1], makers)
            total += sizes.get(origin, 0)
            quantised += sizes.get(origin, 0) if origin != node.input[1] else 0
    return quantised, total


class _Reader(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
    """Hands images to ONNX Runtime one by one, in blocks that it may ask for."""

    def __init__(self, name: str, images: list[Image], progress: Progress) -> None:
        if not images:
            raise QuantisationError("there is no image to calibrate on")
        self._name, self._images, self._progress = name, images, progress
        self.stride = max(size for size in range(1, _AT_ONCE + 1) if len(images) % size == 0)
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        """The next block, as ONNX Runtime calls it."""
        self._order: Iterator[int] = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next image as the model's input; None at the end of the block."""
        index = next(self._order, None)
        if index is None:
            return None
        self._progress(index + 1, len(self._images))
        return {self._name: self._images[index][None]}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep ONNX Runtime's prints and advice off the screen, where results and progress stand."""
    root = logging.getLogger()
    before = root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name; the quantiser and ``layers`` go by names."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for node in named.graph.node:
        node.name = node.name or node.output[0]
    return named


def _before_pair(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    """The tensor that a Q/DQ pair rounds, or the tensor itself where no pair made it."""
    dequantise = makers.get(name)
    if dequantise is None or dequantise.op_type != "DequantizeLinear":
        return name
    quantise = makers.get(dequantise.input[0])
    return quantise.input[0] if quantise is not None else name


def _only_products(graph: onnx.GraphProto) -> None:
    """Let all but products read what stands before a pair: ONNX Runtime lets whoever reads a tensor share its pair."""
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type not in {*PRODUCTS, "QuantizeLinear", "DequantizeLinear"}:
            node.input[:] = [_before_pair(name, makers) for name in node.input]
    drop_unused(graph)


def _check(model: onnx.ModelProto, made: onnx.ModelProto) -> None:
    """See that only products were quantised, all of them, symmetrically, and that everything else is as it was."""
    tensors = {t.name: t for t in made.graph.initializer}
    makers = {node.output[0]: node for node in made.graph.node}
    float_products = sum(node.op_type in PRODUCTS for node in model.graph.node)
    faults = []
    if len(layers(made)) != float_products:
        faults.append(f"{len(layers(made))} of {float_products} layers are quantised")
    for node in made.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            point = numpy_helper.to_array(tensors[node.input[2]])
            if point.dtype != np.int8 or point.any():
                faults.append(f"zero points of {node.name} are not 0")
        elif node.op_type in PRODUCTS and len(node.input) > 2 and node.input[2] in makers:
            faults.append(f"the bias of {node.name} is quantised")
    for tensor in model.graph.initializer:
        same = tensors.get(tensor.name)
        if same is None or same.data_type != tensor.data_type or _bytes(same) != _bytes(tensor):
            faults.append(f"{tensor.name} is not what it was")
    if faults:
        raise QuantisationError(
            f"ONNX Runtime {ort.__version__} does not quantise {model.graph.name} as asked: {faults[0]} "
            f"({len(faults)} such); install a newer onnxruntime"
        )


def _bytes(tensor: onnx.TensorProto) -> bytes:
    return bytes(numpy_helper.to_array(tensor).tobytes())
