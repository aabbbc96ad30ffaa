"""What a classifier is to answer: the label, smoothed, and between two pictures that are mixed what lies between."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Probabilities float32 [n, classes] of labels int64 [n]; a share is spread over all (Szegedy et al. 2016)."""
    targets = functional.one_hot(labels, classes).float()
    return targets * (1 - smoothing) + smoothing / classes


def mixed(inputs: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each input and its target mixed with those of a random other (mixup, Zhang et al. 2018).

    Args:
        inputs: float32 [n, ...].
        targets: float32 [n, classes].
        alpha: parameter of the symmetric beta distribution from which each share is drawn; 0 mixes nothing.
        rng: where shares and partners come from.
    """
    if alpha == 0:
        return inputs, targets
    count, device = len(inputs), inputs.device
    share = torch.from_numpy(rng.beta(alpha, alpha, count).astype(np.float32)).to(device)
    partner = torch.from_numpy(rng.permutation(count)).to(device)
    inputs = torch.lerp(inputs[partner], inputs, share.view(-1, *[1] * (inputs.ndim - 1)))
    return inputs, torch.lerp(targets[partner], targets, share[:, None])
