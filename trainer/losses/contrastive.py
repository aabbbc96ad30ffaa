"""SimCLR's loss: two views of one face are to be nearer to each other than to all other faces of the batch."""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses.precision import wide


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent (Chen et al. 2020, equation 1), the mean over both directions of every pair.

    pytorch-metric-learning's NTXentLoss takes any pairs and needs memory that grows with the batch's third power; for
    two views it is a cross-entropy over one square of cosines. It is what the tests compare with. On several processes
    hand in ``processes.gather`` of each view, and the others' faces count as negatives too.

    Args:
        first: float [n, d], any length, n at least 2: without another face there is nothing to tell apart.
        second: float [n, d], the other view of each row.
        temperature: above 0; SimCLR's best on ImageNet was 0.1.

    Returns:
        float [], at least 0.

    Raises:
        ValueError: the temperature is not above 0, there are fewer than two pairs, or the shapes differ.
    """
    if temperature <= 0.0:
        raise ValueError(f"temperature {temperature} is not above 0")
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"views of {tuple(first.shape)} and {tuple(second.shape)}: two or more pairs are needed"
        )
    views = functional.normalize(wide(torch.cat([first, second])), dim=1)
    logits = wide(views @ views.T) / temperature
    logits = logits.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return functional.cross_entropy(logits, partner)
