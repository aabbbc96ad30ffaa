"""The emotion branch as ONNX, its weights stored in little, and the proof that it computes what PyTorch does."""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from engines.sources.onnx_graph import GraphWriter, norm
from trainer.branch import CLASSES, IN_CHANNELS, IN_SIDE, Attention, Block, Convolution, EmotionBranch
from trainer.common import runtime
from trainer.common.proof import TOLERANCE, ExportError
from trainer.map_sources import Maps

OUTPUT = "emotion"
_LARGE = 1 << 19  # values of a weight from which eight bits for each are enough: so many average out
_LEAST_STEP = 1e-12  # of a channel without weights


def branch_graph(branch: EmotionBranch, temperature: float = 1.0) -> onnx.ModelProto:
    """The branch as ONNX in float32.

    Input ``features`` float32 [N, 64, 17, 17], output ``emotion`` = logits float32 [N, 7] divided by
    ``temperature`` (Guo et al. 2017). Every batch normalisation becomes ``norm.emotion.LAYER.scale`` and
    ``.shift`` from its running moments: scale = weight / sqrt(variance + epsilon), shift = bias - mean *
    scale.
    """
    writer = GraphWriter()
    x = _norm(writer, "features", "emotion.input", branch.input)
    for number, block in enumerate(branch.blocks, 1):
        assert isinstance(block, Block)  # noqa: S101 - tells the type checker what ModuleList forgets
        x = _block(writer, x, f"emotion.block{number}", block)
    pooled = writer.node("ReduceMean", [x], "emotion.pool", axes=[2, 3], keepdims=0)
    weight = writer.constant("emotion.head.weight", _array(branch.head.weight) / np.float32(temperature))
    bias = writer.constant("emotion.head.bias", _array(branch.head.bias) / np.float32(temperature))
    writer.node("Gemm", [pooled, weight, bias], OUTPUT, transB=1)
    return writer.model(
        "emotion_branch",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", IN_CHANNELS, IN_SIDE, IN_SIDE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", CLASSES])],
    )


def with_small_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are stored in less than float32, and widened when it is loaded.

    An initializer ``NAME`` becomes ``NAME.half``, float16, and a Cast node, also called ``NAME``, that makes float32
    ``NAME`` of it; one of ``_LARGE`` values or more becomes ``NAME.whole``, int8, and ``NAME.step``, float32 for each
    output channel, and a DequantizeLinear node. Norm parameters stay float32 initializers. Who joins the branch to a
    network may replace each of these nodes by what it makes; the result is the same.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    initializers, nodes = [], []
    for tensor in small.graph.initializer:
        value, name = numpy_helper.to_array(tensor), tensor.name
        if name.startswith("norm.") or value.dtype != np.float32:
            initializers.append(tensor)
        elif value.size >= _LARGE:
            step = np.maximum(np.abs(value).reshape(len(value), -1).max(axis=1) / 127, _LEAST_STEP)
            whole = np.round(value / step.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
            stored = {f"{name}.whole": whole, f"{name}.step": step.astype(np.float32)}
            initializers += [numpy_helper.from_array(each, key) for key, each in stored.items()]
            nodes.append(helper.make_node("DequantizeLinear", [*stored], [name], name=name, axis=0))
        else:
            half = value.astype(np.float16)
            if not np.isfinite(half).all():
                raise ExportError(f"{name} has values too large for float16")
            initializers.append(numpy_helper.from_array(half, f"{name}.half"))
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], name=name, to=TensorProto.FLOAT))
    nodes += small.graph.node
    del small.graph.initializer[:]
    del small.graph.node[:]
    small.graph.initializer.extend(initializers)
    small.graph.node.extend(nodes)
    onnx.checker.check_model(small, full_check=True)
    return small


