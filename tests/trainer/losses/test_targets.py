"""What a classifier is to answer where labels are doubted and pictures are mixed."""

import numpy as np
import pytest
import torch

from trainer.losses.targets import mixed, smoothed


def test_a_smoothed_label_leaves_something_to_all_classes():
    targets = smoothed(torch.tensor([2, 0]), 4, 0.2)
    torch.testing.assert_close(targets, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))


def test_an_input_and_its_target_are_mixed_alike():
    targets = torch.eye(5)
    inputs = 10 * targets[:, :, None, None].expand(-1, -1, 2, 3)
    x, y = mixed(inputs, targets, 0.7, np.random.default_rng(3))
    torch.testing.assert_close(x[:, :, 1, 2], 10 * y)
    torch.testing.assert_close(y.sum(1), torch.ones(5))
    assert ((y > 0).sum(1) == 2).any()  # some are between two
    again = mixed(inputs, targets, 0.7, np.random.default_rng(3))
    assert torch.equal(again[0], x)


def test_nothing_is_mixed_and_nothing_drawn_where_it_is_turned_off():
    rng = np.random.default_rng(3)
    x, y = torch.rand(4, 2), torch.eye(4)
    assert mixed(x, y, 0, rng) == (x, y)
    assert rng.random() == pytest.approx(np.random.default_rng(3).random())
