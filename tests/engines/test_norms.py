"""Norm parameters: what adaptation reads and writes, and nothing else."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from engines.norms import read_norms, write_norms
from engines.sources.onnx_graph import GraphWriter, norm

CHANNELS = 3


@pytest.fixture(scope="module")
def model():
    writer = GraphWriter()
    ones, zeros = np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)
    x = norm(writer, "x", "first", 2 * ones, zeros)
    x = norm(writer, x, "second", ones, 5 * ones)
    writer.node("Mul", [x, writer.constant("weight", np.float32([7]))], "y")
    shape = ["N", CHANNELS, 4, 4]
    return writer.model(
        "two_norms",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )


def test_they_are_found_by_name_in_the_order_of_the_graph(model):
    found = read_norms(model)
    assert list(found) == ["norm.first.scale", "norm.first.shift", "norm.second.scale", "norm.second.shift"]
    assert found["norm.first.scale"].tolist() == [2, 2, 2]
    assert found["norm.second.shift"].dtype == np.float32


@given(arrays(np.float32, CHANNELS, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_what_is_written_is_read_and_the_rest_stays(model, value):
    before = model.SerializeToString(deterministic=True)
    changed = write_norms(model, {"norm.second.scale": value})
    expected = {**read_norms(model), "norm.second.scale": value}
    found = read_norms(changed)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert changed.graph.node == model.graph.node
    assert model.SerializeToString(deterministic=True) == before


def test_writing_what_is_there_changes_no_byte(model):
    again = write_norms(model, read_norms(model))
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("norm.third.scale", np.ones(CHANNELS), "no norm parameter norm.third.scale"),
        ("weight", np.ones(1), "no norm parameter weight"),
        ("norm.first.scale", np.ones(CHANNELS + 1), "has 3 channels, not 4"),
        ("norm.first.scale", np.ones(0), "has 3 channels, not 0"),
        ("norm.first.shift", np.array([1, np.nan, 1]), "not finite"),
        ("norm.first.shift", np.array([1, 1, -np.inf]), "not finite"),
        ("norm.first.shift", np.array([1, 1, 1e300]), "not finite"),  # in float32
    ],
)
def test_what_cannot_be_meant_is_refused(model, name, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        write_norms(model, {name: value})


def test_the_face_networks_norms_are_all_there(pack):
    found = read_norms(onnx.load(str(pack.face)))
    layers = {name.rsplit(".", 1)[0] for name in found}
    trunk = {layer for layer in layers if not layer.startswith("norm.emotion.")}
    assert len(trunk) == 30  # the pixels and 29 convolutions
    assert "norm.input" in trunk
    assert len(layers) > len(trunk)
    assert set(found) == {f"{layer}.{part}" for layer in layers for part in ("scale", "shift")}


def test_each_norm_is_a_mul_and_an_add_of_its_own(pack):
    """Only then can every backend change it: a folded norm has no name any more."""
    model = onnx.load(str(pack.face))
    users = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("norm."):
            assert users[tensor.name] == ["Mul" if tensor.name.endswith(".scale") else "Add"]
            channels = numpy_helper.to_array(tensor).size
            assert tuple(tensor.dims) == (1, channels, 1, 1)
