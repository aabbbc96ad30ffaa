"""A run from start to end, with progress on the terminal: settings, features, training, export, pictures."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from calibration.fer2013 import LABELS
from calibration.plots import confusion
from trainer import card, plots
from trainer.branch import EmotionBranch, multiply_adds
from trainer.config import load_config
from trainer.emotion import HISTORY, Advance, Data, logits_of, prepare, train
from trainer.export import branch_graph, onnx_logits, verify, with_half_weights
from trainer.metrics import best_temperature, measure

_VERIFIED_MAPS = 64


def run_emotion(config_path: Path | None, overrides: list[str], out: Path, export: Path | None) -> None:
    """Train the emotion branch in the folder ``out`` and, if asked, export and measure it.

    Raises:
        UserError: what a user can put right; the message says how.
    """
    config = load_config(config_path, overrides)
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        advance = bars(progress)
        data = prepare(config, advance)
        branch = train(config, data, out, advance)
        history = [json.loads(line) for line in (out / HISTORY).read_text(encoding="utf-8").splitlines()]
        plots.loss_curve(history, out / "loss.png")
        validation = measure(logits_of(branch, data.validation, config), data.validation_labels)
        confusion(validation.confusion, LABELS, "validation", out / "confusion-validation.png")
        console.print(f"validation accuracy {100 * validation.accuracy:.2f} %")
        if export is not None:
            report = export_branch(data, branch, export)
            confusion(report.test.confusion, LABELS, "test", out / "confusion-test.png")
            card.write(export.with_suffix(".md"), report, LABELS)
            console.print(f"test accuracy {100 * report.test.accuracy:.2f} % through {export}")


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


def bars(progress: Progress) -> Advance:
    """A progress bar for each thing that is being done."""
    tasks: dict[str, TaskID] = {}

    def advance(what: str, count: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
        progress.advance(tasks[what], count)

    return advance
