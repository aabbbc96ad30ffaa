"""Relations are kept, not places: what moves, turns and scales all faces alike costs nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from trainer.losses.relational import rkd_angle, rkd_distance


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TRIANGLE = torch.tensor(
    [[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]
)  # sides of 3, 4 and 5; a right angle at the first
LINE = torch.tensor([[0.0], [1.0], [2.0]])  # distances of 1, 2 and 1


def test_distances_by_hand():
    loss = rkd_distance(LINE, TRIANGLE)
    by_hand = sum(0.5 * (a / (4 / 3) - b / 4) ** 2 for a, b in ((1, 3), (2, 4), (1, 5))) / 3
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_angles_by_hand():
    # Cosines at the three corners: of the triangle 0, 3/5 and 4/5; on the line 1, -1 and 1.
    by_hand = ((1.0 - 0.5) + (1 + 3 / 5 - 0.5) + 0.5 * (1 - 4 / 5) ** 2) / 3
    assert rkd_angle(LINE, TRIANGLE).item() == pytest.approx(by_hand, rel=1e-6)


def test_gradients_are_those_of_finite_differences():
    for loss in (rkd_distance, rkd_angle):
        teacher = noise(0, 4, 5)
        assert gradcheck(
            lambda x, loss=loss, teacher=teacher: loss(x, teacher), (noise(1, 4, 3).requires_grad_(),)
        )


@given(st.integers(0, 20), st.floats(0.1, 10.0), st.floats(-5.0, 5.0), st.permutations(range(5)))
def test_moving_turning_and_scaling_all_faces_costs_nothing(seed, scale, step, order):
    teacher = noise(seed, 5, 3)
    turn = torch.linalg.qr(
        noise(seed + 100, 6, 3)
    ).Q.T  # orthonormal rows: into more dimensions without distortion
    student = scale * teacher @ turn + step
    other = noise(seed + 200, 5, 3)
    for loss in (rkd_distance, rkd_angle):
        assert loss(student, teacher).item() == pytest.approx(0.0, abs=1e-12)
        value = loss(other, teacher).item()
        assert value > 0.0
        assert loss(other[order], teacher[order]).item() == pytest.approx(value, rel=1e-9)
        assert loss(other, scale * teacher + step).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_equal_faces_have_finite_gradients_and_the_teacher_none(loss):
    student = torch.ones(4, 3).requires_grad_()
    teacher = noise(0, 4, 3).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.isfinite().all()
    assert teacher.grad is None
    pair = noise(1, 4, 3).float()
    pair[1] = pair[0]  # one face twice, among others
    pair.requires_grad_()
    loss(pair, teacher).backward()
    assert pair.grad.abs().max() < 10.0


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_a_student_of_fewer_dimensions_learns_the_shape(loss):
    corners = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 0, 0], [0, 2, 0, 0]])  # a flat teacher
    student = noise(2, 4, 2).float().requires_grad_()
    optimiser = torch.optim.Adam([student], 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss(student, corners).backward()
        optimiser.step()
    sides = torch.cdist(student, student).detach()
    assert (sides[0, 1] / sides[1, 2]).item() == pytest.approx(0.5, abs=0.02)
    assert (sides[0, 2] / sides[1, 2]).item() == pytest.approx(math.sqrt(5) / 2, abs=0.02)


def test_too_few_faces_are_refused():
    with pytest.raises(ValueError, match="2 or more"):
        rkd_distance(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="3 or more"):
        rkd_angle(torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="3 and 4"):
        rkd_distance(torch.ones(3, 2), torch.ones(4, 2))
