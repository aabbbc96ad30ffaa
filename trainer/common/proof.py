"""What ONNX Runtime makes of an export, to be held against what PyTorch made of the network."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray


def runtime_answers(
    model: onnx.ModelProto, outputs: Sequence[str], feeds: Mapping[str, NDArray[np.generic]]
) -> list[NDArray[np.float32]]:
    """The outputs of these names for some inputs, on the processor."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others may be training here
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(found, np.float32) for found in session.run(list(outputs), dict(feeds))]
