"""The task ``emotion``: the agent's emotion branch, from images or clips; see ``trainer.emotion``.

With a ``backbone`` it is a whole network, see ``trainer.tasks.emotion_network``.
"""

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
from trainer.emotion import Data, EmotionJob, frame_branch, logits_of, open_source, read_data
from trainer.export import branch_graph, onnx_logits, verify, with_small_weights
from trainer.map_sources import Frames, Labels, Maps
from trainer.metrics import Metrics, best_temperature, log_softmax, measure
from trainer.tasks import emotion_network

_VERIFIED_MAPS = 64


def build(config: EmotionConfig, world: World, advance: Advance) -> EmotionJob:
    """The branch on FER2013 or on clips; feature maps are made when they are first needed."""
    if world.size > 1:
        raise TrainingError("emotion trains in one process; start it without torchrun")
    source = open_source(config, advance)
    return EmotionJob(config, source, lambda: read_data(source))


def finish(
    job: EmotionJob, module: nn.Module, out: Path, export: Path | None, _advance: Advance, say: Say
) -> None:
    """Measure on validation, clips on the test, too; if asked, export and measure the file on the test."""
    data, clips = job.data, job.config.clips
    validation = measure(logits_of(module, data.validation, job.config), data.validation_labels)
    confusion(validation.confusion, LABELS, "validation", out / "confusion-validation.png")
    if clips.kind:
        maps, labels = data.test
        test = measure(logits_of(module, maps, job.config), labels)
        confusion(test.confusion, LABELS, "test", out / "confusion-test.png")
        say(f"validation {_war_and_uar(validation)}; test {_war_and_uar(test)}")
        if damage := data.source.damage():
            say(damage)
    else:
        say(f"validation accuracy {100 * validation.accuracy:.2f} %")
    if export is None:
        return
    if clips.kind and clips.pooling != "mean":
        raise TrainingError(
            f"a branch that pools by {clips.pooling} cannot be exported: the agent reads single frames and takes their "
            "mean over time; train one with clips.pooling=mean"
        )
    report = export_branch(data, frame_branch(module), export)
    confusion(report.test.confusion, LABELS, "test", out / "confusion-test.png")
    card.write(export.with_suffix(".md"), card.render(report, LABELS))
    say(f"test accuracy {100 * report.test.accuracy:.2f} % through {export}")


def export_branch(data: Data, branch: EmotionBranch, path: Path) -> card.Report:
    """Write the branch to ``path``, prove it against PyTorch, and measure the file on validation and test.

    Of clips the file reads every frame that was kept, and the mean of its probabilities is what is measured: the
    agent's smoothing, if it were to forget nothing.
    """
    config = data.source.config
    frames, labels = _frames(data.validation, data.validation_labels, config)
    temperature = best_temperature(logits_of(branch, frames, config), labels)
    exact = branch_graph(branch, temperature)
    difference = verify(
        exact, branch, temperature, frames[:: max(1, len(frames) // _VERIFIED_MAPS)].astype(np.float32)
    )
    stored = with_small_weights(exact).SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored)
    model = onnx.load_model_from_string(path.read_bytes())
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
        validation=_through(model, data.validation, data.validation_labels, config),
        test=_through(model, *data.test, config),
    )


def _frames(maps: Maps, labels: Labels, config: EmotionConfig) -> tuple[Maps, Labels]:
    """Clips frame by frame; images as they are."""
    kept = config.clips.kept
    return (Frames(maps, kept), labels.repeat(kept)) if config.clips.kind else (maps, labels)


def _through(model: onnx.ModelProto, maps: Maps, labels: Labels, config: EmotionConfig) -> Metrics:
    """How well an exported branch does."""
    logits = onnx_logits(model, _frames(maps, labels, config)[0])
    if config.clips.kind:
        p = np.exp(log_softmax(logits)).reshape(len(maps), -1, logits.shape[1])
        logits = np.log(p.mean(axis=1)).astype(np.float32)
    return measure(logits, labels)


def _war_and_uar(metrics: Metrics) -> str:
    """The weighted and the unweighted average recall, which papers on clips report: over clips, over expressions."""
    return f"WAR {100 * metrics.accuracy:.2f} %, UAR {100 * metrics.balanced_accuracy:.2f} %"


TASK = Task(EmotionConfig, build, finish, instead={"backbone": emotion_network.TASK})
