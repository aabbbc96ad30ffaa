"""A trained backbone as part of a pack: the file, and what the manifest says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from torch import nn

from engines.pack import FaceModel, file_digest
from engines.sources.storage import write_file
from trainer.backbones import export
from trainer.backbones.export import EMBEDDING, EMOTION
from trainer.backbones.interface import Backbone, BackboneError

_BATCHES = (1, 3)  # of the chips on which an export is proved


@dataclass(frozen=True)
class About:
    """What a manifest says of a face network, and the network itself does not.

    Attributes:
        template: the five points to which the faces were brought that it was trained on, in pixels of its chip.
        labels: the expressions, in the order of its logits.
        threshold: cosine from which two faces are one person, -1..1.
        threshold_basis: data and false acceptance rate behind the threshold.
        licence: of the weights.
        source: what they were trained by and on.
        notes: put into the network's file as metadata.
    """

    template: tuple[tuple[float, float], ...]
    labels: tuple[str, ...]
    threshold: float
    threshold_basis: str
    licence: str
    source: str
    notes: Mapping[str, str] = field(default_factory=dict)


def write_face(file: Path, backbone: Backbone, heads: Mapping[str, nn.Module], about: About) -> FaceModel:
    """Write the face network to ``file``, proved against PyTorch; what a manifest says of it.

    Args:
        file: written whole or not at all; its folder exists.
        backbone: trained.
        heads: ``emotion``, and ``embedding`` if the summary itself is not the embedding.
        about: the rest.

    Raises:
        BackboneError: it cannot be exported, or is not what the agent runs.
        ExportError: ONNX Runtime and PyTorch differ.
        OSError: the file cannot be written.
    """
    if EMOTION not in heads or set(heads) - {EMBEDDING, EMOTION}:
        raise BackboneError(
            f"the face network of a pack has the heads {EMOTION} and, if wanted, {EMBEDDING}; here are "
            f"{', '.join(heads) or 'none'}"
        )
    graph = export.face_graph(backbone, heads)
    lengths = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.graph.output}
    if lengths[EMOTION] != len(about.labels):
        raise BackboneError(
            f"the head {EMOTION} has {lengths[EMOTION]} outputs for {len(about.labels)} labels"
        )
    _prove(graph, backbone, heads)
    if about.notes:
        onnx.helper.set_model_props(graph, dict(about.notes))
    write_file(file, graph.SerializeToString(deterministic=True))
    return FaceModel(
        file=file.name,
        sha256=file_digest(file),
        licence=about.licence,
        source=about.source,
        side=backbone.side,
        template=about.template,
        dim=lengths[EMBEDDING],
        labels=about.labels,
        threshold=about.threshold,
        threshold_basis=about.threshold_basis,
    )


def _prove(graph: onnx.ModelProto, backbone: Backbone, heads: Mapping[str, nn.Module]) -> None:
    """Raise ExportError if the graph and PyTorch differ on noise: every colour, every channel in its own place."""
    rng = np.random.default_rng(0)
    for count in _BATCHES:
        chips = rng.integers(0, 256, (count, backbone.side, backbone.side, 3), np.uint8)
        export.verify(graph, backbone, heads, chips)
