"""The task ``emotion``: the agent's emotion branch; see ``trainer.emotion``."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from torch import nn

from calibration.fer2013 import LABELS
from calibration.plots import confusion
from trainer import card
from trainer.branch import EmotionBranch, multiply_adds
from trainer.common.distributed import World
from trainer.common.job import Advance, Say, Task, TrainingError
from trainer.config import EmotionConfig
from trainer.emotion import Data, EmotionJob, logits_of, open_source, read_data
from trainer.export import branch_graph, onnx_logits, verify, with_half_weights
from trainer.metrics import best_temperature, measure

_VERIFIED_MAPS = 64


def build(config: EmotionConfig, world: World, advance: Advance) -> EmotionJob:
    """The branch on FER2013; feature maps are made when they are first needed."""
    if world.size > 1:
        raise TrainingError("emotion trains in one process; start it without torchrun")
    source = open_source(config, advance)
    return EmotionJob(config, source, lambda: read_data(source))


def finish(
    job: EmotionJob, branch: nn.Module, out: Path, export: Path | None, _advance: Advance, say: Say
) -> None:
    """Measure on validation and, if asked, export and measure the file on the test."""
    assert isinstance(branch, EmotionBranch)  # noqa: S101 - for the type checker
    data = job.data
    validation = measure(logits_of(branch, data.validation, job.config), data.validation_labels)
    confusion(validation.confusion, LABELS, "validation", out / "confusion-validation.png")
    say(f"validation accuracy {100 * validation.accuracy:.2f} %")
    if export is not None:
        report = export_branch(data, branch, export)
        confusion(report.test.confusion, LABELS, "test", out / "confusion-test.png")
        card.write(export.with_suffix(".md"), report, LABELS)
        say(f"test accuracy {100 * report.test.accuracy:.2f} % through {export}")


def export_branch(data: Data, branch: EmotionBranch, path: Path) -> card.Report:
    """Write the branch to ``path``, prove it against PyTorch, and measure the file on validation and test."""
    config = data.source.config
    temperature = best_temperature(logits_of(branch, data.validation, config), data.validation_labels)
    exact = branch_graph(branch, temperature)
    difference = verify(
        exact,
        branch,
        temperature,
        data.validation[:: max(1, len(data.validation) // _VERIFIED_MAPS)].astype(np.float32),
    )
    stored = with_half_weights(exact).SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored)
    model = onnx.load_model_from_string(path.read_bytes())
    images, labels = data.source.read("test")
    test = data.source.maps("test", images)
    return card.Report(
        config=config,
        file_sha256=hashlib.sha256(stored).hexdigest(),
        file_bytes=len(stored),
        data_sha256=data.source.data_sha256,
        trunk_sha256=data.source.trunk.sha256,
        parameters=sum(parameter.numel() for parameter in branch.parameters()),
        multiply_adds=multiply_adds(config.branch),
        temperature=temperature,
        difference=difference,
        train_samples=len(data.train_labels),
        validation=measure(onnx_logits(model, data.validation), data.validation_labels),
        test=measure(onnx_logits(model, test), labels),
    )


TASK = Task(EmotionConfig, build, finish)
