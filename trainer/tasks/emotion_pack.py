"""A face network whose expressions come from a network of their own, beside the one that tells people apart."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from calibration.fer2013 import LABELS
from engines.model import drop_unused
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import FaceModel, Pack, file_digest
from engines.sources.storage import write_file
from trainer.backbones import Backbone
from trainer.backbones.export import EMBEDDING, EMOTION, face_graph
from trainer.backbones.heads import ExpressionHead
from trainer.backbones.interface import BackboneError
from trainer.common import packs, proof, runtime
from trainer.common.proof import ExportError
from trainer.data.reading import Source

_CHIP = "chip"
_NORM = "norm."
_PIXELS = f"{_NORM}{EMOTION}.input.scale"
_HALF_RANGE = 127.5
_APART = "; expressions: "  # in a manifest, between what is said of the base and of the network beside it
_BATCHES = (1, 3)  # of the chips of noise on which an export is proved


@dataclass(frozen=True)
class Expressions:
    """A trained network for expressions, on the processor, in evaluation mode.

    Attributes:
        backbone: reads pictures.
        head: reads its map.
        temperature: divides the logits (Guo et al. 2017).
    """

    backbone: Backbone
    head: ExpressionHead
    temperature: float

    def graph(self) -> onnx.ModelProto:
        """As ONNX: ``chip`` to ``emotion``, as ``trainer.backbones.export`` writes it."""
        head = copy.deepcopy(self.head)
        with torch.no_grad():
            head.linear.weight.div_(self.temperature)
            head.linear.bias.div_(self.temperature)
        return only(face_graph(self.backbone, {EMOTION: head}), EMOTION)

    def logits(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What PyTorch makes of chips uint8 BGR [n, side, side, 3] of any side: float32 [n, labels]."""
        planes = torch.from_numpy(np.ascontiguousarray(chips[..., ::-1])).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            if planes.shape[-1] != self.backbone.side:
                size = (self.backbone.side, self.backbone.side)
                planes = functional.interpolate(planes, size, mode="bilinear", antialias=True)
            images = planes / _HALF_RANGE - 1
            found: Tensor = self.head(self.backbone(images).map) / self.temperature
        return found.numpy()


