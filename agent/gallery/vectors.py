"""Embeddings as the bytes that are stored: float32, little endian."""

import numpy as np

from agent.perception.types import Float32

_SLACK = 1e-3  # how far the length of an embedding may be from 1


def is_unit(rows: Float32) -> bool:
    """Whether each row of [n, dim], or a single [dim], is of length 1."""
    return bool((abs(np.linalg.norm(rows.astype(np.float64), axis=-1) - 1) < _SLACK).all())


def to_bytes(embedding: Float32) -> bytes:
    """The bytes of float32 [dim]."""
    return np.asarray(embedding, "<f4").tobytes()


def from_bytes(data: bytes) -> Float32:
    """The embedding float32 [dim] in ``data``.

    Raises:
        ValueError: there is none, or it is not of length 1.
    """
    embedding = np.frombuffer(data, "<f4").astype(np.float32)
    if not is_unit(embedding):
        raise ValueError("an embedding is not of length 1")
    return embedding
