"""What is left of a norm layer for inference: a factor and an addend, and the same answers."""

import copy

import pytest
import torch
from torch import nn

from trainer.backbones import BackboneError, make
from trainer.backbones.fold import folded

CHANNELS = 6


def trained(layer):
    torch.manual_seed(1)
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter)
    with torch.no_grad():
        for _ in range(3):
            layer.train()(2 * torch.randn(shape_for(layer)) + 1)
    return layer.eval()


def shape_for(layer):
    last = isinstance(layer, nn.LayerNorm) and "2d" not in type(layer).__name__
    return (3, 9, CHANNELS) if last else (3, CHANNELS, 4, 4)


def layers():
    yield nn.BatchNorm2d(CHANNELS)
    yield nn.BatchNorm2d(CHANNELS, affine=False)
    yield nn.LayerNorm(CHANNELS)
    yield nn.LayerNorm(CHANNELS, bias=False)
    yield nn.GroupNorm(2, CHANNELS)
    try:
        make("timm:resnet18", 32, 8)  # so that timm can be imported
    except BackboneError:
        return
    from timm.layers import BatchNormAct2d, LayerNorm2d, LayerNormAct2d

    yield BatchNormAct2d(CHANNELS, act_layer="silu")
    yield LayerNorm2d(CHANNELS)
    yield LayerNormAct2d(CHANNELS, act_layer="relu")


@pytest.mark.parametrize("layer", list(layers()), ids=lambda layer: type(layer).__name__)
def test_it_answers_as_the_layer_did(layer):
    network = nn.Sequential(nn.Identity(), trained(layer))
    x = torch.randn(shape_for(layer))
    changed, affines = folded(network)
    assert list(affines) == ["1"]
    assert affines["1"].scale.numel() == affines["1"].shift.numel() == CHANNELS
    with torch.no_grad():
        assert torch.allclose(changed(x), network(x), atol=1e-6)
        affines["1"].shift += 1
        assert not torch.allclose(changed(x), network(x), atol=1e-2)  # it is a part of the network


def test_the_network_itself_stays_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(network.state_dict())
    folded(network)
    assert network.training
    assert isinstance(network[1], nn.BatchNorm2d)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.BatchNorm2d(4, track_running_stats=False), "the norm 0 has no running moments"),
        (nn.LayerNorm((4, 4)), "the norm 0 has no factor for each channel"),
    ],
)
def test_a_norm_that_is_no_factor_and_addend_is_named(layer, told):
    with pytest.raises(BackboneError, match=told):
        folded(nn.Sequential(layer))
