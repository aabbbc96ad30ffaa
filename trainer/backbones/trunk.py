"""The lower layers of a finished face network, and upper ones that are to be learnt: ``trunk:PACK``.

What the first layers of a network see is the same for every task, and takes the longest to learn. A student that begins
with its teacher's own begins where the teacher's eyes end. The layers of the trunk are learnt further like all others.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from engines import pack
from engines.norms import is_norm
from trainer.backbones.interface import Backbone, BackboneError, Features
from trainer.backbones.layers import GlobalDepthwise, KeptNorm, halved, initialise, rounded
from trainer.backbones.resnet import Unit
from trainer.features import FEATURES, TrunkError, cut

_UNITS = ((128, 2), (128, 1), (160, 2))  # channels and stride of the residual units behind the trunk
_DIVISOR = 8
_PIXELS = "norm.input."
_HALF_RANGE = 127.5

_Fixed = Sequence[NDArray[Any]]


class Trunk(nn.Module):
    """A face network's layers from its normalised pixels to its feature map, as a pack's graph has them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take over the weights of ``model``, which ends in the map; pixels are then RGB in -1..1.

        Raises:
            BackboneError: it has something that is not known here.
        """
        super().__init__()
        graph = model.graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.layers = nn.ModuleDict()
        self._steps: list[tuple[str, tuple[str, ...], str]] = []
        self._pixels, nodes = _behind_pixels(graph)
        self._result = graph.output[0].name
        factors: dict[
            str, tuple[str, str]
        ] = {}  # product of a norm layer: what the layer read, and its factor
        for node in nodes:
            (result,) = node.output
            reads = tuple(name for name in node.input if name not in constants)
            fixed = [name for name in node.input if name in constants]
            if fixed and is_norm(fixed[0]) and node.op_type == "Mul":
                factors[result] = reads[0], fixed[0]
                continue
            if fixed and is_norm(fixed[0]) and node.op_type == "Add":
                source, factor = factors[reads[0]]
                layer: nn.Module = KeptNorm(
                    *(_tensor(constants[name]).reshape(-1) for name in (factor, fixed[0]))
                )
                reads = (source,)
            else:
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                build = _LAYERS.get(node.op_type)
                if build is None:
                    raise BackboneError(
                        f"{graph.name}: the operator {node.op_type} before {FEATURES} cannot be learnt further"
                    )
                layer = build([constants[name] for name in fixed], attributes)
            if reads == (self._pixels,):
                layer = _reading_rgb(
                    layer, *(_tensor(constants[f"{_PIXELS}{kind}"]) for kind in ("scale", "shift"))
                )
            name = result.replace(".", "_")
            self.layers[name] = layer
            self._steps.append((name, reads, result))

    def forward(self, images: Tensor) -> Tensor:
        """The map float32 [n, channels, h, w] of images, float32 RGB [n, 3, side, side] in -1..1."""
        values = {self._pixels: images}
        for name, reads, result in self._steps:
            values[result] = self.layers[name](*(values[each] for each in reads))
        return values[self._result]


class TrunkBackbone(Backbone):
    """A pack's trunk, and residual units behind it."""

    def __init__(self, source: str, side: int, dim: int, width: float) -> None:
        """Make one: the trunk with the pack's weights, the rest with random ones.

        Args:
            source: folder of a pack, or its face network's file.
            side: of the pictures in pixels.
            dim: length of the summary.
            width: factor of the channels behind the trunk.

        Raises:
            BackboneError: there is no such trunk, or it does not take such pictures.
        """
        trunk = Trunk(_trunk_of(Path(source).expanduser()))
        try:
            with torch.no_grad():
                found = trunk(torch.zeros(1, 3, side, side))
        except RuntimeError as error:
            raise BackboneError(
                f"the trunk of {source} does not take pictures of {side}×{side}; set side to the pack's"
            ) from error
        stages = [(rounded(channels * width, _DIVISOR), stride) for channels, stride in _UNITS]
        super().__init__(side, dim, stages[-1][0])
        units, channels = [], int(found.shape[1])
        for outputs, stride in stages:
            units.append(Unit(channels, outputs, stride))
            channels = outputs
        self.units = nn.Sequential(*units)
        self.last = nn.BatchNorm2d(channels)
        self.head = GlobalDepthwise(channels, halved(int(found.shape[2]), 2), dim)
        initialise(self)
        self.trunk = trunk  # behind ``initialise``: its weights are there already

    def forward(self, images: Tensor) -> Features:
        """See ``Backbone.forward``."""
        found: Tensor = self.last(self.units(self.trunk(images)))
        return Features(found, self.head(found))


