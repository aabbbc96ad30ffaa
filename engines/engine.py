"""What every backend promises: named tensors in, named tensors out, norm parameters exchangeable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.errors import UserError

Array = NDArray[Any]
NormParameters = Mapping[str, NDArray[np.float32]]
"""Initializer name (``norm.LAYER.scale`` or ``norm.LAYER.shift``) to float32 [channels]."""


class EngineError(UserError):
    """An engine cannot be loaded or run; the message names the file and the remedy."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output of an engine. Every shape is static."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Engine(Protocol):
    """A loaded model. Not thread-safe: one thread runs it; others may hold engines of their own."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that ``run`` reads."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that ``run`` returns."""
        ...

    def buffer(self, name: str) -> Array:
        """The memory bound to an input. Write into it, then call ``run()``: nothing is copied."""
        ...

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """Run once over the bound inputs, after copying ``feeds`` into them.

        The returned arrays are the engine's own and hold until the next ``run``.

        Raises:
            ValueError: a feed is unknown or does not fit its input.
        """
        ...

    def with_norms(self, params: NormParameters) -> "Engine":
        """A new engine of the same model with these norm parameters; this one stays as it is.

        Any thread may call this while another one runs this engine.

        Raises:
            ValueError: a parameter does not exist, has another size, or is not finite.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds; it cannot run afterwards."""
        ...
