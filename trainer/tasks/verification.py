"""How well a network tells people apart whom it has not been trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from calibration.lfw import person
from calibration.metrics import Roc, folded_accuracy, roc, tar_at_far
from calibration.verification import Scored, Strangers, score
from trainer.backbones import Backbone
from trainer.common.job import Say
from trainer.common.plots import roc_curve
from trainer.common.precision import Precision
from trainer.common.stepped import pixels
from trainer.data.reading import Pictures, load
from trainer.data.samplers import InOrder
from trainer.tasks.people import People

FAR = 0.01
DECISION_FAR = 0.001
_BATCH = 64


@dataclass(frozen=True)
class Judgement:
    """What pairs of people held out say.

    Attributes:
        accuracy: mean over the folds, each with the threshold that is best on the others.
        tar: share of genuine pairs accepted where ``FAR`` of the others are.
        threshold: the least at which at most ``DECISION_FAR`` of all pairs of strangers among the faces are accepted.
        strangers: how many those pairs are.
        curve: of the listed pairs.
    """

    accuracy: float
    tar: float
    threshold: float
    strangers: int
    curve: Roc

    @property
    def basis(self) -> str:
        """What the threshold rests on, for a manifest."""
        return f"{self.strangers} pairs of strangers held out, false acceptance rate {DECISION_FAR:g}"

    def figures(self) -> dict[str, float]:
        """What the metrics show."""
        return {"pair_accuracy": self.accuracy, f"tar_at_far_{FAR:g}": self.tar}

    @property
    def title(self) -> str:
        """The accuracy in words."""
        return f"people held out: {100 * self.accuracy:.2f} % of pairs told rightly"

    @property
    def told(self) -> str:
        """The figures in words."""
        return f"{self.title}; {100 * self.tar:.1f} % of genuine pairs where {100 * FAR:g} % of the others are accepted"

    def tell(self, picture: Path, say: Say) -> None:
        """Draw the ROC, and say the figures."""
        roc_curve(self.curve, self.title, picture)
        say(self.told)


def judge(people: People, embeddings: NDArray[np.float32]) -> Judgement:
    """The judgement on embeddings float32 [n, d] of length 1 of ``people.judged``."""
    scored = scores(people, embeddings)
    folded = folded_accuracy(scored.score, scored.genuine, scored.fold)
    photos = sorted(people.places)
    strangers = Strangers(
        [person(photo) for photo in photos], [embeddings[people.places[photo]] for photo in photos]
    )
    return Judgement(
        accuracy=float(folded.accuracy.mean()),
        tar=tar_at_far(scored.score, scored.genuine, FAR).tar,
        threshold=min(1.0, strangers.threshold(DECISION_FAR)),
        strangers=strangers.count,
        curve=roc(scored.score, scored.genuine),
    )


def scores(people: People, embeddings: NDArray[np.float32]) -> Scored:
    """The cosines of the pairs; a photograph without a face has none."""
    photos = {photo for pair in people.pairs for photo in (pair.first, pair.second)}
    found = {photo: embeddings[people.places[photo]] if photo in people.places else None for photo in photos}
    return score(people.pairs, found)


def judge_backbone(
    backbone: Backbone, people: People, limit: int, workers: int, precision: Precision
) -> Judgement:
    """The judgement on the summaries of a backbone.

    Args:
        backbone: in evaluation mode.
        people: their faces.
        limit: faces that may be damaged.
        workers: processes that read.
        precision: of the backbone.
    """
    return judge(
        people, embeddings_of(lambda images: backbone(images).summary, people, limit, workers, precision)
    )


def embeddings_of(
    network: Callable[[Tensor], Tensor], people: People, limit: int, workers: int, precision: Precision
) -> NDArray[np.float32]:
    """Embeddings float32 [n, d] of length 1 of the judged faces.

    Args:
        network: from float32 [n, 3, side, side] in -1 to 1 to vectors.
        people: their faces.
        limit: faces that may be damaged.
        workers: processes that read.
        precision: of the network.
    """
    parts = []
    pictures = Pictures(people.judged, limit)
    with torch.inference_mode():
        for images, _ in load(pictures, InOrder(len(pictures), _BATCH), workers):
            with precision.autocast():
                vectors = network(pixels(images.to(precision.device)))
            parts.append(functional.normalize(vectors.float(), dim=1).cpu().numpy())
    return np.concatenate(parts)