def onnx_logits(model: onnx.ModelProto, features: Maps, batch: int = 256) -> NDArray[np.float32]:
    """Logits float32 [N, 7] of feature maps [N, 64, 17, 17] (float16 or float32), through ONNX Runtime."""
    session = runtime.session(model)
    parts = [
        session.run([OUTPUT], {"features": features[start : start + batch].astype(np.float32)})[0]
        for start in range(0, len(features), batch)
    ]
    return np.concatenate(parts)


def verify(
    model: onnx.ModelProto, branch: EmotionBranch, temperature: float, features: NDArray[np.float32]
) -> float:
    """Largest difference of a logit between ``branch`` and ``model`` on ``features``.

    Raises:
        ExportError: it is above ``TOLERANCE``.
    """
    branch.eval()
    with torch.inference_mode():
        expected = branch(torch.from_numpy(features)).numpy() / np.float32(temperature)
    difference = float(np.abs(onnx_logits(model, features) - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the ONNX graph's logits differ from PyTorch's by {difference:.2g}, allowed is {TOLERANCE:g}"
        )
    return difference


def _block(writer: GraphWriter, x: str, name: str, block: Block) -> str:
    """A residual block; returns its output."""
    main = writer.node("Relu", [_convolution(writer, x, f"{name}.a", block.a)], f"{name}.a.relu")
    main = _convolution(writer, main, f"{name}.b", block.b)
    if block.attention is not None:
        main = _attention(writer, main, f"{name}.attention", block.attention)
    skip = x
    if block.skip is not None:
        if block.stride == 2:
            skip = writer.node(
                "AveragePool",
                [skip],
                f"{name}.skip.pool",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                count_include_pad=0,
            )
        skip = _convolution(writer, skip, f"{name}.skip", block.skip)
    return writer.node("Relu", [writer.node("Add", [main, skip], f"{name}.sum")], f"{name}.out")


def _convolution(writer: GraphWriter, x: str, name: str, layer: Convolution) -> str:
    """A convolution and its norm; returns the norm's output."""
    size, stride, padding = layer.conv.kernel_size[0], layer.conv.stride[0], int(layer.conv.padding[0])
    out = writer.node(
        "Conv",
        [x, writer.constant(f"{name}.weight", _array(layer.conv.weight))],
        f"{name}.conv",
        kernel_shape=[size] * 2,
        strides=[stride] * 2,
        pads=[padding] * 4,
    )
    return _norm(writer, out, name, layer.norm)


def _attention(writer: GraphWriter, x: str, name: str, layer: Attention) -> str:
    """Squeeze-and-excitation with its two linear layers as 1x1 convolutions; returns the weighted map."""
    out = writer.node("GlobalAveragePool", [x], f"{name}.mean")
    for step, activation, linear in (("squeeze", "Relu", layer.squeeze), ("excite", "Sigmoid", layer.excite)):
        weight = writer.constant(f"{name}.{step}.weight", _array(linear.weight)[:, :, None, None])
        bias = writer.constant(f"{name}.{step}.bias", _array(linear.bias))
        out = writer.node("Conv", [out, weight, bias], f"{name}.{step}", kernel_shape=[1, 1])
        out = writer.node(activation, [out], f"{name}.{step}.{activation.lower()}")
    return writer.node("Mul", [x, out], f"{name}.weighted")


def _norm(writer: GraphWriter, x: str, layer: str, batch_norm: nn.BatchNorm2d) -> str:
    """A batch normalisation with its running moments, as named scale and shift."""
    assert batch_norm.running_mean is not None  # noqa: S101 - for the type checker
    assert batch_norm.running_var is not None  # noqa: S101
    scale = _array(batch_norm.weight) / np.sqrt(_array(batch_norm.running_var) + np.float32(batch_norm.eps))
    shift = _array(batch_norm.bias) - _array(batch_norm.running_mean) * scale
    return norm(writer, x, layer, scale, shift)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """A parameter as float32 array."""
    return np.array(tensor.detach().float().numpy(), np.float32)
