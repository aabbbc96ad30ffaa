"""ONNX Runtime as the trainer uses it: on the processor, beside a training."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray


def session(model: onnx.ModelProto, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session of a model.

    Args:
        model: whole, weights inside.
        threads: that share its work; 0 lets ONNX Runtime choose.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # training runs beside it
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def answers(
    model: onnx.ModelProto, outputs: Sequence[str], feeds: Mapping[str, NDArray[np.generic]]
) -> list[NDArray[np.float32]]:
    """The outputs of these names for some inputs."""
    return [np.asarray(found, np.float32) for found in session(model).run(list(outputs), dict(feeds))]
