from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from trainer.backbones import Backbone, make
from trainer.backbones.heads import EmbeddingHead, ExpressionHead

DIM = 32
SMALL = {
    "ghostfacenet-v1": (112, 0.25),
    "ghostfacenet-v1-2": (112, 0.25),
    "ghostfacenet-v1-plain": (64, 0.25),
    "ghostfacenet-v2": (112, 0.25),
    "ghostfacenet-v2-2": (150, 0.25),
    "mobilefacenet": (112, 0.25),
    "ir50": (112, 0.125),
    "ir100": (64, 0.125),
    "timm:efficientnet_b0": (112, 1.0),
    "timm:vit_tiny_patch16_224": (112, 1.0),
    "timm:convnext_atto": (64, 1.0),
}
"""Each backbone, in a size that a test can afford: side of the pictures and width. The last three are timm's kinds of
network: batch norms that bring their activation, layer norms over tokens, layer norms over maps.
"""


def seasoned(module: nn.Module) -> nn.Module:
    """Bring a network to where training leaves it: no norm is as it was made, and all of them have seen data."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # a plain mean over what follows
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@cache
def network(name: str, side: int | None = None) -> tuple[Backbone, dict[str, nn.Module]]:
    """A backbone with weights as training leaves them, and both heads."""
    if name.startswith("timm:") and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    torch.manual_seed(3)
    usual, width = SMALL[name]
    side = side or usual
    backbone = seasoned(make(name, side, 2 * DIM, width))
    heads = {
        "embedding": seasoned(EmbeddingHead(2 * DIM, DIM)),
        "emotion": seasoned(ExpressionHead(backbone.channels, 7)),
    }
    with torch.no_grad():
        features = backbone.train()(torch.rand(4, 3, side, side) * 2 - 1)
        heads["embedding"].train()(features.summary)
    return backbone.eval(), {key: head.eval() for key, head in heads.items()}


def chips(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Noise as chips are: uint8 BGR [count, side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks lose time to threads, most of all where others compute as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=SMALL)
def small(request) -> str:
    """The name of each backbone in turn."""
    return request.param


Make = Callable[..., tuple[Backbone, dict[str, nn.Module]]]


@pytest.fixture(scope="session")
def made() -> Make:
    """Gives a backbone and its heads by name; each is made once, and no test changes it."""
    return network


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    return chips
