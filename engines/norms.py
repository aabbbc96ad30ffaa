"""Find, read and write the norm parameters of an ONNX graph.

A norm parameter is an initializer named ``norm.LAYER.scale`` or ``norm.LAYER.shift``: the per-channel factor and
addend behind a convolution, the only part of a network that adaptation may change.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.engine import NormParameters

_PREFIX = "norm."


def is_norm(name: str) -> bool:
    """An initializer of this name is a norm parameter."""
    return name.startswith(_PREFIX)


def read_norms(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The norm parameters of a model, each float32 [channels], in the order of the graph."""
    return {
        tensor.name: numpy_helper.to_array(tensor).reshape(-1)
        for tensor in model.graph.initializer
        if is_norm(tensor.name)
    }


def write_norms(model: onnx.ModelProto, params: NormParameters) -> onnx.ModelProto:
    """A copy of ``model`` with these norm parameters; those not named stay.

    Raises:
        ValueError: a parameter does not exist in the model, has another size, or is not finite.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = {t.name: t for t in changed.graph.initializer if is_norm(t.name)}
    for name, value in params.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ValueError(f"the model has no norm parameter {name}")
        shape = tuple(tensor.dims)
        if value.size != np.prod(shape):
            raise ValueError(f"{name} has {np.prod(shape)} channels, not {value.size}")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            stored = value.reshape(shape).astype(np.float32)
        if not np.isfinite(stored).all():
            raise ValueError(f"{name} has values that are not finite")
        tensor.CopyFrom(numpy_helper.from_array(stored, name))
    return changed
