"""What a student is told: it costs nothing to say what the teacher says, and the teacher is never taught."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

from trainer.losses.distil import (
    Adaptor,
    copy_layer,
    cosine_distance,
    map_distance,
    normalised_mse,
    same_size,
    spatial_loss,
    summary_loss,
)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_summaries_of_two_teachers_by_hand():
    students = {"a": torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "b": torch.tensor([[0.0, 0.0, 2.0]])}
    teachers = {"a": torch.tensor([[0.0, 5.0], [2.0, 2.0]]), "b": torch.tensor([[0.0, 0.0, -1.0]])}
    assert summary_loss(students, teachers, {"a": 1.0, "b": 0.25}).item() == pytest.approx(
        (1 + 0) / 2 + 0.25 * 2
    )


def test_maps_by_hand():
    student = torch.tensor([[[[3.0, 1.0]], [[0.0, 0.0]]]])  # one row of two places, two channels
    teacher = torch.tensor(
        [[[[1.0, 0.0]], [[0.0, 1.0]]]]
    )  # the first agrees in direction, the second is at 90°
    smooth = (abs(3 - 1) - 0.5 + 0 + 0.5 * 1 + 0.5 * 1) / 4
    assert map_distance(student, teacher).item() == pytest.approx(0.9 * (0 + 1) / 2 + 0.1 * smooth)
    both = spatial_loss({"a": student, "b": teacher}, {"a": teacher, "b": teacher}, {"a": 2.0, "b": 9.0})
    assert both.item() == pytest.approx(2 * (0.45 + 0.1 * smooth))


def test_maps_of_different_sizes_meet_at_the_smaller_one():
    column, row = torch.arange(8.0).expand(1, 1, 8, 8), torch.full((1, 1, 4, 16), 3.0)
    a, b = same_size(column, row)
    assert a.shape == b.shape == (1, 1, 4, 8)
    assert (b == 3.0).all()
    assert (a == torch.arange(8.0)).all()  # its width was the smaller one already
    halved, _ = same_size(column, torch.zeros(1, 1, 4, 4))
    # Between two places of a slope lies their mean; only at the borders does the filter lack a side.
    torch.testing.assert_close(halved[0, 0, 0, 1:3], torch.tensor([2.5, 4.5]))


def test_every_place_of_a_larger_map_counts():
    for place in range(12):
        large = torch.zeros(1, 1, 12, 12)
        large[0, 0, place, place] = 1.0
        assert map_distance(torch.zeros(1, 1, 3, 3), large) > 0.9  # cosine with nothing is 0


def test_gradients_are_those_of_finite_differences():
    maps = noise(0, 2, 3, 4, 4).requires_grad_()
    assert gradcheck(lambda x: map_distance(x, noise(1, 2, 3, 7, 3)), (maps,))
    assert gradcheck(lambda x: cosine_distance(x, noise(2, 4, 5)), (noise(3, 4, 5).requires_grad_(),))
    assert gradcheck(lambda x: normalised_mse(x, noise(2, 4, 5)), (noise(3, 4, 5).requires_grad_(),))


@given(st.integers(0, 30), st.floats(0.01, 100.0))
def test_summaries_and_embeddings_are_compared_by_direction_alone(seed, length):
    a, b = noise(seed, 4, 6), noise(seed + 50, 4, 6)
    for loss in (cosine_distance, normalised_mse):
        assert loss(length * a, b).item() == pytest.approx(loss(a, b).item(), rel=1e-9)
        assert loss(a, b).item() == pytest.approx(loss(b, a).item(), rel=1e-9)
        assert loss(a, length * a).item() == pytest.approx(0.0, abs=1e-12)
    assert normalised_mse(a, b).item() == pytest.approx(2 * cosine_distance(a, b).item() / 6, rel=1e-9)


def test_mse_between_normalised_embeddings_by_hand():
    loss = normalised_mse(torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.1]]))
    assert loss.item() == pytest.approx((1 + 1) / 2)
    feature_maps = torch.ones(1, 2, 1, 2), torch.tensor([[[[1.0, -1.0]], [[1.0, -1.0]]]])
    assert normalised_mse(*feature_maps).item() == pytest.approx(2 * (1 / 2 + 1 / 2) ** 2 / 4)


@pytest.mark.parametrize("loss", [cosine_distance, normalised_mse])
def test_a_teacher_gets_no_gradient(loss):
    student, teacher = noise(0, 3, 4).requires_grad_(), noise(1, 3, 4).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    x, y = noise(0, 2, 3, 4, 4).requires_grad_(), noise(1, 2, 3, 4, 4).requires_grad_()
    map_distance(x, y).backward()
    assert y.grad is None


def test_teachers_without_a_weight_or_a_student_are_named():
    one = {"radio": torch.ones(1, 2)}
    for students, teachers, weights in ((one, one, {}), ({}, one, {"radio": 1.0}), ({}, {}, {})):
        with pytest.raises(ValueError, match="one set is needed"):
            summary_loss(students, teachers, weights)


def test_an_adaptor_treats_each_place_of_a_map_as_a_summary():
    torch.manual_seed(0)
    adaptor = Adaptor(6, 10, 8)
    maps = torch.randn(2, 6, 3, 5)
    out = adaptor(maps)
    assert out.shape == (2, 10, 3, 5)
    torch.testing.assert_close(out[1, :, 2, 4], adaptor(maps[1, :, 2, 4][None])[0])


def test_students_of_two_teachers_learn_both():
    torch.manual_seed(0)
    images = torch.randn(64, 12)
    teachers = {
        "wide": torch.tanh(images @ torch.randn(12, 20)),
        "narrow": torch.relu(images @ torch.randn(12, 5)),
    }
    student = nn.Sequential(nn.Linear(12, 16), nn.ReLU())
    adaptors = nn.ModuleDict({name: Adaptor(16, x.shape[1], 32) for name, x in teachers.items()})
    optimiser = torch.optim.Adam([*student.parameters(), *adaptors.parameters()], 0.01)
    losses = []
    for _ in range(80):
        optimiser.zero_grad()
        summary = student(images)
        told = {name: adaptors[name](summary) for name in teachers}
        loss = summary_loss(told, teachers, {"wide": 1.0, "narrow": 0.5})
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_copied_layer_answers_as_the_teachers_and_stays_apart_from_it():
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval() for _ in range(2))
    x = torch.randn(2, 4)
    copy_layer(ours, theirs)
    assert (ours(x) == theirs(x)).all()
    with torch.no_grad():
        theirs[0].weight.zero_()
    assert ours[0].weight.abs().sum() > 0
    with pytest.raises(ValueError, match="one shape"):
        copy_layer(nn.Linear(4, 2), nn.Linear(4, 3))


def test_vectors_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        normalised_mse(torch.ones(2, 3), torch.ones(2, 4))


def test_a_right_angle_costs_one_in_half_precision_too():
    a, b = torch.tensor([[300.0, 0.0]]).half(), torch.tensor([[0.0, 300.0]]).half()
    assert cosine_distance(a, b).item() == 1.0
    assert normalised_mse(a, b).item() == pytest.approx(1.0)
    assert not math.isnan(map_distance(a[:, :, None, None], b[:, :, None, None]).item())
