import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from trainer.losses.wing import wing_loss

ERRORS = st.floats(-200.0, 200.0)


def of(error: float, **more: float) -> float:
    """The loss of one coordinate that is off by so many pixels."""
    predicted = torch.full((1, 1, 1), error, dtype=torch.float64)
    return wing_loss(predicted, torch.zeros_like(predicted), **more).item()


def test_by_hand():
    assert of(0.0) == 0.0
    assert of(2.0) == pytest.approx(10 * math.log(2))
    assert of(-25.0) == pytest.approx(25 - (10 - 10 * math.log(6)))
    assert of(3.0, width=2.0, curvature=0.5) == pytest.approx(3 - (2 - 2 * math.log(5)))
    points = torch.tensor([[[0.0, 2.0], [25.0, 0.0]]])
    assert wing_loss(points, torch.zeros_like(points)).item() == pytest.approx((of(2) + of(25)) / 4)


@given(ERRORS, ERRORS)
def test_a_larger_error_never_costs_less_and_side_does_not_matter(one, other):
    small, large = sorted((abs(one), abs(other)))
    assert of(small) <= of(large) + 1e-9
    assert of(-large) == of(large)


@given(st.floats(0.5, 50.0), st.floats(0.1, 10.0))
def test_the_two_parts_join(width, curvature):
    below, above = (of(width * (1 + side * 1e-9), width=width, curvature=curvature) for side in (-1, 1))
    assert above == pytest.approx(below, rel=1e-6)


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    predicted = 15 * torch.randn(2, 5, 2, dtype=torch.float64, generator=generator)
    assert gradcheck(lambda x: wing_loss(x, torch.zeros_like(x)), (predicted.requires_grad_(),))


def test_a_width_of_nothing_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        of(1.0, width=0.0)
    with pytest.raises(ValueError, match="differ in shape"):
        wing_loss(torch.ones(1, 5, 2), torch.ones(1, 4, 2))
