"""Read an ONNX file, give its open dimensions sizes, and leave out what nothing needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engines.engine import EngineError

if TYPE_CHECKING:
    # The package takes longer to import than a network to load; who runs one as it is does without.
    import onnx


def read_file(path: Path) -> bytes:
    """The content of a model's file.

    Raises:
        EngineError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise EngineError(
            f"{path}: no such model; `cabinsense models fetch` makes the default pack"
        ) from None
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from error


def read_model(path: Path) -> "onnx.ModelProto":
    """The ONNX model in a file, which holds all of it: weights in files beside it are not looked for.

    Raises:
        EngineError: the file is missing or is no ONNX model.
    """
    import onnx  # noqa: PLC0415

    content = read_file(path)
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises its own kinds, by version
        raise EngineError(f"{path}: not an ONNX model ({error})") from error


def with_dims(model: "onnx.ModelProto", dims: Mapping[str, int]) -> "onnx.ModelProto":
    """A copy of ``model`` with static shapes: each symbolic dimension of its inputs gets its size from ``dims``.

    The shapes of all other tensors are inferred, which takes a tenth of a second.

    Raises:
        EngineError: a dimension of an input is left without a size, or the shapes do not fit together.
    """
    import onnx  # noqa: PLC0415
    from onnx import shape_inference  # noqa: PLC0415

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        for side in value.type.tensor_type.shape.dim:
            if side.HasField("dim_value"):
                continue
            if side.dim_param not in dims:
                raise EngineError(f"input {value.name} has open dimension {side.dim_param!r}; give it a size")
            side.dim_value = dims[side.dim_param]
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True)
    except shape_inference.InferenceError as error:
        raise EngineError(f"the shapes of {model.graph.name} do not fit together: {error}") from error


def drop_unused(graph: "onnx.GraphProto") -> None:
    """Leave out the nodes, initializers and notes of types that no output depends on."""
    needed = {output.name for output in graph.output}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    made = {name for node in nodes for name in node.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    notes = [note for note in graph.value_info if note.name in made]
    for field, values in (("node", nodes[::-1]), ("initializer", tensors), ("value_info", notes)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
