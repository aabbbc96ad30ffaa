"""Read the learned parameters of a network from dlib's serialisation format.

Source of the format: dlib's ``serialize.h``, ``dnn/layers.h`` and ``cuda/tensor`` as published. What matters of it:

- An integer is one control byte (low nibble: how many bytes follow; top bit: negative), then little-endian bytes.
- A string is its length as such an integer, then its bytes. Each layer begins with its type as a string.
- A tensor is a version, four dimensions, then raw little-endian float32.
- Layers stand in the order from input to output.

Layers without parameters carry no weights, so the reader steps from one parameterised layer to the next and leaves
the wiring of the network to the caller, who knows it.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_LAYER = re.compile(rb"\x01(?P<length>[\x04-\x07])(?P<tag>con_4|affine_|fc_2)")
_TENSOR_VERSION = 2


class DlibFormatError(ValueError):
    """The bytes are not a serialised dlib network that this reader understands."""


@dataclass(frozen=True)
class Convolution:
    """A convolution: ``weight`` is float32 [out, in, height, width], ``bias`` float32 [out]."""

    weight: Float32
    bias: Float32
    stride: int
    padding: int


@dataclass(frozen=True)
class Affine:
    """Per-channel ``scale`` and ``shift``, float32 [channels]: what dlib makes of a batch norm after training."""

    scale: Float32
    shift: Float32


@dataclass(frozen=True)
class FullyConnected:
    """A linear map without bias: ``weight`` is float32 [in, out]."""

    weight: Float32


Layer = Convolution | Affine | FullyConnected


@dataclass
class _Reader:
    data: bytes
    at: int

    def integer(self) -> int:
        if self.at >= len(self.data):
            raise DlibFormatError(f"file ends at byte {self.at} where an integer should be")
        control = self.data[self.at]
        count = control & 0x0F
        body = self.data[self.at + 1 : self.at + 1 + count]
        if not 1 <= count <= 8 or len(body) != count:
            raise DlibFormatError(f"byte {self.at} does not begin an integer")
        self.at += 1 + count
        value = int.from_bytes(body, "little")
        return -value if control & 0x80 else value

    def tensor(self) -> Float32:
        """One tensor, flat."""
        start = self.at
        version = self.integer()
        dims = [self.integer() for _ in range(4)]
        if version != _TENSOR_VERSION or min(dims) < 1:
            raise DlibFormatError(
                f"byte {start} does not begin a tensor (version {version}, dimensions {dims})"
            )
        size = dims[0] * dims[1] * dims[2] * dims[3]
        end = self.at + 4 * size
        if end > len(self.data):
            raise DlibFormatError(f"tensor of {size} floats at byte {start} runs past the end of the file")
        values = np.frombuffer(self.data, "<f4", size, self.at).astype(np.float32)
        self.at = end
        return values


def read_layers(data: bytes) -> list[Layer]:
    """The parameterised layers of a serialised network, in order from input to output.

    Raises:
        DlibFormatError: a layer's header contradicts the size of its tensor, the file ends early, or no layer is found.
    """
    layers: list[Layer] = []
    reader = _Reader(data, 0)
    while match := _LAYER.search(data, reader.at):
        tag = match["tag"]
        reader.at = match.end()
        if match["length"][0] != len(tag):
            continue
        if tag == b"con_4":
            layers.append(_convolution(reader))
        elif tag == b"affine_":
            layers.append(_affine(reader))
        else:
            layers.append(_fully_connected(reader))
    if not layers:
        raise DlibFormatError("no layer with parameters found: not a serialised dlib network")
    return layers


def _convolution(reader: _Reader) -> Convolution:
    params = reader.tensor()
    filters, height, width, stride_y, stride_x, padding_y, padding_x = (reader.integer() for _ in range(7))
    if (height, stride_y, padding_y) != (width, stride_x, padding_x):
        raise DlibFormatError("convolution is not square; this reader does not support that")
    if filters < 1 or height < 1:
        raise DlibFormatError(f"convolution with {filters} filters of side {height}")
    channels, rest = divmod(params.size - filters, filters * height * width)
    if rest or channels < 1:
        raise DlibFormatError(
            f"convolution of {filters} filters {height}×{width} cannot hold {params.size} floats"
        )
    weight = params[:-filters].reshape(filters, channels, height, width)
    return Convolution(weight, params[-filters:], stride_y, padding_y)


def _affine(reader: _Reader) -> Affine:
    params = reader.tensor()
    if params.size % 2:
        raise DlibFormatError(f"affine layer with an odd number of floats ({params.size})")
    scale, shift = params.reshape(2, -1)
    return Affine(scale, shift)


def _fully_connected(reader: _Reader) -> FullyConnected:
    outputs, inputs = reader.integer(), reader.integer()
    params = reader.tensor()
    if outputs < 1 or inputs < 1 or params.size != inputs * outputs:
        raise DlibFormatError(f"linear layer {inputs}→{outputs} cannot hold {params.size} floats")
    return FullyConnected(params.reshape(inputs, outputs))
