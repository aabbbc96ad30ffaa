"""The emotion branch joined to the face network: one run, both answers, neither changed by the other."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.sources import default_pack
from engines.sources.archives import FACE_RESNET
from engines.sources.dlib_format import read_layers
from engines.sources.dlib_resnet import face_network
from engines.sources.join import join
from engines.sources.onnx_graph import GraphWriter, norm

ONE = SessionSettings(threads=1, dims={"N": 1})


def branch(reads="features", gives="emotion"):
    """A tiny branch: a norm, the mean over the map, a linear layer stored in half precision."""
    rng = np.random.default_rng(0)
    writer = GraphWriter()
    x = norm(writer, reads, "emotion.input", rng.random(64, np.float32), rng.random(64, np.float32))
    x = writer.node("ReduceMean", [x], "emotion.pool", axes=[2, 3], keepdims=0)
    half = writer.constant("emotion.head.half", rng.standard_normal((64, 5)).astype(np.float16))
    writer.node("MatMul", [x, writer.node("Cast", [half], "emotion.head", to=TensorProto.FLOAT)], gives)
    return writer.model(
        "branch",
        [helper.make_tensor_value_info(reads, TensorProto.FLOAT, ["N", 64, 17, 17])],
        [helper.make_tensor_value_info(gives, TensorProto.FLOAT, ["N", 5])],
    )


@pytest.fixture(scope="module")
def trunk(sources):
    return face_network(read_layers(sources[FACE_RESNET].read_bytes()))


@pytest.fixture(scope="module")
def chip():
    return np.random.default_rng(1).integers(0, 256, (1, 150, 150, 3), np.uint8)


def test_one_run_gives_what_two_gave(trunk, chip):
    apart = OnnxRuntimeEngine(trunk, ONE).run({"chip": chip})
    emotion = OnnxRuntimeEngine(branch(), ONE).run({"features": apart["features"]})["emotion"]
    joined = OnnxRuntimeEngine(join(trunk, branch()), ONE).run({"chip": chip})
    assert list(joined) == ["embedding", "emotion"]
    assert np.abs(joined["embedding"] - apart["embedding"]).max() < 1e-6
    assert np.abs(joined["emotion"] - emotion).max() < 1e-5


def test_our_own_branch_says_in_the_pack_what_it_says_alone(pack, trunk, chip):
    own = onnx.load(str(default_pack.EMOTION_BRANCH))
    features = OnnxRuntimeEngine(trunk, ONE).run({"chip": chip})["features"]
    alone = OnnxRuntimeEngine(own, ONE).run({"features": features})["emotion"]
    joined = OnnxRuntimeEngine.load(pack.face, ONE).run({"chip": chip})["emotion"]
    assert np.abs(joined - alone).max() < 1e-4


def test_nothing_is_stored_in_half_precision_any_more(trunk):
    """A Cast at every run would cost time, and only float32 initializers can be refitted as they are."""
    joined = join(trunk, branch())
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in joined.graph.initializer}
    assert [node.input[0] for node in joined.graph.node if node.op_type == "Cast"] == ["chip.planes"]


def test_the_same_parts_give_the_same_bytes(trunk):
    first, second = (join(trunk, branch()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("wrong", [{"reads": "map"}, {"gives": "logits"}])
def test_a_branch_of_another_kind_is_refused(trunk, wrong):
    with pytest.raises(ValueError, match="the emotion branch must"):
        join(trunk, branch(**wrong))


def test_names_that_meet_are_refused(trunk):
    """Or one part would silently compute with the other's weights."""
    with pytest.raises(ValueError, match="exists already"):
        join(trunk, with_initializer(branch(), "stem.weight"))


def with_initializer(model, name):
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), name))
    return model
