"""A student that begins with a finished network's lower layers sees with its eyes, and can be learnt and exported."""

import numpy as np
import pytest
import torch

from trainer.backbones import BackboneError, make
from trainer.backbones.count import parameters
from trainer.backbones.export import face_graph, norm_parameters, verify
from trainer.backbones.heads import ExpressionHead
from trainer.common.proof import TOLERANCE
from trainer.features import open_trunk


@pytest.fixture(scope="module")
def backbone(pack):
    torch.manual_seed(0)
    return make(f"trunk:{pack.path}", 150, 64)


def chips(count):
    return np.random.default_rng(0).integers(0, 256, (count, 150, 150, 3), np.uint8)


def images(seen):
    return torch.from_numpy(np.ascontiguousarray(seen[..., ::-1])).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_it_sees_what_the_pack_sees(pack, backbone):
    seen = chips(2)
    with torch.inference_mode():
        found = backbone.trunk(images(seen))
    assert np.allclose(found, open_trunk(pack.path, 1).features(seen), atol=1e-4)


def test_training_changes_its_weights_and_no_moments_of_the_batch(backbone):
    module = backbone.train()
    before = {name: tensor.clone() for name, tensor in module.trunk.state_dict().items()}
    module(images(chips(2))).summary.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.trunk.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.trunk.state_dict().items())
    backbone.zero_grad()


def test_it_is_exported_with_its_norms_by_name(backbone):
    heads = {"emotion": ExpressionHead(backbone.channels, 7)}
    graph = face_graph(backbone, heads)
    assert verify(graph, backbone, heads, chips(2)) < TOLERANCE
    names = norm_parameters(backbone, heads)
    assert "norm.trunk.layers.level3_3_b_norm.scale" in names
    assert parameters(backbone) < 1_500_000


def test_what_is_no_trunk_is_named(tmp_path, pack):
    (tmp_path / "face.onnx").write_bytes(b"nothing")
    for name, side, named in (
        (f"trunk:{tmp_path}", 150, "no pack"),
        (f"trunk:{tmp_path / 'face.onnx'}", 150, "no output|no ONNX"),
        (f"trunk:{pack.detector}", 150, "no output 'features'"),
        (f"trunk:{pack.path}", 112, "set side to the pack's"),
    ):
        with pytest.raises(BackboneError, match=named):
            make(name, side, 64)
