"""Model cards of what reads expressions: the export writes what it measured, people the rest."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import EmotionConfig
from trainer.metrics import Metrics

BY_HAND = "<!-- Above this line the export writes; below it people do, and the export keeps it. -->"

IMAGES = ("FER2013", "images", "validation (public test)", "test (private test)")
"""The data set of images, what its items are, and its splits for validation and test."""


@dataclass(frozen=True)
class Report:
    """What an export measured."""

    config: EmotionConfig
    file_sha256: str
    file_bytes: int
    data_sha256: str
    trunk_sha256: str
    parameters: int
    multiply_adds: int
    temperature: float
    difference: float  # largest, of a logit, between PyTorch and float32 ONNX
    train_samples: int
    validation: Metrics
    test: Metrics


def render(report: Report, labels: Sequence[str]) -> str:
    """The measured part of the card, as Markdown."""
    config, test = report.config, report.test
    data, unit, validation_name, test_name = _words(config)
    facts: list[tuple[str, Any]] = [
        ("file", f"`emotion.onnx`, {report.file_bytes:,} bytes"),
        ("SHA-256", f"`{report.file_sha256}`"),
        ("input", "`features` float32 [N, 64, 17, 17]: the face network's map after its 64-channel blocks"),
        ("output", f"`emotion` float32 [N, 7]: logits of {', '.join(labels)}"),
        ("norm layers", "named Mul and Add with `norm.emotion.LAYER.scale` and `.shift`, float32"),
        (
            "other weights",
            "float16 `NAME.half`, widened by a Cast that makes float32 `NAME`; large ones int8 `NAME.whole` and a "
            "`NAME.step` for each output channel, by DequantizeLinear",
        ),
        ("parameters", f"{report.parameters:,}"),
        ("multiply-adds a face", f"{report.multiply_adds / 1e6:.1f} million"),
        ("temperature", f"{report.temperature:.3f}, chosen on validation, folded into the last layer"),
        (
            "PyTorch against ONNX",
            f"logits differ by at most {report.difference:.1e} before the weights are stored so",
        ),
        ("training data", f"{data}, training split, {report.train_samples:,} {unit}"),
        ("data SHA-256", f"`{report.data_sha256}`"),
        ("trunk SHA-256", f"`{report.trunk_sha256}` (nodes and weights up to `features`)"),
        ("seed", config.seed),
    ]
    return sheet(
        "Emotion branch",
        "Reads the expression from the face network's feature map: one run gives embedding and expression.\n"
        "Trained with `python -m trainer emotion`; the trunk stays as it was published.",
        facts,
        (data, unit),
        {validation_name: report.validation, test_name: test},
        labels,
        _recipe(config),
    )


def sheet(
    title: str,
    what: str,
    facts: Sequence[tuple[str, Any]],
    data: tuple[str, str],
    measured: Mapping[str, Metrics],
    labels: Sequence[str],
    recipe: str,
) -> str:
    """The measured part of a card, as Markdown.

    Args:
        title: of the card.
        what: it describes, in whole lines.
        facts: names and values.
        data: name of the data set, and what its items are called.
        measured: through the exported file, by the names of the splits; the last is the test.
        labels: of the expressions.
        recipe: how the weights came about.
    """
    name, unit = data
    confusion = list(measured.values())[-1].confusion
    lines = [
        f"# {title}",
        "",
        what,
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {fact} | {value} |" for fact, value in facts),
        "",
        "## Accuracy, through ONNX Runtime from image to logits",
        "",
        f"| {name} split | {unit} | accuracy | balanced accuracy | NLL (nats) | calibration error |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_accuracy_row(split, metrics) for split, metrics in measured.items()),
        "",
        f"Confusion on the test split (rows: true, columns: predicted, {unit}):",
        "",
        *_confusion(confusion, labels),
        "",
        "## Recipe",
        "",
        textwrap.fill(recipe, 110),
        "",
    ]
    return "\n".join(lines)


def write(path: Path, measured: str) -> None:
    """Write the card, its measured part made anew; what stands below ``BY_HAND`` in an existing one stays."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    by_hand = old.partition(BY_HAND)[2] or "\n"
    path.write_text(f"{measured}\n{BY_HAND}{by_hand}", encoding="utf-8")


def _words(config: EmotionConfig) -> tuple[str, str, str, str]:
    """The data set, what its items are, and its splits for validation and test."""
    clips = config.clips
    if not clips.kind:
        return IMAGES
    named = {"ferv39k": "FERV39K", "dfew": f"DFEW, fold {clips.fold}", "lists": "own clips"}
    held_out = f"validation ({100 * clips.held_out:g} % of the training split)"
    return named[clips.kind], "clips", held_out, "test; accuracy is WAR, balanced accuracy UAR"


def _recipe(config: EmotionConfig) -> str:
    """How the weights came about, in a few sentences."""
    clips, views = config.clips, min(config.teacher_views, config.versions)
    more = ""
    if config.start:
        more += " It went on from the weights of an earlier branch."
    if config.teachers:
        more += (
            f" {100 * config.teacher_share:g} % of each target is the mean answer of {len(config.teachers)} earlier "
            f"branch{'es' if len(config.teachers) > 1 else ''} to {views} variants of the image, the rest its label."
        )
    if clips.kind:
        more += (
            f" An item is {clips.frames} frames of a clip, one of each of as many equal stretches out of {clips.kept} "
            "that were kept; logits are averaged over them. All frames of a clip are varied alike."
        )
    return (
        f"{config.epochs} epochs of batches of {config.batch}; AdamW, peak rate {config.learning_rate:g}, "
        f"weight decay {config.weight_decay:g}, one epoch of warm-up, then a cosine to zero; label smoothing "
        f"{config.label_smoothing:g}; mixup {config.mixup:g} on feature maps, which are "
        f"also moved by up to {config.map_shift} cells and holed with chance {config.map_erase:g}; dropout "
        f"{config.branch.dropout:g}; averaged weights (decay {config.ema:g} a step). {config.versions} random "
        "variants of each image (rotation, scale, shift, mirror, light, blur, noise, erasing: see "
        "`trainer/augment.py`), one of them drawn an epoch. The averaged weights of the last epoch are "
        f"shipped; no epoch was picked by its score.{more}"
    )


def _accuracy_row(name: str, metrics: Metrics) -> str:
    """One row of the accuracy table."""
    return (
        f"| {name} | {metrics.confusion.sum():,} | {100 * metrics.accuracy:.2f} % | "
        f"{100 * metrics.balanced_accuracy:.2f} % | {metrics.nll:.3f} | {metrics.calibration_error:.3f} |"
    )


def _confusion(confusion: NDArray[np.int64], labels: Sequence[str]) -> list[str]:
    """The confusion matrix as a Markdown table, with the share found of each class."""
    recall = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
    return [
        f"| | {' | '.join(labels)} | found |",
        f"| --- |{' ---: |' * (len(labels) + 1)}",
        *(
            f"| {label} | {' | '.join(str(count) for count in row)} | {100 * found:.1f} % |"
            for label, row, found in zip(labels, confusion, recall, strict=True)
        ),
    ]
