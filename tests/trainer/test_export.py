import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from engines.norms import read_norms
from engines.sources.join import _append
from engines.sources.onnx_graph import GraphWriter
from trainer.branch import BranchSettings, EmotionBranch, multiply_adds
from trainer.export import ExportError, branch_graph, onnx_logits, verify, with_small_weights

COMMITTED = Path(__file__).parents[2] / "engines" / "sources" / "emotion.onnx"
SMALL = BranchSettings(stages=((16, 1), (24, 2)))


@pytest.fixture
def branch():
    """A branch whose norms have seen data and whose parameters are all different from what they start as."""
    torch.manual_seed(3)
    branch = EmotionBranch(SMALL)
    for parameter in branch.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for _ in range(3):
        branch(maps_tensor(16))
    return branch.eval()


def maps_tensor(count):
    return torch.randn(count, 64, 17, 17).relu()


def test_the_exported_graph_computes_what_pytorch_does(branch):
    maps = maps_tensor(8)
    difference = verify(branch_graph(branch, 1.5), branch, 1.5, maps.numpy())
    assert difference < 1e-5


def test_a_graph_that_computes_something_else_is_refused(branch):
    with pytest.raises(ExportError, match="differ"):
        verify(branch_graph(branch, 1.5), branch, 1.0, maps_tensor(8).numpy())


def test_every_norm_is_a_named_scale_and_shift(branch):
    graph = with_small_weights(branch_graph(branch))
    norms = read_norms(graph)
    layers = ["input", "block1.a", "block1.b", "block1.skip", "block2.a", "block2.b", "block2.skip"]
    assert set(norms) == {f"norm.emotion.{layer}.{part}" for layer in layers for part in ("scale", "shift")}
    assert all(value.dtype == np.float32 for value in norms.values())
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    used = {
        name: node.op_type for node in graph.graph.node for name in node.input if name.startswith("norm.")
    }
    assert all(used[name] == ("Mul" if name.endswith("scale") else "Add") for name in norms)


def test_a_norm_changed_in_the_graph_acts_as_the_same_change_in_pytorch(branch):
    graph = branch_graph(branch)
    for tensor in graph.graph.initializer:
        if tensor.name == "norm.emotion.input.shift":
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name)
            )
    branch.input.bias.data += 0.5
    assert verify(graph, branch, 1.0, maps_tensor(4).numpy()) < 1e-5


def test_half_precision_storage_halves_the_file_and_hardly_moves_a_logit(branch):
    exact = branch_graph(branch)
    half = with_small_weights(exact)
    assert half.ByteSize() < 0.7 * exact.ByteSize()
    maps = maps_tensor(8).numpy()
    assert np.abs(onnx_logits(half, maps) - onnx_logits(exact, maps)).max() < 0.01


def test_large_weights_are_stored_in_eight_bits_within_half_a_step(monkeypatch, branch):
    monkeypatch.setattr("trainer.export._LARGE", 1000)
    exact = branch_graph(branch)
    stored = {t.name: numpy_helper.to_array(t) for t in with_small_weights(exact).graph.initializer}
    whole = {name.removesuffix(".whole"): value for name, value in stored.items() if name.endswith(".whole")}
    assert whole
    for name, value in whole.items():
        (weight,) = (numpy_helper.to_array(t) for t in exact.graph.initializer if t.name == name)
        step = stored[f"{name}.step"].reshape(-1, *[1] * (value.ndim - 1))
        assert value.dtype == np.int8
        assert (np.abs(value * step - weight) <= 0.501 * step).all()


@pytest.mark.parametrize("large", [1 << 19, 1000])
def test_a_network_that_is_joined_to_widens_the_stored_weights_to_the_same_logits(monkeypatch, branch, large):
    monkeypatch.setattr("trainer.export._LARGE", large)
    small = with_small_weights(branch_graph(branch))
    writer = GraphWriter()
    _append(writer, small.graph)
    wide = writer.model("wide", list(small.graph.input), list(small.graph.output))
    assert {"Cast", "DequantizeLinear"}.isdisjoint(node.op_type for node in wide.graph.node)
    maps = maps_tensor(4).numpy()
    assert np.abs(onnx_logits(wide, maps) - onnx_logits(small, maps)).max() < 1e-6


def test_the_default_branch_stays_within_its_cost():
    assert multiply_adds(BranchSettings()) < 100e6


def test_the_committed_branch_is_small_and_the_one_its_card_describes():
    data = COMMITTED.read_bytes()
    assert len(data) <= 5_000_000
    card = COMMITTED.with_suffix(".md").read_text(encoding="utf-8")
    assert re.findall(r"\| SHA-256 \| `([0-9a-f]{64})` \|", card) == [hashlib.sha256(data).hexdigest()]


def test_the_committed_branch_has_the_promised_interface():
    session = onnxruntime.InferenceSession(COMMITTED.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("features", "tensor(float)", ["N", 64, 17, 17])
    assert (made.name, made.type, made.shape) == ("emotion", "tensor(float)", ["N", 7])
    model = onnx.load(COMMITTED)
    assert [entry.version for entry in model.opset_import] == [17]
    assert all(np.isfinite(value).all() for value in read_norms(model).values())
