"""Counts of parameters and multiply-adds, against those made by hand."""

from torch import nn

from trainer.backbones.count import multiply_adds, parameters


def test_a_convolution_counted_by_hand():
    module = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    assert parameters(module) == 8 * 3 * 3 * 3 + 8
    assert multiply_adds(module, 16) == 8 * 8 * 8 * (3 * 3 * 3)  # 8×8 cells of 8 channels, 27 products each


def test_groups_and_linear_layers_are_counted_by_hand():
    module = nn.Sequential(nn.Conv2d(3, 6, 5, groups=3, bias=False), nn.Flatten(), nn.Linear(6 * 4 * 4, 10))
    assert parameters(module) == 6 * 5 * 5 + 96 * 10 + 10
    assert multiply_adds(module, 8) == 4 * 4 * 6 * 25 + 96 * 10


def test_counting_changes_nothing_and_needs_no_training():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    multiply_adds(module, 8)
    assert module.training
    assert module[0].weight.device.type == "cpu"
    assert int(module[1].num_batches_tracked) == 0
