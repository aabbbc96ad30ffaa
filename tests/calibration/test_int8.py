"""Eight bits touch the products and nothing else, so that adaptation and every backend find what they know."""

from itertools import pairwise

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from agent import networks
from agent.config import Config
from agent.perception.align import align
from agent.perception.chain import FaceReader
from calibration.int8 import METHODS, PRODUCTS, QuantisationError, layers, quantise, restore, weight_count
from calibration.sensitivity import Layer, fewest, rank
from engines.model import read_model
from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

SETTINGS = SessionSettings(threads=1, dims={"N": 1})


@pytest.fixture(scope="module")
def chips(pack, photographs) -> list[np.ndarray]:
    """Faces of the sample clip, as the chain cuts them."""
    loaded = networks.load(pack, Config())
    reader = FaceReader(loaded, Config(), lambda: 0.0)
    template = np.array(pack.manifest.face.template, np.float32)
    found = []
    for file in sorted(photographs.glob("*/*.png"))[::6]:
        image = cv2.imread(str(file))
        chip = np.empty((150, 150, 3), np.uint8)
        align(image, reader.find(image)[0].landmarks, template, chip)
        found.append(chip)
    loaded.close()
    return found


@pytest.fixture(scope="module")
def face(pack) -> onnx.ModelProto:
    return read_model(pack.face)


@pytest.fixture(scope="module")
def quantised(face, chips) -> onnx.ModelProto:
    return quantise(face, chips, "entropy")


def embed(model: onnx.ModelProto, chip: np.ndarray) -> np.ndarray:
    engine = OnnxRuntimeEngine(model, SETTINGS)
    embedding = engine.run({"chip": chip[None]})["embedding"][0].copy()
    engine.close()
    return embedding


def test_every_product_runs_in_eight_bits_and_the_embedding_stays_near(face, quantised, chips):
    onnx.checker.check_model(quantised, full_check=True)
    products = [node.name for node in face.graph.node if node.op_type in PRODUCTS]
    assert sorted(layers(quantised)) == sorted(products)
    assert weight_count(quantised)[0] == weight_count(quantised)[1] > 5_000_000
    assert weight_count(face)[0] == 0
    assert [o.name for o in quantised.graph.output] == [o.name for o in face.graph.output]
    assert embed(face, chips[3]) @ embed(quantised, chips[3]) > 0.998


def test_zero_points_are_0_weights_have_a_scale_for_each_channel_and_biases_stay_float(face, quantised):
    tensors = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer}
    makers = {node.output[0]: node for node in quantised.graph.node}
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear":
            assert tensors[node.input[2]].dtype == np.int8
            assert not tensors[node.input[2]].any()
            assert (tensors[node.input[1]] > 0).all()
        elif node.op_type != "DequantizeLinear" and node.op_type not in PRODUCTS:
            assert not [name for name in node.input if name.endswith("_DequantizeLinear_Output")], node.name
        elif node.op_type in PRODUCTS:
            pair = makers[makers[node.input[1]].input[0]]
            channels = tensors[pair.input[0]].shape[1 if node.op_type == "MatMul" else 0]
            assert tensors[pair.input[1]].shape == (channels,)
            for bias in node.input[2:]:
                assert tensors[bias].dtype == np.float32


def test_norm_parameters_are_what_they_were_and_can_still_be_exchanged(face, quantised, chips):
    before, after = read_norms(face), read_norms(quantised)
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    engine = OnnxRuntimeEngine(quantised, SETTINGS)
    plain = engine.run({"chip": chips[0][None]})["embedding"].copy()
    other = engine.with_norms({"norm.stem.scale": before["norm.stem.scale"] * 1.5})
    assert np.abs(other.run({"chip": chips[0][None]})["embedding"] - plain).max() > 0.001
    again = other.with_norms({"norm.stem.scale": before["norm.stem.scale"]})
    assert np.allclose(again.run({"chip": chips[0][None]})["embedding"], plain, atol=1e-6)


def test_layers_go_back_to_float_one_by_one_until_the_first_network_is_back(face, quantised, chips):
    names = layers(quantised)
    some = restore(quantised, names[:5])
    assert layers(some) == names[5:]
    assert 0 < weight_count(some)[0] < weight_count(some)[1]
    back = restore(quantised, names)
    assert not {node.op_type for node in back.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    assert np.allclose(embed(back, chips[0]), embed(face, chips[0]), atol=1e-6)
    with pytest.raises(ValueError, match="no quantised layer nonsense"):
        restore(quantised, ["nonsense"])


def test_the_same_faces_make_the_same_network(small):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), np.uint8))
    first, second = (quantise(small, images, "entropy") for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


@pytest.mark.parametrize("method", METHODS)
def test_each_method_makes_a_network_that_runs(method, small, capfd):
    images = list(np.random.default_rng(0).integers(0, 256, (9, 24, 24, 3), np.uint8))
    seen = []
    made = quantise(small, images, method, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]
    assert np.isfinite(embed(made, images[0])).all()
    assert capfd.readouterr() == ("", "")  # the screen belongs to the report


def test_the_detector_is_quantised_but_for_its_transposed_convolutions(pack, photographs):
    detector = read_model(pack.detector)
    image = cv2.resize(cv2.imread(str(next(photographs.glob("*/*.png")))), (128, 96))
    made = quantise(detector, [image] * 2, "minmax")
    assert len(layers(made)) == sum(node.op_type == "Conv" for node in detector.graph.node)
    engine = OnnxRuntimeEngine(made, SessionSettings(threads=1, dims={"H": 96, "W": 128}))
    assert all(np.isfinite(value).all() for value in engine.run({"image": image[None]}).values())


def test_nothing_to_calibrate_on_is_told(small):
    with pytest.raises(QuantisationError, match="no image"):
        quantise(small, [], "entropy")


def test_the_layer_that_suffers_most_is_ranked_first(small):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), np.uint8))
    made = quantise(small, images, "minmax")
    worst = layers(made)[1]
    for tensor in made.graph.initializer:  # its input is rounded to three values
        if tensor.name.endswith("_scale") and tensor.name.startswith("0.relu"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 60, tensor.name))
    reference = embed(small, images[0])
    found = rank(
        made, lambda model: float(1 - reference @ embed(model, images[0])), "layers", lambda *_: None
    )
    assert found[0].name == worst
    assert sorted(layer.name for layer in found) == sorted(layers(made))
    assert all(a.harm >= b.harm for a, b in pairwise(found))


@pytest.mark.parametrize("needed", [0, 1, 6, 10])
def test_no_more_layers_stay_in_float_than_the_gate_demands(needed):
    ranked = [Layer(f"layer{k}", 10.0 - k) for k in range(10)]
    asked = []

    def passes(kept: list[str]) -> bool:
        asked.append(len(kept))
        return len(kept) >= needed

    assert fewest(ranked, passes) == [layer.name for layer in ranked[:needed]]
    assert len(asked) <= 5
    assert fewest(ranked, lambda kept: False) is None
