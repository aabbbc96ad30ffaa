"""A trained landmark network as ONNX, and as part of a pack."""

import copy
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.errors import UserError
from engines.pack import MANIFEST, LandmarkModel, Pack, encode_manifest, file_digest, verify
from engines.sources.onnx_graph import IR_VERSION, OPSET
from engines.sources.storage import locked, new_folder, write_file
from trainer.common.proof import runtime_answers
from trainer.landmarks.network import LandmarkNet

TOLERANCE = 1e-4
"""Largest difference of a coordinate between PyTorch and ONNX Runtime, in parts of the chip's side."""

_FILE = "landmarks.onnx"
_HALF_RANGE = 127.5
_TRACED = 2  # chips; with one alone the exporter would take the batch for a constant
_BATCHES = (1, 3)  # of the chips on which an export is proved


class ExportError(UserError):
    """A landmark network cannot be written; the message says why."""


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
        file = str(Path(folder) / _FILE)
        warnings.simplefilter(
            "ignore"
        )  # of the exporter's age: it writes operator set 17, the newer one does not
        torch.onnx.export(
            _Chips(network),
            (chips,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["chip"],
            output_names=["points"],
            dynamic_axes={"chip": {0: "N"}, "points": {0: "N"}},
        )
        model = onnx.load(file)
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "cabinsense", ""
    model.graph.name = "landmarks"
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(graph: onnx.ModelProto, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of chips uint8 BGR [n, side, side, 3]: points float32 [n, 10]."""
    return runtime_answers(graph, ["points"], {"chip": chips})[0]


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
        difference = float(np.abs(answers(graph, chips) - expected).max()) / network.side
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported points differ from PyTorch's by {difference:.2g} of the side; allowed is {TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst


def write(
    target: Path, graph: onnx.ModelProto, base: Pack, name: str, *, margin: float, licence: str, source: str
) -> None:
    """Write the network, or a pack that has it beside the models of another.

    Args:
        target: a file ``.onnx``, or the folder of a pack; what is there is replaced once the new one is whole.
        graph: as ``landmark_graph`` makes it, proved.
        base: verified; its models are copied.
        name: of the pack.
        margin: about the box, that the network was trained with.
        licence: of the weights.
        source: what they were trained by and on.

    Raises:
        ExportError: it cannot be written.
    """
    data = graph.SerializeToString(deterministic=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".onnx":
            write_file(target, data)
            return
        with locked(target.with_name(f".{target.name}.lock")), new_folder(target) as folder:
            for file in (base.detector, base.face, base.bank):
                if file is not None:
                    write_file(folder / file.name, file.read_bytes())
            write_file(folder / _FILE, data)
            model = LandmarkModel(
                file=_FILE,
                sha256=file_digest(folder / _FILE),
                licence=licence,
                source=source,
                side=graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value,
                margin=margin,
            )
            manifest = msgspec.structs.replace(base.manifest, name=name, recipe="", landmarks=model)
            write_file(folder / MANIFEST, encode_manifest(manifest))
    except OSError as error:
        raise ExportError(
            f"{error.filename or target}: {error.strerror}; make room or rights there, or choose another folder"
        ) from error
    verify(target)
