"""The torch module is the pack's own network: same answers, and its norm parameters are the pack's."""

import numpy as np
import onnx
import pytest
from onnx import helper

from engines.engine import EngineError
from engines.norms import read_norms, write_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

torch = pytest.importorskip("torch")
from agent.adaptation.chip_filter import CHIP_FILTER, SIDE, adaptable, adapted  # noqa: E402
from agent.adaptation.network import FaceNetwork, FilteredNetwork  # noqa: E402

CHIPS = np.random.default_rng(0).integers(0, 256, (4, 150, 150, 3), np.uint8)


@pytest.fixture(scope="module")
def model(pack) -> onnx.ModelProto:
    return onnx.load(pack.face)


def answers(network: FaceNetwork) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: value.numpy() for name, value in network(torch.from_numpy(CHIPS)).items()}


def reference(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    engine = OnnxRuntimeEngine(model, SessionSettings(threads=1, dims={"N": len(CHIPS)}))
    return {name: value.copy() for name, value in engine.run({"chip": CHIPS}).items()}


def test_the_module_answers_as_the_engine_does(model):
    found, expected = answers(FaceNetwork(model)), reference(model)
    assert np.abs(found["embedding"] - expected["embedding"]).max() < 1e-5
    assert np.abs(found["emotion"] - expected["emotion"]).max() < 1e-4


def test_its_norm_parameters_are_the_graphs(model):
    network = FaceNetwork(model)
    found, expected = network.read_norms(), read_norms(model)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert {id(p) for p in network.parameters()} == {
        id(p) for norm in network.norms.values() for p in (norm.scale, norm.shift)
    }


def test_a_filter_does_here_what_it_does_before_an_engine(model):
    network, params = FilteredNetwork(FaceNetwork(model)), adaptable(model)
    assert all(np.array_equal(value, params[name]) for name, value in network.read_norms().items())
    params[CHIP_FILTER] = np.float32(np.random.default_rng(1).uniform(0, 2 / SIDE**2, SIDE * SIDE))
    network.write_norms(params)
    engine = adapted(OnnxRuntimeEngine(model, SessionSettings(1, dims={"N": len(CHIPS)})), params)
    expected, found = engine.run({"chip": CHIPS}), answers(network)
    assert (found["embedding"] * expected["embedding"]).sum(1).min() > 0.9999  # the engine's chip is rounded


def test_a_restrained_filter_is_alike_in_all_directions_and_leaves_the_light_as_it_is(model):
    network = FilteredNetwork(FaceNetwork(model))
    network.restrain()
    assert np.array_equal(network.read_norms()[CHIP_FILTER], adaptable(model)[CHIP_FILTER])
    network.write_norms({CHIP_FILTER: np.random.default_rng(2).normal(size=SIDE * SIDE).astype(np.float32)})
    network.restrain()
    found = network.read_norms()[CHIP_FILTER].reshape(SIDE, SIDE)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    for turned in (found.T, found[::-1], found[:, ::-1], np.rot90(found)):
        assert turned == pytest.approx(found, abs=1e-6)


def test_norms_changed_here_do_the_same_there(model):
    network = FaceNetwork(model)
    changed = {name: value * np.float32(0.97) + np.float32(0.01) for name, value in read_norms(model).items()}
    network.write_norms(changed)
    found, expected = answers(network), reference(write_norms(model, network.read_norms()))
    assert np.abs(found["embedding"] - expected["embedding"]).max() < 1e-4
    assert np.abs(found["emotion"] - expected["emotion"]).max() < 1e-3


def test_for_the_expression_alone_the_rest_of_the_trunk_is_left_out(model):
    network = FaceNetwork(model, ["emotion"])
    assert "level0.0.b" not in network.norms
    assert np.abs(answers(network)["emotion"] - reference(model)["emotion"]).max() < 1e-4


def test_an_operator_that_is_not_known_is_named():
    graph = helper.make_graph(
        [helper.make_node("Tan", ["chip"], ["emotion"])],
        "strange",
        [helper.make_tensor_value_info("chip", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("emotion", onnx.TensorProto.FLOAT, [1])],
    )
    with pytest.raises(EngineError, match="strange: operator Tan"):
        FaceNetwork(helper.make_model(graph), ["emotion"])
