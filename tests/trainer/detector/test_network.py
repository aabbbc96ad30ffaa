"""The network is small, of layers that a microcontroller runs, and its anchors are those of the arithmetic of boxes."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer import quantise
from trainer.detector.network import RATIO, SIZES, STRIDE, TinySsd, all_anchors, flat, fused
from trainer.losses.detection import corners, decode, encode, match, overlap


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = TinySsd()
    with torch.no_grad():
        for layer in made.modules():
            if isinstance(layer, nn.BatchNorm2d):  # as after some training
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
                layer.bias.normal_(0, 0.3)
    return made.eval()


def test_it_is_small_enough(network):
    assert sum(parameter.numel() for parameter in network.parameters()) < 200_000
    assert sum(parameter.numel() for parameter in TinySsd(0.5).parameters()) < 60_000


def test_it_is_made_of_what_a_microcontroller_runs(network):
    bare = fused(copy.deepcopy(network))
    for layer in bare.modules():
        if list(layer.children()):
            continue
        assert isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.Identity)
        if isinstance(layer, nn.Conv2d):
            assert layer.kernel_size in {(1, 1), (3, 3)}
            assert layer.stride == layer.dilation == (1, 1)
            assert layer.groups == 1


def test_folding_the_norms_changes_nothing(network):
    images = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        before, after = flat(network(images)), flat(fused(copy.deepcopy(network))(images))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_pooling_before_the_norm_is_pooling_behind_the_activation(network):
    """A microcontroller convolves, activates and pools; what is trained pools first."""
    block = network.to_8[0]
    images = torch.randn(1, 3, 32, 32)
    bare = fused(copy.deepcopy(network)).to_8[0]
    with torch.inference_mode():
        torch.testing.assert_close(
            block(images), nn.functional.max_pool2d(torch.relu(bare.conv(images)), 2), rtol=1e-4, atol=1e-5
        )


def test_anchors_stand_in_the_order_in_which_maps_are_flattened(network):
    images = torch.randn(1, 3, 2 * STRIDE, 3 * STRIDE)
    with torch.inference_mode():
        maps = network(images)
        logits, offsets = flat(maps)
    anchors = all_anchors(2 * STRIDE, 3 * STRIDE)
    assert logits.shape == (1, len(anchors))
    assert offsets.shape == (1, len(anchors), 4)
    start = 0
    for stride, sizes in SIZES.items():
        rows, columns, kind = 1, 2, len(sizes) - 1
        place = start + (rows * (3 * STRIDE // stride) + columns) * len(sizes) + kind
        assert logits[0, place] == maps[stride].logits[0, kind, rows, columns]
        assert (offsets[0, place] == maps[stride].offsets[0, 4 * kind : 4 * kind + 4, rows, columns]).all()
        x, y, width, height = anchors[place].tolist()
        assert (x, y) == ((columns + 0.5) * stride, (rows + 0.5) * stride)
        assert width / height == pytest.approx(RATIO)
        assert (width * height) ** 0.5 == pytest.approx(sizes[kind])
        start += (2 * STRIDE // stride) * (3 * STRIDE // stride) * len(sizes)


@given(st.floats(14, 180), st.floats(0.65, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_every_face_between_the_sizes_gets_an_anchor_near_it_and_its_box_comes_back(side, ratio, x, y):
    width, height = side * ratio**0.5, side / ratio**0.5
    corner = torch.tensor([x * (320 - width), y * (256 - height)])
    box = torch.cat([corner, corner + torch.tensor([width, height])])[None]
    anchors = all_anchors(256, 320)
    found = match(box, anchors)
    best = overlap(box, corners(anchors))[0].max()
    assert best > 1 / 3
    matched = found >= 0
    assert matched.sum() >= 1
    again = decode(encode(box.expand(int(matched.sum()), 4), anchors[matched]), anchors[matched])
    torch.testing.assert_close(again, box.expand_as(again), rtol=1e-4, atol=1e-3)


def test_quantised_weights_are_whole_numbers_of_eight_bits(network):
    made = fused(copy.deepcopy(network))
    quantise.prepare(made)
    made.train()
    made(torch.randn(2, 3, 64, 64))
    bits = quantise.finish(made.eval())
    assert len(bits) == sum(isinstance(layer, nn.Conv2d) for layer in made.modules())
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d):
            grid = 2.0 ** quantise.bits_for(float(layer.weight.detach().abs().max()))
            steps = layer.weight * grid
            assert torch.equal(steps, steps.round())
            assert steps.abs().max() <= 128
