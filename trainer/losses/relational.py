"""Relational knowledge distillation: the student keeps the teacher's distances and angles, not its coordinates.

Park et al., CVPR 2019. Student and teacher may differ in dimension. Both losses compare each tuple of different samples
of the batch once in each order and take the mean; the authors' code averages over the zeros of equal samples too, which
only scales the loss.
"""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses.precision import wide

NEAR = 1e-6  # two samples nearer than this, in the embedding's own unit, count as one


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth-L1 (threshold 1) between all pairwise distances, each relative to its batch's mean distance.

    Args:
        student: float [n, d], n at least 2.
        teacher: float [n, d'], gets no gradient.

    Returns:
        float [], at least 0; 0 where the teacher's points are the student's, moved, turned and scaled.

    Raises:
        ValueError: the batches differ in size or are too small.
    """
    _check(student, teacher, 2)
    with torch.no_grad():
        wanted = _relative_distances(teacher)
    return functional.smooth_l1_loss(_relative_distances(student), wanted)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth-L1 (threshold 1) between the cosines of all angles of three samples; memory grows with n³.

    Args:
        student: float [n, d], n at least 3.
        teacher: float [n, d'], gets no gradient.

    Returns:
        float [], 0..1.5; 0 where the teacher's points are the student's, moved, turned and scaled.

    Raises:
        ValueError: the batches differ in size or are too small.
    """
    _check(student, teacher, 3)
    with torch.no_grad():
        wanted = _angles(teacher)
    return functional.smooth_l1_loss(_angles(student), wanted)


def _relative_distances(points: Tensor) -> Tensor:
    """Distances of all pairs over their mean, float [n (n - 1) / 2]; zeros where all points are one."""
    distances = torch.pdist(wide(points))
    return distances / distances.mean().clamp_min(1e-12)


def _angles(points: Tensor) -> Tensor:
    """Cosine of the angle at each point between each two others, float [n, n - 1, n - 1] without the equal pairs."""
    points = wide(points)
    steps = points[None, :] - points[:, None]  # [from, to, d]
    lengths = steps.norm(dim=2, keepdim=True)
    # Two equal samples have no direction: 0, and no gradient, which by division would be as good as infinite.
    directions = torch.where(lengths > NEAR, steps / lengths.clamp_min(NEAR), torch.zeros_like(steps))
    cosines = directions @ directions.transpose(1, 2)
    n = len(points)
    same = torch.eye(n, dtype=torch.bool, device=points.device)
    return cosines[~(same[:, :, None] | same[:, None, :] | same[None, :, :])]


def _check(student: Tensor, teacher: Tensor, least: int) -> None:
    if len(student) != len(teacher) or len(student) < least:
        raise ValueError(f"batches of {len(student)} and {len(teacher)}: {least} or more alike are needed")