def _trunk_of(path: Path) -> onnx.ModelProto:
    """The graph of a pack's face network as far as its feature map."""
    try:
        file = pack.verify(path).face if path.is_dir() else path
        return cut(onnx.load(str(file)), FEATURES)
    except (pack.PackError, TrunkError) as error:
        raise BackboneError(f"trunk:{path}: {error}") from error
    except Exception as error:  # protobuf's DecodeError is not part of onnx's interface
        raise BackboneError(f"trunk:{path} is no pack and no ONNX file ({error})") from error


def _behind_pixels(graph: onnx.GraphProto) -> tuple[str, list[onnx.NodeProto]]:
    """The name of the normalised pixels, and the nodes behind them."""
    nodes = list(graph.node)
    for place, node in enumerate(nodes):
        if node.op_type == "Add" and f"{_PIXELS}shift" in node.input:
            return node.output[0], nodes[place + 1 :]
    raise BackboneError(f"{graph.name} has no {_PIXELS}shift: it is no face network of a pack")


def _reading_rgb(layer: nn.Module, scale: Tensor, shift: Tensor) -> nn.Module:
    """The first convolution for RGB in -1..1, where it has read BGR in 0..255, times ``scale``, plus ``shift``."""
    if not isinstance(layer, nn.Conv2d) or any(layer.padding):
        raise BackboneError(
            "the pixels are not read by a convolution without padding: this cannot be learnt further"
        )
    scale, shift = (each.reshape(1, -1, 1, 1) for each in (scale, shift))
    with torch.no_grad():
        # (pixel · scale + shift) with pixel = (image + 1) · 127.5
        addend = (layer.weight * (_HALF_RANGE * scale + shift)).sum((1, 2, 3))
        bias = addend if layer.bias is None else layer.bias + addend
        layer.bias = nn.Parameter(bias.clone())
        layer.weight.copy_((layer.weight * _HALF_RANGE * scale).flip(1))
    return layer


class _Pad(nn.Module):
    """Zeros around, channels included."""

    def __init__(self, pads: Sequence[int]) -> None:
        super().__init__()
        rank = len(pads) // 2
        self._pads = [int(each) for axis in reversed(range(rank)) for each in (pads[axis], pads[axis + rank])]

    def forward(self, x: Tensor) -> Tensor:
        """Float32 to a larger one."""
        return functional.pad(x, self._pads)


class _Sum(nn.Module):
    """Of two maps."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two of one shape to their sum."""
        return a + b


def _convolution(fixed: _Fixed, attributes: dict[str, Any]) -> nn.Module:
    weight = _tensor(fixed[0])
    groups = attributes.get("group", 1)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        tuple(attributes.get("strides", (1, 1))),
        _padding(attributes),
        groups=groups,
        bias=len(fixed) > 1,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(_tensor(fixed[1]))
    return layer


def _max_pool(_fixed: _Fixed, attributes: dict[str, Any]) -> nn.Module:
    kernel, stride = tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1)))
    return nn.MaxPool2d(kernel, stride, _padding(attributes))


def _average_pool(_fixed: _Fixed, attributes: dict[str, Any]) -> nn.Module:
    kernel, stride = tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1)))
    inside = bool(attributes.get("count_include_pad", 0))
    return nn.AvgPool2d(kernel, stride, _padding(attributes), count_include_pad=inside)


def _padding(attributes: dict[str, Any]) -> tuple[int, int]:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise BackboneError("a trunk whose layers pad one side more than the other cannot be learnt further")
    return int(top), int(left)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.copy())


_LAYERS: dict[str, Callable[[_Fixed, dict[str, Any]], nn.Module]] = {
    "Conv": _convolution,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "Pad": lambda fixed, _: _Pad(fixed[0].tolist()),
    "Add": lambda *_: _Sum(),
    "Relu": lambda *_: nn.ReLU(),
}
