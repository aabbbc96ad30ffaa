import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss
from torch.autograd import gradcheck

from trainer.losses.contrastive import nt_xent


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_two_faces_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    second = torch.tensor([[2.0, 0.0], [0.0, 1.0]])  # each pair agrees, the two faces are at right angles
    by_hand = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + 2 * math.exp(0.0)))
    assert nt_xent(first, second, 0.5).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_and_gradient_are_those_of_pytorch_metric_learning(temperature):
    views = [noise(seed, 7, 5).requires_grad_() for seed in (0, 1)]
    labels = torch.arange(7).repeat(2)
    reference = NTXentLoss(temperature)(torch.cat(views), labels)
    loss = nt_xent(*views, temperature)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
    for gradient, expected in zip(*(torch.autograd.grad(x, views) for x in (loss, reference)), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-10)


def test_gradients_are_those_of_finite_differences():
    assert gradcheck(nt_xent, (noise(2, 3, 4).requires_grad_(), noise(3, 3, 4).requires_grad_(), 0.3))


@given(st.integers(0, 50), st.floats(0.01, 100.0), st.permutations(range(5)))
def test_neither_order_nor_length_nor_which_view_is_first_matters(seed, length, order):
    first, second = noise(seed, 5, 3), noise(seed + 100, 5, 3)
    loss = nt_xent(first, second).item()
    assert nt_xent(second, first).item() == pytest.approx(loss, rel=1e-9)
    assert nt_xent(length * first[order], second[order]).item() == pytest.approx(loss, rel=1e-9)


@given(st.integers(0, 50), st.floats(0.05, 1.0))
def test_views_that_agree_better_cost_less(seed, temperature):
    first, second = noise(seed, 4, 8), noise(seed + 100, 4, 8)
    others = torch.linalg.qr(first.T).Q.T  # faces at right angles: only agreement is left to gain
    agree = [nt_xent(others, (1 - p) * others.roll(1, 0) + p * others, temperature) for p in (0.0, 0.5, 1.0)]
    assert agree[0] > agree[1] > agree[2] > 0.0
    assert nt_xent(first, second, temperature) > 0.0


def test_half_precision_and_a_low_temperature_do_not_overflow():
    view = (noise(0, 8, 16) * 100).half().requires_grad_()
    loss = nt_xent(view, view.detach(), 0.01)
    loss.backward()
    assert loss.isfinite()
    assert view.grad.isfinite().all()


def test_one_pair_or_no_temperature_is_refused():
    with pytest.raises(ValueError, match="two or more pairs"):
        nt_xent(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="temperature"):
        nt_xent(torch.ones(2, 2), torch.ones(2, 2), 0.0)
