"""The tasks of ``python -m trainer``, by name."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # PyTorch is loaded when a task is
    from trainer.common.job import Task

TASKS = {
    "emotion": "expressions: the agent's branch over the frozen trunk, or, with a backbone, a whole network",
    "recognise": "a face network, by a softmax over identities, with ArcFace's margin or without",
    "simclr": "a backbone from faces without names, by contrast, to start another task from",
    "multitask": "a face network that learns people, contrast and expressions together",
    "detector": "a small detector of faces, from boxes or from what the pack's own finds",
    "reduce": "a pack with a shorter embedding, by two layers behind a finished network's",
    "distill": "a small network of several finished ones at once: summaries, maps, inner layers, expressions",
    "relate": "a small network that keeps a finished one's embeddings, or their distances and angles",
    "landmarks": "a small network that reads five points from a chip about a face's box",
}
"""What each makes; its module here has the same name and holds it as ``TASK``."""


def load(name: str) -> "Task[Any, Any]":
    """The task of a name in ``TASKS``."""
    task: Task[Any, Any] = importlib.import_module(f"{__name__}.{name}").TASK
    return task
