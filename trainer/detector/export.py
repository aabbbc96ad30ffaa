"""A trained detector as the detector of a pack: ONNX for the decoder ``ssd``, proved against PyTorch."""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.pack import Anchors, DetectorModel, file_digest
from engines.sources.onnx_graph import IR_VERSION, OPSET
from engines.sources.storage import write_file
from trainer.common import proof
from trainer.detector.network import RATIO, SIZES, STRIDE, TinySsd, fused

_HALF_RANGE = 127.5
_PROVED = ((96, 64), (256, 320))  # heights and widths on which an export is proved


def anchor_table() -> tuple[Anchors, ...]:
    """The network's anchors as a manifest has them."""
    root = RATIO**0.5
    return tuple(
        Anchors(stride=stride, sizes=tuple((round(size * root, 4), round(size / root, 4)) for size in sizes))
        for stride, sizes in SIZES.items()
    )


def detector_graph(network: TinySsd, threshold: float = 0.5) -> onnx.ModelProto:
    """The detector as ONNX; ``network`` stays as it is.

    Input ``image``: uint8 BGR [1, H, W, 3]. Outputs for each stride S with k anchors: ``scores_S`` [1, k, H/S, W/S],
    probabilities, and ``boxes_S`` [1, 4k, H/S, W/S], offsets. Batch norms are folded into the convolutions.

    Args:
        network: trained.
        threshold: the score, in (0, 1), that becomes 0.5: the agent's own threshold then is the one that was chosen
            for this network.
    """
    deployed = _Deployed(network, threshold)
    names = [f"{kind}_{stride}" for stride in SIZES for kind in ("scores", "boxes")]
    axes: dict[str, dict[int, str]] = {"image": {1: "H", 2: "W"}}
    axes |= {name: {2: f"H{name.split('_')[1]}", 3: f"W{name.split('_')[1]}"} for name in names}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = str(Path(folder) / "detector.onnx")
        warnings.simplefilter("ignore")  # of the older exporter's age, see trainer.backbones.export
        torch.onnx.export(
            deployed,
            (torch.zeros(1, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names,
            dynamic_axes=axes,
        )
        graph = onnx.load(file).graph
    graph.name = "detector"
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cabinsense",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def prove(model: onnx.ModelProto, network: TinySsd, threshold: float = 0.5) -> float:
    """Largest difference of an output between ``model`` in ONNX Runtime and PyTorch, on noise of several sizes.

    Raises:
        ExportError: it is above ``TOLERANCE``, or not finite.
    """
    rng = np.random.default_rng(0)
    return max(
        proof.prove(model, {"image": image}, answers(network, image, threshold))
        for image in (rng.integers(0, 256, (1, *size, 3), np.uint8) for size in _PROVED)
    )


def answers(
    network: TinySsd, image: NDArray[np.uint8], threshold: float = 0.5
) -> dict[str, NDArray[np.float32]]:
    """What PyTorch makes of an image uint8 BGR [1, H, W, 3], batch norms not folded, by the names of the outputs."""
    pixels = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(0, 3, 1, 2)
    network = copy.deepcopy(network).cpu().eval()
    with torch.inference_mode():
        found = network(pixels.float() / _HALF_RANGE - 1)
    outputs: dict[str, NDArray[np.float32]] = {}
    for stride, maps in found.items():
        outputs[f"scores_{stride}"] = torch.sigmoid(maps.logits - _logit(threshold)).numpy()
        outputs[f"boxes_{stride}"] = maps.offsets.numpy()
    return outputs


def write_detector(
    file: Path, network: TinySsd, threshold: float, licence: str, source: str, notes: Mapping[str, str]
) -> DetectorModel:
    """Write the detector to ``file``, proved against PyTorch; what a manifest says of it.

    Args:
        file: written whole or not at all; its folder exists.
        network: trained.
        threshold: as for ``detector_graph``.
        licence: of the weights.
        source: what they were trained by and on.
        notes: put into the file as metadata.

    Raises:
        ExportError: ONNX Runtime and PyTorch differ.
        OSError: the file cannot be written.
    """
    model = detector_graph(network, threshold)
    prove(model, network, threshold)
    onnx.helper.set_model_props(model, dict(notes))
    write_file(file, model.SerializeToString(deterministic=True))
    return DetectorModel(
        file=file.name,
        sha256=file_digest(file),
        licence=licence,
        source=source,
        decoder="ssd",
        stride=STRIDE,
        anchors=anchor_table(),
    )


class _Deployed(nn.Module):
    """From image to outputs as a pack has them."""

    def __init__(self, network: TinySsd, threshold: float) -> None:
        super().__init__()
        self.network = fused(copy.deepcopy(network).cpu())
        first = self.network.first
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))  # trained on RGB, it reads BGR
            for head in self.network.scores.values():
                assert isinstance(head, nn.Conv2d)  # noqa: S101 - for the type checker
                assert head.bias is not None  # noqa: S101 - for the type checker
                head.bias -= _logit(threshold)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Scores and boxes, stride by stride."""
        maps = self.network(image.permute(0, 3, 1, 2).float() / _HALF_RANGE - 1)
        return tuple(part for each in maps.values() for part in (torch.sigmoid(each.logits), each.offsets))


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))
