"""The proof that an export computes what PyTorch did."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from engines.errors import UserError
from trainer.common import runtime

TOLERANCE = 1e-4
"""Largest difference of any output between PyTorch and ONNX Runtime."""


class ExportError(UserError):
    """An export does not compute what was trained, or cannot be written; the message says why."""


def prove(
    model: onnx.ModelProto,
    feeds: Mapping[str, NDArray[np.generic]],
    expected: Mapping[str, NDArray[np.float32]],
    unit: float = 1,
) -> float:
    """Largest difference of an output between ``model`` in ONNX Runtime and what PyTorch said.

    Args:
        model: the export.
        feeds: its inputs.
        expected: what PyTorch made of them, by the names of the outputs.
        unit: what differences are measured in.

    Raises:
        ExportError: it is above ``TOLERANCE``, or not finite.
    """
    worst = 0.0
    found = runtime.answers(model, list(expected), feeds)
    for (name, value), other in zip(expected.items(), found, strict=True):
        difference = float(np.abs(value - other).max()) / unit
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported {name} differs from PyTorch's by {difference:.2g}; allowed is {TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst
