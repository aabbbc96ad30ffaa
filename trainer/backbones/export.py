"""A trained backbone and its heads as the face network of a pack: ONNX with named norm parameters.

PyTorch's own exporter writes the nodes: its older one, by tracing, for that one writes operator set 17, needs no other
package, and names weights as the module does. What a pack wants besides is put right in its graph.
"""

import warnings
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from engines.model import drop_unused
from engines.norms import read_norms, write_norms
from engines.sources.onnx_graph import IR_VERSION, OPSET
from trainer.backbones.fold import Affine, folded
from trainer.backbones.heads import read, unit
from trainer.backbones.interface import Backbone, BackboneError
from trainer.common.proof import prove

EMBEDDING = "embedding"
EMOTION = "emotion"

_PIXELS = "input"  # the norm layer that brings pixels to -1..1
_HALF_RANGE = 127.5
_TRACED = 2  # pictures; with one alone the exporter would take the batch for a constant


def face_graph(backbone: Backbone, heads: Mapping[str, nn.Module]) -> onnx.ModelProto:
    """The face network: backbone and heads as ONNX.

    Input ``chip``: uint8 BGR [N, side, side, 3]. Outputs: ``embedding`` float32 [N, dim] of length 1, and one for each
    other head under its name. Norm layers are initializers ``norm.LAYER.scale`` and ``norm.LAYER.shift``, read by a Mul
    and an Add; LAYER is the backbone's own name for it, or HEAD.NAME in a head, and the first, ``input``, is the
    normalisation of the pixels. Dropout and the like are off; ``backbone`` and ``heads`` stay as they are.

    Args:
        backbone: trained.
        heads: by the names of their outputs. ``embedding`` gives what is brought to length 1; without it that is the
            summary.

    Raises:
        BackboneError: the network has something that a face network cannot have.
    """
    network = _FaceNetwork(backbone, heads)
    names = [EMBEDDING, *(name for name in heads if name != EMBEDDING)]
    learnt = network.norm_parameters()
    network.mark_norms()
    graph = _exported(network, backbone.side, names)
    _describe(graph, names, network.sizes())
    _tidy(graph)
    _scale_plainly(graph)
    _rename_norms(graph, network.norm_names())
    _read_bgr(graph)
    model = _model(graph)
    lost = set(learnt) - set(read_norms(model))
    if lost:
        raise BackboneError(f"the norm parameters {', '.join(sorted(lost)[:3])} were lost on the way to ONNX")
    model = write_norms(model, learnt)
    onnx.checker.check_model(model, full_check=True)
    return model


def norm_parameters(backbone: Backbone, heads: Mapping[str, nn.Module]) -> dict[str, NDArray[np.float32]]:
    """The norm parameters that ``face_graph`` gives to this network, as ``engines.norms.read_norms`` names them.

    An engine of the same network with other norms takes them as they are.
    """
    return _FaceNetwork(backbone, heads).norm_parameters()


def answers(
    backbone: Backbone, heads: Mapping[str, nn.Module], chips: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """What PyTorch makes of chips uint8 BGR [n, side, side, 3], by the names of the graph's outputs."""
    layers = [layer for module in (backbone, *heads.values()) for layer in module.modules()]
    training = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = False
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(chips[..., ::-1])).permute(0, 3, 1, 2)
            images = pixels.to(next(backbone.parameters()).device).float() / _HALF_RANGE - 1
            outputs = _outputs(backbone, heads, images)
            return {name: np.array(value.cpu().numpy(), np.float32) for name, value in outputs.items()}
    finally:
        for layer, was in zip(layers, training, strict=True):
            layer.training = was


def verify(
    model: onnx.ModelProto, backbone: Backbone, heads: Mapping[str, nn.Module], chips: NDArray[np.uint8]
) -> float:
    """Largest difference of an output between ``model`` in ONNX Runtime and PyTorch on ``chips``.

    Raises:
        ExportError: it is above ``TOLERANCE``, or not finite.
    """
    return prove(model, {"chip": chips}, answers(backbone, heads, chips))


def _outputs(backbone: nn.Module, heads: Mapping[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    """The outputs of the face network for float32 [n, 3, side, side]; the embedding first."""
    features = backbone(images)
    whole = read(heads[EMBEDDING], features) if EMBEDDING in heads else features.summary
    rest = {name: read(head, features) for name, head in heads.items() if name != EMBEDDING}
    return {EMBEDDING: unit(whole), **rest}


class _FaceNetwork(nn.Module):
    """From chips to outputs, norm layers folded. The channels come as BGR; ``_read_bgr`` puts that right."""

    def __init__(self, backbone: Backbone, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._side = backbone.side
        self.input = Affine(torch.full((3,), 1 / _HALF_RANGE), torch.full((3,), -1.0))
        self._affines: dict[str, Affine] = {_PIXELS: self.input}
        self.backbone, affines = folded(backbone)
        self._affines |= affines
        turned = {}
        for name, head in heads.items():
            if not name.isidentifier():
                raise BackboneError(f"a head cannot be called {name!r}; use letters, digits and _")
            turned[name], affines = folded(head)
            self._affines |= {f"{name}.{layer}": affine for layer, affine in affines.items()}
        self.heads = nn.ModuleDict(turned)

    def forward(self, chips: Tensor) -> tuple[Tensor, ...]:
        """Outputs for uint8 BGR [n, side, side, 3], as ``face_graph`` orders them."""
        images = self.input(chips.permute(0, 3, 1, 2).float())
        return tuple(_outputs(self.backbone, dict(self.heads.items()), images).values())

    def norm_names(self) -> dict[str, str]:
        """The name of each norm parameter in this module, and in a pack's graph."""
        inside = {id(parameter): name for name, parameter in self.named_parameters()}
        return {
            inside[id(getattr(affine, kind))]: f"norm.{layer}.{kind}"
            for layer, affine in self._affines.items()
            for kind in ("scale", "shift")
        }

    def norm_parameters(self) -> dict[str, NDArray[np.float32]]:
        """The norm parameters by their names in a pack's graph; copies."""
        return {
            f"norm.{layer}.{kind}": parameter.detach().cpu().reshape(-1).numpy().copy()
            for layer, affine in self._affines.items()
            for kind, parameter in (("scale", affine.scale), ("shift", affine.shift))
        }

    @torch.no_grad()
    def mark_norms(self) -> None:
        """Make each norm parameter a number of its own.

        The exporter makes one of weights that are alike, as those of norm layers are before training.
        """
        for number, affine in enumerate(self._affines.values()):
            affine.scale.fill_(2 * number + 3)
            affine.shift.fill_(2 * number + 4)

    def sizes(self) -> list[int]:
        """Length of each output."""
        with torch.no_grad():
            chips = torch.zeros(1, self._side, self._side, 3, dtype=torch.uint8)
            return [int(value.shape[1]) for value in self(chips)]


def _exported(network: _FaceNetwork, side: int, names: list[str]) -> onnx.GraphProto:
    """What PyTorch's exporter makes of the network."""
    chips = torch.zeros(_TRACED, side, side, 3, dtype=torch.uint8)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = str(Path(folder) / "face.onnx")
        warnings.simplefilter("ignore")  # of its age, and of shapes that a trace takes for constant: they are
        torch.onnx.export(
            network.eval(),
            (chips,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["chip"],
            output_names=names,
            dynamic_axes={name: {0: "N"} for name in ("chip", *names)},
        )
        return onnx.load(file).graph


def _tidy(graph: onnx.GraphProto) -> None:
    """Constants become initializers, what only renames is left out, and names are those of modules with dots."""
    fixed = {value.name for value in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    names = {name: name for name in fixed}
    taken = set(fixed)
    nodes = []
    for node in graph.node:
        if node.op_type == "Identity" and node.output[0] not in fixed:
            names[node.output[0]] = names[node.input[0]]
            continue
        for output in node.output:
            if output not in names:
                names[output] = _plain(output, taken)
                taken.add(names[output])
        result = names[node.output[0]]
        if node.op_type == "Constant":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = result
            continue
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.name = result
        nodes.append(node)
    graph.ClearField("node")
    graph.node.extend(nodes)
    drop_unused(graph)


def _plain(name: str, taken: set[str]) -> str:
    """``/stem/conv/Conv_output_0`` as ``stem.conv.Conv``, with a number behind where that is taken."""
    plain = name.strip("/").removesuffix("_output_0").replace("/", ".").replace("::", ".")
    return next(
        each for each in chain([plain], (f"{plain}.{number}" for number in count(1))) if each not in taken
    )


def _scale_plainly(graph: onnx.GraphProto) -> None:
    """Maps are enlarged by a factor that stands in the graph, not to a size that is worked out as it runs."""
    sized = [node for node in graph.node if node.op_type == "Resize" and len(node.input) == 4]
    if not sized:
        return
    typed = onnx.shape_inference.infer_shapes(_model(graph)).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in typed.value_info
    }
    for node in sized:
        before, after = (shapes.get(name, [0] * 4)[2:] for name in (node.input[0], node.output[0]))
        if not all((*before, *after)):
            continue  # a side that is not known: what computes the size stays
        factors = np.divide(after, before, dtype=np.float32)
        # The new side is the product, in float32, rounded down: a factor a little too small would lose a row.
        short = np.floor(factors * np.array(before, np.float32)) < after
        factors = np.where(short, np.nextafter(factors, np.float32(np.inf)), factors)
        name = f"{node.name}.scales"
        scales = np.array([1, 1, *factors], np.float32)
        graph.initializer.append(numpy_helper.from_array(scales, name))
        node.input[:] = [node.input[0], "", name]
    drop_unused(graph)


def _rename_norms(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give norm parameters the names that ``engines.norms`` looks for."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _read_bgr(graph: onnx.GraphProto) -> None:
    """Let the first convolution, trained on RGB, read BGR: nothing is turned round while the network runs.

    Raises:
        BackboneError: something else than a convolution, or a padding before it, reads the picture.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input if node.op_type != "Shape" else ():  # who asks for the size sees no colour
            readers.setdefault(name, []).append(node)
    found = readers[readers[f"norm.{_PIXELS}.shift"][0].output[0]]
    while [node.op_type for node in found] == ["Pad"]:
        found = readers[found[0].output[0]]
    kinds = {node.op_type for node in found}
    weights = {node.input[1] for node in found if node.op_type == "Conv"}
    if kinds != {"Conv"} or sum(len(readers[name]) for name in weights) != len(found):
        raise BackboneError(
            f"the picture is read by {', '.join(sorted(kinds))}; the first layer of a face network is a convolution"
        )
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name in weights:
        weight = numpy_helper.to_array(tensors[name])
        if weight.shape[1] != 3:
            raise BackboneError(
                f"the first convolution {name} reads {weight.shape[1]} channels at once, not 3"
            )
        tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight[:, ::-1]), name))


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of ``graph``, as the packs' networks are."""
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cabinsense",
    )


def _describe(graph: onnx.GraphProto, names: list[str], sizes: list[int]) -> None:
    """Name the graph, and say the shapes of its outputs, where the exporter leaves some open."""
    graph.name = "face"
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in zip(names, sizes, strict=True)
    )
