"""A pack whose face network ends in a shorter embedding."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from engines.model import read_model
from engines.pack import MANIFEST, Manifest, Pack, encode_manifest, file_digest
from engines.sources.onnx_graph import GraphWriter, norm
from engines.sources.storage import locked, new_folder, write_file
from trainer.backbones.fold import folded
from trainer.common.job import TrainingError
from trainer.tasks.verification import Judgement

TOLERANCE = 1e-4
_OUTPUT = "embedding"
_LONG = "embedding.long"


def reduced_graph(model: onnx.ModelProto, first: nn.Module, second: nn.Module) -> onnx.ModelProto:
    """The face network with two layers behind its embedding; their norms are ``norm.reduce.first`` and ``.second``.

    Args:
        model: the face network.
        first: ``conv``, ``norm`` and ``act`` of 1×1 convolutions.
        second: ``conv`` and ``norm``.
    """
    writer = GraphWriter()
    for tensor in model.graph.initializer:
        writer.constant(tensor.name, numpy_helper.to_array(tensor))
    for node in model.graph.node:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.name = _LONG if node.name == _OUTPUT else node.name
        writer.copy(renamed, {_OUTPUT: _LONG})
    x = writer.node(
        "Unsqueeze", [_LONG, writer.constant("reduce.axes", np.array([2, 3], np.int64))], "reduce.map"
    )
    for name, layer in (("first", first), ("second", second)):
        weight = writer.constant(f"reduce.{name}.weight", _array(layer.get_parameter("conv.weight")))
        x = writer.node("Conv", [x, weight], f"reduce.{name}.conv", kernel_shape=[1, 1])
        affine = folded(layer)[1]["norm"]
        scale, shift = _array(affine.scale).reshape(-1), _array(affine.shift).reshape(-1)
        x = norm(writer, x, f"reduce.{name}", scale, shift)
        if name == "first":
            slope = _array(layer.get_parameter("act.weight")).reshape(-1, 1, 1)
            x = writer.node("PRelu", [x, writer.constant("reduce.first.slope", slope)], "reduce.first.act")
    x = writer.node("Flatten", [x], "reduce.flat", axis=1)
    length = writer.node("ReduceL2", [x], "reduce.length", axes=[1], keepdims=1)
    writer.node("Div", [x, length], _OUTPUT)
    dim = int(second.get_parameter("conv.weight").shape[0])
    outputs = [
        helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["N", dim])
        if value.name == _OUTPUT
        else value
        for value in model.graph.output
    ]
    return writer.model(model.graph.name, list(model.graph.input), outputs)


def write(target: Path, name: str, base: Pack, reducer: nn.Module, judgement: Judgement) -> None:
    """A pack in the folder ``target``: the base with the shorter embedding, without its norm bank.

    Args:
        target: its place; a pack that is there is replaced once the new one is whole.
        name: of the pack.
        base: the teacher's.
        reducer: with the layers ``first`` and ``second``, in evaluation mode, on the processor.
        judgement: of the shorter embedding.

    Raises:
        TrainingError: the graph does not compute what PyTorch does, or the pack cannot be written.
    """
    first, second = reducer.get_submodule("first"), reducer.get_submodule("second")
    model = read_model(base.face)
    graph = reduced_graph(model, first, second)
    _prove(graph, model, reducer, base.manifest.face.side)
    try:
        with locked(target.with_name(f".{target.name}.lock")), new_folder(target) as folder:
            write_file(folder / base.detector.name, base.detector.read_bytes())
            file = folder / base.face.name
            write_file(file, graph.SerializeToString(deterministic=True))
            face = msgspec.structs.replace(
                base.manifest.face,
                sha256=file_digest(file),
                dim=int(second.get_parameter("conv.weight").shape[0]),
                threshold=round(judgement.threshold, 4),
                threshold_basis=judgement.basis,
                source=f"{base.manifest.face.source}; embedding reduced by `python -m trainer reduce`",
                steps=(),
                steps_basis="",
            )
            manifest = Manifest(
                schema=base.manifest.schema, name=name, detector=base.manifest.detector, face=face
            )
            write_file(folder / MANIFEST, encode_manifest(manifest))
    except OSError as error:
        raise TrainingError(f"{error.filename or target}: {error.strerror}; choose another folder") from error


def _prove(graph: onnx.ModelProto, model: onnx.ModelProto, reducer: nn.Module, side: int) -> None:
    """Raise TrainingError if the two differ on noise."""
    chips = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    long, short = (_run(each, chips) for each in (model, graph))
    with torch.inference_mode():
        expected: Tensor = functional.normalize(reducer(torch.from_numpy(long)), dim=1)
    difference = float(np.abs(short - expected.numpy()).max())
    if not difference <= TOLERANCE:
        raise TrainingError(f"the exported embedding differs from PyTorch's by {difference:.2g}")


def _run(model: onnx.ModelProto, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([_OUTPUT], {"chip": chips})[0], np.float32)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().float().cpu().numpy(), np.float32)
