"""Steps and distances are relative to what is learnt, whatever holds it."""

import numpy as np
import pytest

from agent.adaptation.relative import unit


def test_factors_go_by_their_mean_size_and_addends_too_unless_they_are_small():
    value = np.array([-2.0, 4.0], np.float32)
    assert unit("norm.one.scale", value) == unit("one.weight", value) == unit("norm.one.shift", value) == 3.0
    small = 0.01 * value
    assert unit("norm.one.scale", small) == pytest.approx(0.03)
    assert unit("norm.one.shift", small) == unit("one.bias", small) == 1.0
    assert unit("norm.one.shift", small, least_addend=0.02) == pytest.approx(0.03)
    assert unit("norm.one.shift", 0 * value, least_addend=0.05) == 0.05
    assert unit("norm.one.scale", 0 * value) > 0  # something to divide by


def test_it_is_the_same_of_a_tensor():
    torch = pytest.importorskip("torch")
    value = np.random.default_rng(0).normal(size=32).astype(np.float32)
    assert unit("a.scale", torch.from_numpy(value)) == pytest.approx(unit("a.scale", value))