def only(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """A copy of a model with one of its outputs, and what that depends on.

    Raises:
        BackboneError: it has no such output.
    """
    part = onnx.ModelProto()
    part.CopyFrom(model)
    kept = [value for value in model.graph.output if value.name == output]
    if not kept:
        raise BackboneError(f"{model.graph.name} has no output {output}: it is no face network of a pack")
    del part.graph.output[:]
    part.graph.output.extend(kept)
    drop_unused(part.graph)
    return part


def beside(base: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """A face network with the embedding of one and the expressions of another; both read the chip.

    Nothing that the embedding depends on is touched. What is the other network's gets the names ``emotion.NAME``, its
    norm layers ``norm.emotion.LAYER``, which are those of the branch that they replace. A chip of another side than its
    own it reads through two matrix products, see ``_read_resized``.

    Args:
        base: a pack's face network.
        network: ``chip`` to ``emotion``, as ``Expressions.graph`` makes it.

    Raises:
        BackboneError: ``base`` is no face network, is of another operator set, or has names that the other needs.
    """
    joined = only(base, EMBEDDING)
    sets, own_sets = ({each.domain: each.version for each in model.opset_import} for model in (base, network))
    if sets.get("") != own_sets[""]:
        raise BackboneError(
            f"{base.graph.name} is of ONNX' operator set {sets.get('')}, the expressions of {own_sets['']}; convert it"
        )
    graph, own = joined.graph, network.graph
    side, needed = (each.input[0].type.tensor_type.shape.dim[1].dim_value for each in (graph, own))
    names = {_CHIP: _CHIP, EMOTION: EMOTION, "": ""}
    for name in [*(t.name for t in own.initializer), *(n for node in own.node for n in node.output)]:
        named = (
            f"{_NORM}{EMOTION}.{name.removeprefix(_NORM)}" if name.startswith(_NORM) else f"{EMOTION}.{name}"
        )
        names.setdefault(name, named)
    taken = {t.name for t in graph.initializer} | {n for node in graph.node for n in node.output}
    if twice := taken & (set(names.values()) - {_CHIP, ""}):
        raise BackboneError(
            f"{base.graph.name} has a {min(twice)} already that its embedding needs; choose another pack"
        )
    for tensor in own.initializer:
        added = graph.initializer.add()
        added.CopyFrom(tensor)
        added.name = names[tensor.name]
    for node in own.node:
        added = graph.node.add()
        added.CopyFrom(node)
        added.input[:] = [names[name] for name in node.input]
        added.output[:] = [names[name] for name in node.output]
        added.name = added.output[0]
    if side != needed:
        _read_resized(graph, side, needed)
    graph.output.append(helper.make_tensor_value_info(EMOTION, TensorProto.FLOAT, ["N", len(LABELS)]))
    graph.name = "face"
    onnx.checker.check_model(joined, full_check=True)
    return joined


def prove(graph: onnx.ModelProto, base: onnx.ModelProto, expressions: Expressions) -> float:
    """Largest difference of a logit between ``graph`` and PyTorch, on chips of noise.

    Raises:
        ExportError: it is above ``proof.TOLERANCE``, or an embedding is not that of ``base`` to the bit.
    """
    rng = np.random.default_rng(0)
    side = base.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    worst = 0.0
    for count in _BATCHES:
        chips = rng.integers(0, 256, (count, side, side, 3), np.uint8)
        embedding, before = (runtime.answers(each, [EMBEDDING], {_CHIP: chips})[0] for each in (graph, base))
        if not np.array_equal(embedding, before):
            raise ExportError("the exported embedding is not the one that it was")
        worst = max(worst, proof.prove(graph, {_CHIP: chips}, {EMOTION: expressions.logits(chips)}))
    return worst


def logits_through(
    graph: onnx.ModelProto, faces: Source, advance: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """What an exported network says of pictures: logits float32 [n, labels].

    Only what they depend on is run, in the agent's engine and, as there, for one face after the other.

    Args:
        graph: of the face network.
        faces: in the size of its chip.
        advance: told how many more are done, and of how many.
    """
    engine = OnnxRuntimeEngine(only(graph, EMOTION), SessionSettings(threads=1, dims={"N": 1}))
    found = []
    for item in range(len(faces.labels)):
        chip = np.ascontiguousarray(faces.read(item)[None, ..., ::-1])
        found.append(engine.run({_CHIP: chip})[EMOTION][0].copy())
        advance(1, len(faces.labels))
    engine.close()
    return np.stack(found)


def write(target: Path, name: str, base: Pack, graph: onnx.ModelProto, *, licence: str, source: str) -> None:
    """Write the face network alone, or a pack that is ``base`` with it.

    The threshold stays, for the embedding does. The norm bank does not: it was made for the other expressions.

    Args:
        target: a file ``.onnx``, or the folder of a pack; what is there is replaced once the new one is whole.
        name: of the pack.
        base: verified.
        graph: proved.
        licence: of the expressions' weights.
        source: what they were trained by and on.

    Raises:
        ExportError: it cannot be written.
    """
    was = base.manifest.face

    def written(file: Path) -> FaceModel:
        write_file(file, graph.SerializeToString(deterministic=True))
        return msgspec.structs.replace(
            was,
            file=file.name,
            sha256=file_digest(file),
            licence=f"{was.licence.partition(_APART)[0]}{_APART}{licence}",
            source=f"{was.source.partition(_APART)[0]}{_APART}{source}",
            labels=LABELS,
        )

    packs.export(target, name, base, "face", written)


def _read_resized(graph: onnx.GraphProto, side: int, needed: int) -> None:
    """Let the expressions' network read its chip, float32 planes [N, 3, side, side], in the size that it needs.

    The weights of PyTorch's bilinear resize with antialiasing are fixed, so it is rows · planes · columns. No backend
    has that resize, and all of them have products.
    """
    rows = functional.interpolate(
        torch.eye(side)[None, None], (needed, side), mode="bilinear", antialias=True
    )[0, 0]
    (place,) = (number for number, node in enumerate(graph.node) if _PIXELS in node.input)
    first = graph.node[place]
    (planes,) = (name for name in first.input if name != _PIXELS)
    weights = {f"{EMOTION}.resize.rows": rows, f"{EMOTION}.resize.columns": rows.T}
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value.numpy()), name) for name, value in weights.items()
    )
    lower, smaller = f"{EMOTION}.resize.lower", f"{EMOTION}.resize.smaller"
    graph.node.insert(
        place, helper.make_node("MatMul", [f"{EMOTION}.resize.rows", planes], [lower], name=lower)
    )
    graph.node.insert(
        place + 1, helper.make_node("MatMul", [lower, f"{EMOTION}.resize.columns"], [smaller], name=smaller)
    )
    first.input[:] = [smaller if name == planes else name for name in first.input]
