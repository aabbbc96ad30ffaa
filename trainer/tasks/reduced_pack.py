"""A pack whose face network ends in a shorter embedding: the network as it was, and two layers behind its embedding."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from engines.model import read_model
from engines.pack import FaceModel, Pack, file_digest
from engines.sources.storage import write_file
from trainer.backbones.export import EMBEDDING, EMOTION
from trainer.backbones.fold import folded
from trainer.common import packs, proof, runtime
from trainer.common.job import TrainingError
from trainer.tasks.verification import Judgement

_LONG = "embedding.long"
_CHIPS = 3  # of noise, on which an export is proved


def reduced_graph(model: onnx.ModelProto, first: nn.Module, second: nn.Module) -> onnx.ModelProto:
    """The face network with two layers behind its embedding, which keeps its place among the outputs.

    On a map of one cell a 1×1 convolution is a matrix product, and a norm with its moments a part of that. So the graph
    gets two products with a PReLU between them, and no norm parameters: it has those of the network as it was.

    Args:
        model: the face network.
        first: ``conv``, ``norm`` and ``act`` of 1×1 convolutions.
        second: ``conv`` and ``norm``.

    Raises:
        ValueError: the network has names that these layers need.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    if any(name == _LONG or name.startswith("reduce.") for name in taken):
        raise ValueError("the embedding of this network has been reduced before; reduce that of its source")
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_LONG if name == EMBEDDING else name for name in names]
        node.name = _LONG if node.name == EMBEDDING else node.name
    (one, addend), (two, last) = _product(first), _product(second)
    slope = _array(first.get_parameter("act.weight"))
    for name, value in (("first", one), ("first.bias", addend), ("slope", slope), ("second", two)):
        graph.initializer.append(numpy_helper.from_array(value, f"reduce.{name}.weight"))
    graph.initializer.append(numpy_helper.from_array(last, "reduce.second.bias.weight"))
    for operator, inputs, output, attributes in (
        ("Gemm", [_LONG, "reduce.first.weight", "reduce.first.bias.weight"], "reduce.first", {"transB": 1}),
        ("PRelu", ["reduce.first", "reduce.slope.weight"], "reduce.bent", {}),
        (
            "Gemm",
            ["reduce.bent", "reduce.second.weight", "reduce.second.bias.weight"],
            "reduce.second",
            {"transB": 1},
        ),
        ("ReduceL2", ["reduce.second"], "reduce.length", {"axes": [1], "keepdims": 1}),
        ("Div", ["reduce.second", "reduce.length"], EMBEDDING, {}),
    ):
        graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
    (place,) = (number for number, value in enumerate(graph.output) if value.name == EMBEDDING)
    graph.output[place].CopyFrom(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", len(two)]))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def write(target: Path, name: str, base: Pack, reducer: nn.Module, judgement: Judgement) -> None:
    """Write the face network with the shorter embedding, or a pack: the base with it.

    It has no norm bank and no steps of the threshold: both were made for the longer embedding.

    Args:
        target: a file ``.onnx``, or the folder of a pack; what is there is replaced once the new one is whole.
        name: of the pack.
        base: the teacher's.
        reducer: with the layers ``first`` and ``second``, in evaluation mode, on the processor.
        judgement: of the shorter embedding.

    Raises:
        TrainingError: the embedding has been reduced before.
        ExportError: the graph does not compute what PyTorch does, or the pack cannot be written.
    """
    first, second = reducer.get_submodule("first"), reducer.get_submodule("second")
    model = read_model(base.face)
    try:
        graph = reduced_graph(model, first, second)
    except ValueError as error:
        raise TrainingError(f"{base.path}: {error}") from error
    prove(graph, model, reducer)
    source = base.manifest.face

    def written(file: Path) -> FaceModel:
        write_file(file, graph.SerializeToString(deterministic=True))
        return msgspec.structs.replace(
            source,
            file=file.name,
            sha256=file_digest(file),
            dim=int(second.get_parameter("conv.weight").shape[0]),
            threshold=round(judgement.threshold, 4),
            threshold_basis=judgement.basis,
            source=f"{source.source}; embedding reduced from {source.dim} numbers by `python -m trainer reduce`",
            steps=(),
            steps_basis="",
        )

    packs.export(target, name, base, "face", written)


def prove(graph: onnx.ModelProto, model: onnx.ModelProto, reducer: nn.Module) -> None:
    """Raise ExportError unless the graph gives PyTorch's embeddings, and the network's own expressions, on noise."""
    side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    chips = np.random.default_rng(0).integers(0, 256, (_CHIPS, side, side, 3), np.uint8)
    long, emotion = runtime.answers(model, [EMBEDDING, EMOTION], {"chip": chips})
    with torch.inference_mode():
        expected: Tensor = functional.normalize(reducer(torch.from_numpy(long)), dim=1)
    proof.prove(graph, {"chip": chips}, {EMBEDDING: expected.numpy(), EMOTION: emotion})


def _product(layer: nn.Module) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight [outputs, inputs] and addend [outputs] of a layer's convolution and norm together."""
    affine = folded(layer)[1]["norm"]
    scale, shift = (each.detach().double().flatten() for each in (affine.scale, affine.shift))
    weight = layer.get_parameter("conv.weight").detach().cpu().double().flatten(1)
    return _array(scale[:, None] * weight), _array(shift)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().float().cpu().numpy(), np.float32)
