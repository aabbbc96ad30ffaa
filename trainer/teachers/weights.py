"""Weights from files, none of which can run anything."""

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer.teachers.interface import TeacherError

_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Under which of its keys a checkpoint of others has the weights."""

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        TeacherError: it is missing, is no file of weights, or holds more than weights.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise TeacherError(f"the weights {path} cannot be read ({error}); name another file") from error
    except Exception as error:
        if (
            type(error).__name__ != "UnpicklingError"
        ):  # PyTorch's refusal, of a module that nothing here imports
            raise
        raise TeacherError(
            f"{path} is a pickle that holds more than weights, and loading it could run anything; save its weights as "
            "safetensors where you trust it"
        ) from error
    for key in _INSIDE:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise TeacherError(f"{path} is no table of weights; save the model's state_dict")
    return found


def put(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Give a module weights; what it has no place for, such as a classifier, is left out.

    Raises:
        TeacherError: some are missing or of another shape.
    """
    try:
        missing = module.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise TeacherError(
            f"{what}: the weights are of another shape; set side to theirs ({error})"
        ) from error
    if missing:
        raise TeacherError(
            f"{what}: the file has no weights for {', '.join(missing[:3])}; it is of another model"
        )


def digest(module: nn.Module, *more: object) -> str:
    """SHA-256 over a module's tensors, their names, and whatever else decides."""
    found = hashlib.sha256(repr(more).encode())
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        found.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        found.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextmanager
def only_weights() -> Iterator[None]:
    """In this context ``torch.load`` reads weights and refuses all else, whoever calls it.

    ``argparse.Namespace``, which RADIO's checkpoints hold beside the weights, is a plain record and let through.
    """
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
