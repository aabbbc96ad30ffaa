"""dlib's face recognition ResNet as ONNX: 29 convolutions, 150×150 chip in, 128-d embedding out.

The wiring follows ``dnn_face_recognition_ex.cpp`` of dlib, which the author published with the weights. Three habits of
dlib differ from other frameworks and are kept here:

- a convolution or pooling with a stride above 1 has no padding;
- the skip path of a downsampling block is a 2×2 mean, and where the two paths differ in height, width or channels,
  the smaller is padded with zeros below, to the right and behind;
- the norm that batch normalisation became after training is ``x · scale + shift``.

The convolution's own bias is folded into the shift of the norm that follows it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.sources.dlib_format import Affine, Convolution, DlibFormatError, FullyConnected, Layer
from engines.sources.onnx_graph import GraphWriter, image_input, norm

SIDE = 150
EMBEDDING_DIM = 128
# Means of R, G and B, and the divisor, as in dlib's input_rgb_image_sized (input.h).
_MEAN_RGB = (122.782, 117.001, 104.298)
_DIVISOR = 256.0

FEATURES = "features"
"""The feature map that further heads may read: float32 [N, 64, 17, 17], after the last block of level 3."""


@dataclass(frozen=True)
class Block:
    """One residual block: its name, channels, and whether it halves the resolution."""

    name: str
    channels: int
    down: bool


BLOCKS: tuple[Block, ...] = tuple(
    Block(f"level{level}.{index}", channels, down=index == 0 and level != 4)
    for level, channels, count in ((4, 32, 3), (3, 64, 4), (2, 128, 3), (1, 256, 3), (0, 256, 1))
    for index in range(count)
)
_FEATURES_AFTER = "level3.3"


def face_network(layers: Sequence[Layer]) -> onnx.ModelProto:
    """The network as ONNX.

    Input ``chip``: uint8 BGR [N, 150, 150, 3]. Outputs: ``embedding`` float32 [N, 128] of length 1, and ``features``
    float32 [N, 64, 17, 17]. Norm parameters are initializers named ``norm.LAYER.scale`` and ``norm.LAYER.shift``; the
    first of them, ``input``, is the normalisation of the pixels.

    Raises:
        DlibFormatError: the layers are not those of this network.
    """
    writer = GraphWriter()
    source = iter(layers)
    x = image_input(writer, "chip")
    mean_bgr = np.array(_MEAN_RGB[::-1], np.float32)
    x = norm(writer, x, "input", np.full(3, 1 / _DIVISOR, np.float32), -mean_bgr / np.float32(_DIVISOR))
    x = _convolve(writer, source, x, "stem", flip_input_channels=True)
    x = writer.node("Relu", [x], "stem.relu")
    x = writer.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2])
    channels, side = 32, 35
    for block in BLOCKS:
        x, side = _residual(writer, source, x, block, channels, side)
        channels = block.channels
    pooled = writer.node("ReduceMean", [x], "pool", axes=[2, 3], keepdims=0)
    final = next(source, None)
    if not isinstance(final, FullyConnected) or final.weight.shape != (channels, EMBEDDING_DIM):
        raise DlibFormatError(f"expected a linear layer {channels}→{EMBEDDING_DIM} at the end")
    if next(source, None) is not None:
        raise DlibFormatError("more layers than this network has")
    raw = writer.node("MatMul", [pooled, writer.constant("embed.weight", final.weight)], "embed")
    length = writer.node("ReduceL2", [raw], "embed.length", axes=[1], keepdims=1)
    writer.node("Div", [raw, length], "embedding")
    return writer.model(
        "dlib_face_resnet",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", EMBEDDING_DIM]),
            helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", 64, 17, 17]),
        ],
    )


def _convolve(
    writer: GraphWriter, source: Iterator[Layer], x: str, name: str, flip_input_channels: bool = False
) -> str:
    """A convolution and the norm behind it, taken from ``source``."""
    convolution, affine = next(source, None), next(source, None)
    if not isinstance(convolution, Convolution) or not isinstance(affine, Affine):
        raise DlibFormatError(f"expected a convolution and an affine layer for {name}")
    weight = (
        convolution.weight[:, ::-1] if flip_input_channels else convolution.weight
    )  # trained on RGB, fed BGR
    out = writer.node(
        "Conv",
        [x, writer.constant(f"{name}.weight", weight)],
        f"{name}.conv",
        kernel_shape=list(weight.shape[2:]),
        strides=[convolution.stride] * 2,
        pads=[convolution.padding] * 4,
    )
    return norm(writer, out, name, affine.scale, affine.scale * convolution.bias + affine.shift)


def _residual(
    writer: GraphWriter, source: Iterator[Layer], x: str, block: Block, channels: int, side: int
) -> tuple[str, int]:
    """One residual block; returns its output and the output's side."""
    main = _convolve(writer, source, x, f"{block.name}.a")
    main = writer.node("Relu", [main], f"{block.name}.a.relu")
    main = _convolve(writer, source, main, f"{block.name}.b")
    skip = x
    if block.down:
        main_side, skip_side = (side - 3) // 2 + 1, (side - 2) // 2 + 1
        skip = writer.node("AveragePool", [x], f"{block.name}.skip", kernel_shape=[2, 2], strides=[2, 2])
        side = max(main_side, skip_side)
        skip = _pad(writer, skip, f"{block.name}.skip", block.channels - channels, side - skip_side)
        main = _pad(writer, main, f"{block.name}.b", 0, side - main_side)
    total = writer.node("Add", [main, skip], f"{block.name}.sum")
    output = FEATURES if block.name == _FEATURES_AFTER else f"{block.name}.out"
    return writer.node("Relu", [total], output), side


def _pad(writer: GraphWriter, x: str, name: str, channels: int, side: int) -> str:
    """Append zeros: ``channels`` of them behind, ``side`` rows below and columns to the right."""
    if not channels and not side:
        return x
    pads = writer.constant(f"{name}.pads", np.array([0, 0, 0, 0, 0, channels, side, side], np.int64))
    return writer.node("Pad", [x, pads], f"{name}.padded")
