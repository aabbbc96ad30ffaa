"""Pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt

from calibration.detection import Finding
from calibration.metrics import Roc

_PLAIN = "cross_entropy"


def curves(history: Sequence[dict[str, Any]], unit: str, score: str, path: Path) -> None:
    """Training loss, with its margin and without, learning rate and a figure of the evaluations, as a picture.

    Args:
        history: the lines of metrics.
        unit: their key that counts intervals.
        score: their key of the figure to show, a share; lines without it were not evaluated.
        path: of the picture.
    """
    figure, (left, below) = plt.subplots(
        2, 1, figsize=(7, 5.5), layout="constrained", sharex=True, height_ratios=[3, 1]
    )
    numbers = [line[unit] for line in history]
    left.plot(numbers, [line["loss"] for line in history], color="tab:blue", label="loss")
    left.set(ylabel="training loss (nats)")
    plain = [line for line in history if _PLAIN in line]
    if any(line[_PLAIN] != line["loss"] for line in plain):
        values = [line[_PLAIN] for line in plain]
        left.plot(
            [line[unit] for line in plain], values, color="tab:blue", ls=":", label="without the margin"
        )
        left.legend()
    evaluated = [line for line in history if score in line]
    if evaluated:
        right = left.twinx()
        right.plot(
            [line[unit] for line in evaluated],
            [100 * line[score] for line in evaluated],
            color="tab:orange",
            marker=".",
        )
        right.set(ylabel=f"{score.replace('_', ' ')} (%)")
    below.plot(numbers, [line["learning_rate"] for line in history], color="tab:green")
    below.set(xlabel=unit, ylabel="learning rate")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def dots(values: Mapping[str, Sequence[float]], figure: str, path: Path) -> None:
    """A figure of several runs of each of some variants, and their means, as a picture."""
    drawing, axes = plt.subplots(figsize=(7, 1 + 0.4 * len(values)), layout="constrained")
    for row, found in enumerate(values.values()):
        axes.plot(found, [row] * len(found), "o", color="tab:blue", alpha=0.6)
        if found:
            axes.plot(sum(found) / len(found), row, "|", color="tab:orange", markersize=18, markeredgewidth=2)
    axes.set(
        yticks=range(len(values)),
        yticklabels=list(values),
        ylim=(len(values) - 0.5, -0.5),
        xlabel=figure.replace("_", " "),
    )
    axes.grid(axis="x", alpha=0.25)
    drawing.savefig(path, dpi=120)
    plt.close(drawing)


def roc_curve(curve: Roc, title: str, path: Path) -> None:
    """True over false acceptance, as a picture."""
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    seen = curve.far > 0  # a logarithmic axis has no place for 0
    axes.step(100 * curve.far[seen], 100 * curve.tar[seen], where="post")
    axes.set(
        xscale="log",
        xlabel="impostor pairs accepted (%)",
        ylabel="genuine pairs accepted (%)",
        title=title,
    )
    axes.grid(which="both", alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def precision_recall(found: Finding, title: str, path: Path) -> None:
    """Precision over recall, and recall over false alarms, as a picture."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    left.step(100 * found.recall, 100 * found.precision, where="post")
    left.set(xlabel="faces found (%)", ylabel="of what is found, faces (%)")
    right.step(found.alarms, 100 * found.recall, where="post")
    right.set(xlabel="false alarms a picture", ylabel="faces found (%)")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.suptitle(title, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
