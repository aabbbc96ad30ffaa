"""Training through whole numbers: the grid is a power of two, gradients pass, and what comes out runs on the grid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.quantise import (
    QuantisationError,
    Quantised,
    bits_for,
    deployable,
    finish,
    power_of_two,
    prepare,
    try_out,
    wrapped,
)

WIDTHS = st.integers(2, 16)


def test_by_hand():
    x = torch.tensor([0.3, -0.3, 0.125, 0.375, 5.0, -5.0])  # halves go to the even neighbour
    assert power_of_two(x, 2, 4).tolist() == [0.25, -0.25, 0.0, 0.5, 1.75, -2.0]
    assert power_of_two(torch.tensor([5.0, 7.0]), -1, 8).tolist() == [4.0, 8.0]


@given(st.floats(-1000, 1000), st.integers(-4, 12), WIDTHS)
def test_a_quantised_number_is_whole_in_its_grid_and_the_nearest_within_reach(x, bits, width):
    q = power_of_two(torch.tensor(x, dtype=torch.float64), bits, width).item()
    whole = q * 2.0**bits
    assert whole == round(whole)
    assert -(2 ** (width - 1)) <= whole <= 2 ** (width - 1) - 1
    if -(2 ** (width - 1)) <= x * 2.0**bits <= 2 ** (width - 1) - 1:
        assert abs(q - x) <= 2.0**-bits / 2
    assert power_of_two(torch.tensor(q, dtype=torch.float64), bits, width).item() == q


@given(st.floats(1e-6, 1e6), WIDTHS)
def test_the_finest_grid_that_holds_the_range(peak, width):
    bits = bits_for(peak, width)
    largest = 2 ** (width - 1) - 1
    assert peak * 2.0**bits <= largest < peak * 2.0 ** (bits + 1)


def test_nothing_and_next_to_nothing_have_a_grid():
    assert bits_for(0.0) == 6
    tiny = torch.tensor([1e-42, 0.0])
    assert power_of_two(tiny, bits_for(1e-42)).isfinite().all()


def test_gradients_pass_straight_through_and_stop_beyond_the_largest_number():
    x = torch.tensor([0.3, 1.0, -2.0, 1.9, -9.0], requires_grad=True)
    power_of_two(x, 2, 4).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(16, 2)
    )


def test_wrapped_layers_compute_on_the_grid_and_the_fine_weights_are_trained():
    layer = Quantised(nn.Linear(3, 2, bias=False), width=4)
    fine = layer.layer.weight
    x = torch.tensor([[0.9, -0.2, 3.4]])
    layer(x).sum().backward()
    bits = bits_for(fine.abs().max().item(), 4)
    by_hand = power_of_two(x, bits_for(3.4, 4), 4) @ power_of_two(fine, bits, 4).T
    assert (layer(x) == by_hand).all()
    assert fine.grad.abs().sum() > 0


def test_the_range_is_learnt_in_training_and_stands_still_in_evaluation():
    layer = Quantised(nn.Linear(1, 1))
    for peak in (2.0, 4.0):
        layer(torch.tensor([[-peak]]))
    assert layer.peak.item() == pytest.approx(0.99 * 2.0 + 0.01 * 4.0)
    layer.eval()
    layer(torch.tensor([[100.0]]))
    assert layer.peak.item() == pytest.approx(2.02)


def test_a_network_is_wrapped_fine_tuned_and_unwrapped_with_its_old_names():
    made = network()
    names = set(made.state_dict())
    prepare(made, width=4)
    assert isinstance(made[0], Quantised)
    assert isinstance(made[3], Quantised)
    x, y = torch.randn(64, 1, 4, 4), torch.arange(64) % 2
    x += y[:, None, None, None] * torch.linspace(-1, 1, 16).reshape(4, 4)
    optimiser = torch.optim.Adam(made.parameters(), 0.01)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(made(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    made.eval()
    answer = made(x)
    peaks = {name: made.get_submodule(name).peak.item() for name in ("0", "3")}
    bits = finish(made)
    assert bits == {name: bits_for(peak, 4) for name, peak in peaks.items()}
    assert set(made.state_dict()) == names
    for layer in (made[0], made[3]):
        grid = layer.weight * 2.0 ** bits_for(layer.weight.abs().max().item(), 4)
        assert (grid == grid.round()).all()
        assert grid.abs().max() <= 8
    # Outside the wrapper the input is no longer rounded: the answers stay near.
    assert (made(x).argmax(1) == answer.argmax(1)).float().mean() > 0.9


def test_to_prepare_twice_wraps_once():
    made = network()
    prepare(made)
    prepare(made)
    assert not isinstance(made[0].layer, Quantised)
    assert set(finish(made)) == {"0", "3"}


def test_a_copy_is_unwrapped_and_what_it_was_copied_from_trains_on():
    made = network()
    _, bits = deployable(made)
    assert not bits
    assert not wrapped(made.state_dict())
    prepare(made)
    assert wrapped(made.state_dict())
    x = torch.randn(8, 1, 4, 4)
    before = made(x)
    copied, bits = deployable(made)
    assert set(bits) == {"0", "3"}
    assert isinstance(copied[0], nn.Conv2d)
    assert not copied.training
    assert torch.equal(copied[3].weight, made[3].on_grid())
    assert not torch.equal(copied[3].weight, made[3].layer.weight)
    made(x).sum().backward()
    assert made[0].layer.weight.grad is not None
    assert torch.equal(made(x), before)


def test_what_cannot_be_rounded_from_outside_is_refused():
    with pytest.raises(QuantisationError, match=r"0\.out_proj is a NonDynamicallyQuantizableLinear"):
        prepare(nn.Sequential(nn.MultiheadAttention(4, 1)))

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return nn.functional.linear(x, self.inner.weight)

    past = Functional()
    prepare(past)
    with pytest.raises(QuantisationError, match="past the layers"):
        try_out(past, torch.zeros(1, 2))
