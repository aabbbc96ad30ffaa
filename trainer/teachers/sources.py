"""Teachers by their source."""

from collections.abc import Sequence

import torch

from trainer.teachers.interface import Teacher, TeacherError, TeacherSettings
from trainer.teachers.modules import open_hub, open_run, open_timm
from trainer.teachers.onnx import OnnxTeacher

BACKBONE = "backbone:"


def open_teacher(
    settings: TeacherSettings, answers: Sequence[str], threads: int, device: torch.device
) -> Teacher:
    """The teacher of these settings.

    Args:
        settings: which.
        answers: what is wanted of it.
        threads: of ONNX Runtime; 0 lets it choose.
        device: of modules; ONNX graphs run on the processor.

    Raises:
        TeacherError: it cannot be used.
    """
    kind, _, source = settings.source.partition(":")
    openers = {"timm": open_timm, "torchhub": open_hub, "backbone": open_run}
    if kind not in {"onnx", *openers} or not source:
        raise TeacherError(
            f"teacher {settings.name}: the source is {settings.source!r}; it begins with onnx:, timm:, torchhub: or "
            "backbone:, and names a file, a folder or a model"
        )
    if kind == "onnx":
        return OnnxTeacher(settings, source, answers, threads)
    return openers[kind](settings, source, answers, device)
