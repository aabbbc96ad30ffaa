"""The converter to LiteRT: what it writes computes what the ONNX graph says, and what it cannot write it names."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")

from engines.engine import EngineError
from engines.litert_convert import convert, to_tflite
from engines.litert_engine import LiteRTEngine
from engines.model import with_dims
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.sources.onnx_graph import GraphWriter, image_input, norm


def image_model(build, side, channels=4, rank=4):
    """A model of one image whose pixels ``build(writer, x, channels)`` turns into the output ``y``."""
    rng = np.random.default_rng(0)
    writer = GraphWriter()
    x = image_input(writer, "image")
    weight = writer.constant("spread", rng.normal(0, 0.01, (channels, 3, 1, 1)).astype(np.float32))
    x = writer.node("Conv", [x, weight], "pixels", kernel_shape=[1, 1])
    build(writer, x, rng)
    return writer.model(
        "image",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, side, side, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("abcd"[:rank]))],
    )


def assert_same(model):
    static = with_dims(model, {})
    chip = np.random.default_rng(1).integers(0, 256, static_shape(static), np.uint8)
    expected = OnnxRuntimeEngine(model, SessionSettings(threads=1)).run({"image": chip})["y"]
    found = LiteRTEngine(static, threads=1).run({"image": chip})["y"]
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def static_shape(model):
    return [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]


@given(
    side=st.integers(7, 18),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    depthwise=st.booleans(),
    bias=st.booleans(),
    followed=st.lists(st.sampled_from(["norm", "relu", "skip"]), max_size=3),
)
@example(
    8, 3, 2, 1, (1, 1, 1, 1), False, True, ["norm", "relu"]
)  # ONNX and TensorFlow differ in where they pad
@example(9, 3, 2, 1, (1, 1, 1, 1), False, True, ["norm", "relu"])  # and here they do not
def test_convolutions_of_every_shape(side, kernel, stride, dilation, pads, depthwise, bias, followed):
    assume(dilation == 1 or stride == 1)
    assume((kernel - 1) * dilation < side)

    def build(writer, x, rng):
        weight = rng.normal(0, 0.3, (8, 1 if depthwise else 4, kernel, kernel)).astype(np.float32)
        inputs = [x, writer.constant("weight", weight)]
        if bias:
            inputs.append(writer.constant("bias", rng.normal(size=8).astype(np.float32)))
        y = writer.node(
            "Conv",
            inputs,
            "conv",
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            pads=list(pads),
            group=4 if depthwise else 1,
        )
        for index, what in enumerate(followed):
            if what == "norm":
                scale, shift = rng.normal(size=(2, 8)).astype(np.float32)
                y = norm(writer, y, f"layer{index}", scale, shift)
            elif what == "relu":
                y = writer.node("Relu", [y], f"relu{index}")
            else:  # two readers: nothing may be folded across this point
                y = writer.node("Add", [writer.node("Relu", [y], f"side{index}"), y], f"skip{index}")
        writer.node("Relu", [y], "y")

    assert_same(image_model(build, side))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "side"), [(2, 2, 0, 9), (3, 2, 0, 12), (3, 2, 1, 17), (3, 1, 1, 8)]
)
def test_pools(op, kernel, stride, pad, side):
    def build(writer, x, rng):
        writer.node(op, [x], "y", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    assert_same(image_model(build, side))


def test_deconvolution_with_batch_normalisation():
    def build(writer, x, rng):
        weight = writer.constant("weight", rng.normal(size=(4, 6, 2, 2)).astype(np.float32))
        x = writer.node("ConvTranspose", [x, weight], "up", kernel_shape=[2, 2], strides=[2, 2])
        moments = [writer.constant(name, rng.uniform(0.5, 2, 6).astype(np.float32)) for name in "gbmv"]
        x = writer.node("BatchNormalization", [x, *moments], "bn", epsilon=1e-3)
        writer.node("Relu", [x], "y")

    assert_same(image_model(build, 9))


def test_squeeze_pad_and_mean():
    def build(writer, x, rng):
        gate = writer.node("Sigmoid", [writer.node("GlobalAveragePool", [x], "squeezed")], "gate")
        x = writer.node("Mul", [x, gate], "gated")
        pads = writer.constant("pads", np.array([0, 0, 0, 0, 0, 3, 2, 1], np.int64))
        x = writer.node(
            "Sub", [writer.node("Pad", [x, pads], "padded"), writer.constant("one", np.float32(1))], "less"
        )
        writer.node("ReduceMean", [x], "y", axes=[2, 3], keepdims=0)

    assert_same(image_model(build, 9, rank=2))


def test_a_file_runs_on_any_tflite_interpreter(pack, tmp_path):
    """By its named signature, as a phone's program would run it."""
    from ai_edge_litert.interpreter import Interpreter

    file = tmp_path / "face.tflite"
    convert(pack.face, file, {"N": 1})
    chip = np.random.default_rng(0).integers(0, 256, (1, 150, 150, 3), np.uint8)
    runner = Interpreter(model_path=str(file)).get_signature_runner()
    found = runner(chip=chip)
    expected = OnnxRuntimeEngine.load(pack.face, SessionSettings(threads=1, dims={"N": 1})).run(
        {"chip": chip}
    )
    assert set(found) == set(expected)
    assert np.allclose(found["embedding"], expected["embedding"], atol=2e-6)
    assert np.allclose(found["emotion"], expected["emotion"], atol=2e-5)


def test_the_same_model_makes_the_same_file(small):
    model = with_dims(small, {"N": 1})
    assert to_tflite(model) == to_tflite(model)


def hard(op, rank=4, **attributes):
    return image_model(lambda writer, x, rng: writer.node(op, [x], "y", **attributes), 8, rank=rank)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (hard("Erf"), "operator Erf cannot be converted; there are Add, AveragePool"),
        (hard("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), "MaxPool y cannot be converted"),
        (hard("AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), "Pool y cannot be converted"),
        (hard("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), "auto_pad and ceil_mode"),
        (hard("Transpose", perm=[0, 1, 3, 2]), "only between channels first and channels last"),
        (hard("ReduceMean", rank=3, axes=[1], keepdims=0), "only height and width may vanish"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_named(model, complaint):
    with pytest.raises(EngineError, match=complaint):
        to_tflite(with_dims(model, {}))
