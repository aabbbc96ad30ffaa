"""What TensorRT is given computes what the pack's models do, in the precision that was asked for."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from engines.norms import read_norms
from engines.precision import cast_images_first, for_tensorrt, halve


def run(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Outputs for an image of noise."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [{"N": 1, "H": 64, "W": 96}.get(side, side) for side in given.shape]
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {given.name: image}), strict=True)
    )


@pytest.fixture(scope="module", params=["detector", "face"])
def model(request, pack) -> onnx.ModelProto:
    return onnx.load(getattr(pack, request.param))


def test_uint8_meets_nothing_but_a_cast(model):
    changed = cast_images_first(model)
    images = {i.name for i in changed.graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8}
    assert {node.op_type for node in changed.graph.node if images & set(node.input)} == {"Cast"}


def test_casting_first_changes_no_number(model):
    before, after = run(model), run(cast_images_first(model))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_in_half_precision_only_products_are_halved(model):
    half = for_tensorrt(model, "fp16")
    onnx.checker.check_model(half, full_check=True)
    assert half.ByteSize() < 0.6 * model.ByteSize()
    stored = {t.name: t.data_type for t in half.graph.initializer}
    for node in half.graph.node:
        types = {stored.get(name) for name in node.input} - {None, TensorProto.INT64}
        if node.op_type in {"Conv", "MatMul", "Gemm", "ConvTranspose"}:
            assert types == {TensorProto.FLOAT16}, node.name
        else:
            assert TensorProto.FLOAT16 not in types, node.name


def test_norm_parameters_stay_as_they_are(model):
    before, after = read_norms(model), read_norms(for_tensorrt(model, "fp16"))
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_half_precision_hardly_moves_an_output(model):
    before, after = run(model), run(for_tensorrt(model, "fp16"))
    for name, value in before.items():
        assert np.abs(after[name] - value).max() < 0.02 * max(1.0, np.abs(value).max()), name


def test_a_weight_that_float16_cannot_hold_is_named(small):
    model = onnx.ModelProto()
    model.CopyFrom(small)
    weight = next(t for t in model.graph.initializer if t.name == "0.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e9), weight.name))
    with pytest.raises(ValueError, match=r"0\.weight do not fit into float16"):
        halve(model)
