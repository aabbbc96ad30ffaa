"""The memory that an engine's inputs and outputs are bound to."""

from collections.abc import Iterable, Mapping

import numpy as np

from engines.engine import Array, TensorSpec


def allocate(specs: Iterable[TensorSpec]) -> dict[str, Array]:
    """Zeroed memory for each tensor."""
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs}


def copy_feeds(feeds: Mapping[str, Array], buffers: Mapping[str, Array]) -> None:
    """Copy ``feeds`` into the buffers of the same names.

    Raises:
        ValueError: a feed is unknown or does not fit its input.
    """
    for name, value in feeds.items():
        buffer = buffers.get(name)
        if buffer is None:
            raise ValueError(f"no input {name}; there are {', '.join(buffers)}")
        if value.shape != buffer.shape or value.dtype != buffer.dtype:
            raise ValueError(f"{name} wants {buffer.dtype} {buffer.shape}, not {value.dtype} {value.shape}")
        np.copyto(buffer, value)
