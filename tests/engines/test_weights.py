"""Weights set aside: the rest is small, and nothing is lost."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.weights import set_aside


@pytest.fixture(params=["small", "face"])
def model(request, small, pack) -> onnx.ModelProto:
    return small if request.param == "small" else onnx.load(str(pack.face))


def test_what_is_set_aside_and_what_is_left_are_the_whole_model(model):
    light, weights = set_aside(model)
    whole = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    left = {t.name: numpy_helper.to_array(t) for t in light.graph.initializer if t.name not in weights}
    assert left.keys() | weights.keys() == whole.keys()
    assert all(np.array_equal(value, whole[name]) for name, value in {**left, **weights}.items())
    assert light.ByteSize() < model.ByteSize() / 20
    assert read_norms(light).keys() == read_norms(model).keys()


def test_an_engine_without_changes_gives_the_same_to_the_last_bit_and_so_do_its_own_children(model):
    source = OnnxRuntimeEngine(model, SessionSettings(1, dims={"N": 1}))
    chip = np.random.default_rng(0).integers(0, 256, source.inputs[0].shape, np.uint8)
    before = {name: value.copy() for name, value in source.run({"chip": chip}).items()}
    child = source.with_norms({})
    other = child.with_norms({name: value * 1.1 for name, value in read_norms(model).items()})
    back = other.with_norms(read_norms(model))
    assert not np.array_equal(other.run({"chip": chip})["embedding"], before["embedding"])
    for engine in (source, child, back):
        after = engine.run({"chip": chip})
        assert all(np.array_equal(after[name], before[name]) for name in before)
