"""Wrong labels are found after a training: not about the centre that most of a class gathers at."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import SubCenterArcFaceLoss

from trainer.losses.label_noise import count_votes, dominant_centres, is_noise


def at(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_the_few_about_the_second_centre_are_noise():
    centres = torch.stack([at(0.0, 120.0), at(-100.0, -160.0)])  # two people, two centres each
    faces = at(5.0, -10.0, 20.0, 125.0, -150.0, -165.0, -95.0) * 3.0
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    votes = count_votes(faces, labels, centres)
    assert votes.tolist() == [[3, 1], [1, 2]]
    dominant = dominant_centres(centres, votes)
    torch.testing.assert_close(dominant[:, 0], at(0.0, -160.0))
    assert is_noise(faces, labels, dominant).tolist() == [False, False, False, True, False, False, False]
    assert is_noise(faces, labels, dominant, math.radians(15.0)).tolist() == [
        False, False, True, True, False, False, True,
    ]  # fmt: skip


def test_batches_give_what_all_give_at_once():
    generator = torch.Generator().manual_seed(0)
    faces, centres = torch.randn(50, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    labels = torch.arange(50) % 3
    parts = count_votes(faces[:20], labels[:20], centres) + count_votes(faces[20:], labels[20:], centres)
    assert (parts == count_votes(faces, labels, centres)).all()
    assert parts.sum(1).tolist() == [17, 17, 16]


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_what_pytorch_metric_learning_finds(seed):
    generator = torch.Generator().manual_seed(seed)
    faces, labels = torch.randn(60, 5, generator=generator), torch.arange(60) % 4
    centres = torch.randn(4, 3, 5, generator=generator)
    theirs = SubCenterArcFaceLoss(num_classes=4, embedding_size=5, sub_centers=3)
    theirs.W = torch.nn.Parameter(centres.flatten(0, 1).T.clone())
    outliers, dominant = theirs.get_outliers(faces, labels, threshold=75)
    ours = dominant_centres(centres, count_votes(faces, labels, centres))
    torch.testing.assert_close(ours[:, 0].T, dominant)
    assert is_noise(faces, labels, ours).nonzero().flatten().tolist() == sorted(outliers.tolist())
