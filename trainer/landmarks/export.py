"""A trained landmark network as ONNX, proved against PyTorch."""

import copy
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.pack import LandmarkModel, file_digest
from engines.sources.onnx_graph import IR_VERSION, OPSET
from engines.sources.storage import write_file
from trainer.common import proof, runtime
from trainer.landmarks.network import LandmarkNet

_POINTS = "points"
_HALF_RANGE = 127.5
_TRACED = 2  # chips; with one alone the exporter would take the batch for a constant
_BATCHES = (1, 3)  # of the chips on which an export is proved


class _Chips(nn.Module):
    """From uint8 BGR [n, side, side, 3] to points; the first convolution is turned round to read BGR."""

    def __init__(self, network: LandmarkNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        first = next(self.network.parameters())  # the weight of the first convolution, [channels, 3, 3, 3]
        first.data = first.data.flip(1)

    def forward(self, chips: Tensor) -> Tensor:
        """Points, float32 [n, 10]."""
        images = chips.permute(0, 3, 1, 2).float() * (1 / _HALF_RANGE) - 1
        out: Tensor = self.network(images)
        return out


def landmark_graph(network: LandmarkNet) -> onnx.ModelProto:
    """The network as ONNX: input ``chip`` uint8 BGR [N, side, side, 3], output ``points`` float32 [N, 10]."""
    chips = torch.zeros(_TRACED, network.side, network.side, 3, dtype=torch.uint8)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = str(Path(folder) / "landmarks.onnx")
        warnings.simplefilter("ignore")  # of the older exporter's age, see trainer.backbones.export
        torch.onnx.export(
            _Chips(network),
            (chips,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["chip"],
            output_names=[_POINTS],
            dynamic_axes={"chip": {0: "N"}, _POINTS: {0: "N"}},
        )
        model = onnx.load(file)
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "cabinsense", ""
    model.graph.name = "landmarks"
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(graph: onnx.ModelProto, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of chips uint8 BGR [n, side, side, 3]: points float32 [n, 10]."""
    return runtime.answers(graph, [_POINTS], {"chip": chips})[0]


def prove(graph: onnx.ModelProto, network: LandmarkNet) -> float:
    """Largest difference of a coordinate between ``graph`` and PyTorch on noise, in parts of the side.

    Raises:
        ExportError: it is above ``TOLERANCE``, or no number.
    """
    rng = np.random.default_rng(0)
    reference = copy.deepcopy(network).cpu().eval()
    worst = 0.0
    for count in _BATCHES:
        chips = rng.integers(0, 256, (count, network.side, network.side, 3), np.uint8)
        planes = torch.from_numpy(np.ascontiguousarray(chips[..., ::-1].transpose(0, 3, 1, 2)))
        with torch.inference_mode():
            expected = reference(planes.float() / _HALF_RANGE - 1).numpy()
        worst = max(worst, proof.prove(graph, {"chip": chips}, {_POINTS: expected}, network.side))
    return worst


def write_landmarks(
    file: Path, graph: onnx.ModelProto, *, margin: float, licence: str, source: str
) -> LandmarkModel:
    """Write the network to ``file``; what a manifest says of it.

    Args:
        file: written whole or not at all; its folder exists.
        graph: as ``landmark_graph`` makes it, proved.
        margin: about the box, that the network was trained with.
        licence: of the weights.
        source: what they were trained by and on.

    Raises:
        OSError: the file cannot be written.
    """
    write_file(file, graph.SerializeToString(deterministic=True))
    return LandmarkModel(
        file=file.name,
        sha256=file_digest(file),
        licence=licence,
        source=source,
        side=graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value,
        margin=margin,
    )
