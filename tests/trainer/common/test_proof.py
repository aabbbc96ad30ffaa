"""An export is believed if ONNX Runtime makes of it what PyTorch did."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from trainer.common.proof import ExportError, prove


@pytest.fixture
def doubling():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("off", "unit", "believed"),
    [
        (0.0, 1, True),
        (9e-5, 1, True),
        (2e-4, 1, False),
        (2e-4, 10, True),
        (2e-3, 10, False),
        (np.nan, 1, False),
    ],
)
def test_a_difference_counts_from_a_ten_thousandth(doubling, off, unit, believed):
    x = np.array([1, 2, 3], np.float32)
    expected = {"y": 2 * x - np.array([0, off, 0], np.float32)}
    if believed:
        assert prove(doubling, {"x": x}, expected, unit) == pytest.approx(off / unit, abs=1e-6)
    else:
        with pytest.raises(ExportError, match="the exported y differs from PyTorch's by"):
            prove(doubling, {"x": x}, expected, unit)
