"""What a gradient descends: by hand, and against finite differences."""

import math

import pytest

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck  # noqa: E402

from agent.adaptation import losses  # noqa: E402

EVEN = torch.zeros(1, 4)
LIKELY = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log()
H_LIKELY = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))


def logits(rows: int = 5, labels: int = 7) -> torch.Tensor:
    made = torch.randn(rows, labels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (2 * made).requires_grad_()


def test_entropy_is_as_by_hand():
    assert float(losses.entropy(EVEN)) == pytest.approx(math.log(4))
    assert float(losses.entropy(LIKELY)) == pytest.approx(H_LIKELY)


def test_its_gradient_is_that_of_finite_differences_and_of_the_formula():
    x = logits()
    assert gradcheck(losses.entropy, x)
    losses.entropy(x).sum().backward()
    p = x.detach().softmax(1)
    assert torch.allclose(x.grad, -p * (p.log() + losses.entropy(x.detach())[:, None]))


def test_an_answer_that_is_not_sure_teaches_nothing_and_a_sure_one_the_more_the_surer():
    limit = 0.7 * math.log(4)
    found = losses.sureness(torch.cat([EVEN, LIKELY]), 0.7)
    assert found.tolist() == pytest.approx([0.0, math.exp(limit - H_LIKELY)])
    assert float(losses.sure_entropy(torch.cat([EVEN, LIKELY]), 0.7)) == pytest.approx(
        math.exp(limit - H_LIKELY) * H_LIKELY / 2
    )


def test_the_weight_of_an_answer_has_no_gradient():
    x = logits()
    weight = losses.sureness(x, 0.9).detach()
    losses.sure_entropy(x, 0.9).backward()
    found, x.grad = x.grad, None
    (weight * losses.entropy(x)).mean().backward()
    assert torch.allclose(found, x.grad)
    assert weight.count_nonzero() > 1


def test_feature_consistency_is_the_squared_distance():
    base = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    adapted = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert float(losses.feature_consistency(base, adapted)) == pytest.approx((2 + 0) / 2)


def test_a_pupil_that_answers_as_the_views_do_in_the_mean_has_nothing_to_learn():
    views = torch.stack([torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()])
    assert float(losses.view_consistency(views, torch.tensor([[0.7, 0.3]]).log())) == pytest.approx(
        0, abs=1e-6
    )
    expected = 0.7 * math.log(0.7 / 0.2) + 0.3 * math.log(0.3 / 0.8)
    assert float(losses.view_consistency(views, torch.tensor([[0.2, 0.8]]).log())) == pytest.approx(expected)


def test_the_gradients_of_both_consistencies_are_those_of_finite_differences():
    x, views = logits(), torch.stack([logits(), logits().flip(0)]).detach()
    assert gradcheck(lambda each: losses.view_consistency(views, each), x)
    assert gradcheck(lambda each: losses.feature_consistency(views[0], each), x)
