"""From a trained backbone to what the agent runs: the face network, or a whole pack."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from calibration.faces import scaled
from calibration.fer2013 import LABELS
from engines import pack
from trainer import quantise
from trainer.backbones import Backbone
from trainer.backbones.heads import ExpressionHead
from trainer.backbones.pack import About, write_face
from trainer.common import packs
from trainer.common.job import Advance, Say
from trainer.common.precision import Precision
from trainer.common.settings import NotNegative, Whole
from trainer.common.stepped import pixels
from trainer.data.alignment import Template
from trainer.data.fer import FerPictures
from trainer.data.reading import Pictures, load
from trainer.quantise import Quantised
from trainer.tasks.verification import Judgement

_BATCH = 64
_ROUNDS = 100  # of L-BFGS; a convex problem
_LEAST_DEVIATION = 0.1  # of a channel, in parts of the root mean square of all means


class NamedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an export is made with.

    Attributes:
        name: of the pack.
        licence: of the weights.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)] = "own"
    licence: str = "unpublished"


class ShipSettings(NamedSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the export of a network that tells people apart is made with.

    Attributes:
        expressions: FER2013, ``.npz`` or ``.csv``: a linear layer on the finished backbone learns the expressions from
            it, unless the task has trained a head for them.
        expression_faces: how many of its training images; 0 takes all.
        decay: L2 penalty of that layer.
    """

    expressions: str = "../shared/data/fer2013.npz"
    expression_faces: Whole = 6000
    decay: NotNegative = 1e-2


def ship(
    target: Path,
    task: str,
    backbone: Backbone,
    heads: Mapping[str, nn.Module],
    base: Path,
    template: Template | None,
    settings: ShipSettings,
    judgement: Judgement,
    digest: str,
) -> None:
    """Write the face network, or a pack with the detector of another, proved against PyTorch.

    Of a network that was trained for whole numbers the weights are written as they are rounded, and into the file's
    metadata how many bits of each layer's input stand behind the point: ``bits.LAYER``, or ``bits.HEAD.LAYER``.

    Args:
        target: a file ``.onnx``, or the folder of a pack.
        task: that has trained it.
        backbone: in evaluation mode, on the processor.
        heads: ``emotion``, and ``embedding`` if the summary is not it.
        base: the pack whose detector finds the faces.
        template: where their five points lie in what was trained on, float32 [5, 2], and the agent is to bring them;
            None stands for the base's.
        settings: names.
        judgement: of the embedding.
        digest: of the data.

    Raises:
        BackboneError: what was trained cannot be exported.
        ExportError: ONNX Runtime and PyTorch differ, or it cannot be written.
        PackError: the base is missing or damaged.
    """
    verified = pack.verify(base)
    face = verified.manifest.face
    points = scaled(face.template, face.side, backbone.side) if template is None else template
    backbone, bits = quantise.deployable(backbone)
    deployed = {}
    for name, head in heads.items():
        deployed[name], more = quantise.deployable(head)
        bits |= {f"{name}.{layer}": count for layer, count in more.items()}
    about = About(
        template=tuple((float(x), float(y)) for x, y in points),
        labels=LABELS,
        threshold=round(judgement.threshold, 4),
        threshold_basis=judgement.basis,
        licence=settings.licence,
        source=f"`python -m trainer {task}` on faces of SHA-256 {digest}",
        notes={f"bits.{layer}": str(count) for layer, count in bits.items()},
    )
    packs.export(
        target, settings.name, verified, "face", lambda file: write_face(file, backbone, deployed, about)
    )


def fit_expressions(
    backbone: Backbone,
    settings: ShipSettings,
    template: Template | None,
    workers: int,
    precision: Precision,
    advance: Advance,
    say: Say,
    *,
    quantised: bool = False,
) -> ExpressionHead:
    """A linear layer that reads expressions from the finished backbone's map, fitted on FER2013.

    Logistic regression on the means over the map, brought to mean 0 and deviation 1; both are folded into the layer.

    Args:
        backbone: in evaluation mode.
        settings: data and penalty.
        template: where the five points of a face lie in what the backbone reads; None stands for the default pack's.
        workers: processes that read.
        precision: of the backbone.
        advance: told of the progress.
        say: told the accuracy on the validation split.
        quantised: whether the layer is then rounded to 8 bits, as the backbone is (``trainer.quantise``).

    Raises:
        Fer2013Error: the data are missing.
    """
    found = {
        split: _means(backbone, settings, template, split, workers, precision, advance)
        for split in ("train", "validation")
    }
    means, labels = found["train"]
    centre, deviation = means.mean(0), means.std(0)
    # A channel that hardly moves is not blown up: float32 rounds means by their size, and that would grow with it.
    deviation = deviation.clamp(min=_LEAST_DEVIATION * float(means.square().mean().sqrt()) + 1e-12)
    layer = nn.Linear(means.shape[1], len(LABELS))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=_ROUNDS, line_search_fn="strong_wolfe")
    normed = (means - centre) / deviation

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = settings.decay * layer.weight.square().sum()
        loss: Tensor = functional.cross_entropy(layer(normed), labels) + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    head = ExpressionHead(means.shape[1], len(LABELS)).eval()
    with torch.no_grad():
        head.linear.weight.copy_(layer.weight / deviation)
        head.linear.bias.copy_(layer.bias - head.linear.weight @ centre)
        if quantised:
            rounded = Quantised(head.linear)
            rounded.peak.copy_(means.abs().max())
            head.add_module("linear", rounded)
        others, true = found["validation"]
        accuracy = float((head.linear(others).argmax(1) == true).float().mean())
    say(f"expressions read from the backbone: {100 * accuracy:.1f} % on the validation split")
    return head


def _means(
    backbone: Backbone,
    settings: ShipSettings,
    template: Template | None,
    split: str,
    workers: int,
    precision: Precision,
    advance: Advance,
) -> tuple[Tensor, Tensor]:
    """Means over the backbone's map, float32 [n, channels], and labels int64 [n] of a split."""
    source = FerPictures(Path(settings.expressions).expanduser(), split, backbone.side, template)
    count = len(source.labels)
    wanted = min(settings.expression_faces or count, count)
    # Spread over the split: a file may be sorted by label.
    chosen = [int(place * count / wanted) for place in range(wanted)]
    batches = [chosen[start : start + _BATCH] for start in range(0, wanted, _BATCH)]
    means, labels = [], []
    with torch.inference_mode():
        for images, known in load(Pictures(source, 0), batches, workers):
            with precision.autocast():
                found = backbone(pixels(images.to(precision.device))).map
            means.append(found.float().mean((2, 3)).cpu())
            labels.append(known)
            advance(f"expressions, {split}", len(images), wanted)
    return torch.cat(means).clone(), torch.cat(labels)
