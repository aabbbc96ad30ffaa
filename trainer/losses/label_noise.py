"""Which samples are wrongly labelled, read from sub-centres after a training, to train again without them.

Sub-centre ArcFace gathers the clean majority of a class about one centre and its noise about the others (Deng et al.
2020). Three passes in batches: count which sub-centre each sample is nearest to, keep the most frequented one of each
class, then drop what is far from it. While training runs, ``margin.trust`` is the rule.
"""

import math

import torch
from torch import Tensor

from trainer.losses.margin import cosines, own_class

ANGLE = math.radians(75.0)  # beyond it a sample is dropped, Deng et al. 2020, section 3.3


def count_votes(embeddings: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """How many samples of each class are nearest to each of its sub-centres; counts of batches add up.

    Args:
        embeddings: float [n, d].
        labels: int64 [n], 0..classes - 1.
        centres: float [classes, k, d].

    Returns:
        int64 [classes, k].
    """
    classes, k, _ = centres.shape
    own = torch.nn.functional.normalize(centres, dim=2)[labels]
    nearest = torch.einsum("nd,nkd->nk", embeddings, own).argmax(1)  # lengths of embeddings change no argmax
    return torch.bincount(labels * k + nearest, minlength=classes * k).reshape(classes, k)


def dominant_centres(centres: Tensor, votes: Tensor) -> Tensor:
    """The most frequented sub-centre of each class, the first among equals: [classes, 1, d] of [classes, k, d]."""
    return centres[torch.arange(len(centres), device=centres.device), votes.argmax(1)][:, None]


def is_noise(embeddings: Tensor, labels: Tensor, dominant: Tensor, angle: float = ANGLE) -> Tensor:
    """Whether each sample is further than ``angle``, in radians, from its class's dominant centre: bool [n].

    Args:
        embeddings: float [n, d].
        labels: int64 [n].
        dominant: float [classes, 1, d].
        angle: radians, 0..pi.
    """
    return own_class(cosines(embeddings, dominant), labels) < math.cos(angle)
