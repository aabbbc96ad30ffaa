"""Set the weights of a model aside, so that what is left is small: quick to copy, to write and to parse."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from engines.norms import is_norm

_LARGE = 4096  # bytes; smaller tensors stay, for ONNX Runtime wants shapes and axes in the model itself


def set_aside(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """A copy of ``model`` without its large tensors, and those by name; norm parameters stay.

    The tensors that were taken out are declared external. ONNX Runtime takes them from memory.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    weights = {}
    for tensor in light.graph.initializer:
        if is_norm(tensor.name) or len(tensor.raw_data) <= _LARGE:
            continue
        weights[tensor.name] = np.array(numpy_helper.to_array(tensor))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "in memory"
    return light, weights
