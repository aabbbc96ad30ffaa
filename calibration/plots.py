"""Pictures of evaluations, with matplotlib (the extra ``evaluate``)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from agent.gallery.benchmark import GalleryReport, Timing
from calibration.metrics import roc
from calibration.verification import DECISION_FAR, Scored, Verification

_GENUINE, _IMPOSTOR = "tab:blue", "tab:orange"


def verification(scored: Scored, report: Verification, title: str, path: Path) -> None:
    """The ROC and the distribution of scores, side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    figure.suptitle(title)
    _roc(left, scored, report)
    _scores(right, scored, report)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _roc(axes: Axes, scored: Scored, report: Verification) -> None:
    curve = roc(scored.score, scored.genuine)
    least = 0.5 / int(
        (~scored.genuine).sum()
    )  # a logarithmic axis has no place for 0: half an impostor stands for it
    axes.step(np.maximum(curve.far, least), 100 * curve.tar, where="post", color=_GENUINE)
    for name, (low, high) in report.tar_at_far_interval.items():
        tar = report.tar_at_far[name]
        axes.errorbar(
            float(name),
            100 * tar,
            yerr=[[100 * max(0.0, tar - low)], [100 * max(0.0, high - tar)]],
            fmt="o",
            color="black",
            capsize=4,
            label=f"FAR {name}: {100 * tar:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})",
        )
    lowest = min(low for low, _ in report.tar_at_far_interval.values())
    axes.set(
        xscale="log",
        xlim=(least, 1),
        ylim=(max(0.0, 100 * (1.5 * lowest - 0.5)), 100.2),
        xlabel="false acceptance rate: share of impostor pairs accepted",
        ylabel="true acceptance rate: genuine pairs accepted (%)",
        title=f"ROC, accuracy {100 * report.accuracy:.2f} ± {100 * report.accuracy_std:.2f} %",
    )
    axes.grid(which="both", alpha=0.25)
    axes.legend(loc="lower right")


def _scores(axes: Axes, scored: Scored, report: Verification) -> None:
    scores = scored.score[~np.isnan(scored.score)]
    genuine = scored.genuine[~np.isnan(scored.score)]
    bins = np.histogram_bin_edges(scores, 100).tolist()
    axes.hist(scores[genuine], bins, color=_GENUINE, alpha=0.6, label="genuine pairs")
    axes.hist(scores[~genuine], bins, color=_IMPOSTOR, alpha=0.6, label="impostor pairs")
    label = f"threshold {report.threshold:.4f}, for FAR {DECISION_FAR:g}"
    axes.axvline(report.threshold, color="black", linestyle="--", label=label)
    axes.margins(y=0.3)  # room for the legend
    axes.set(
        xlabel="cosine of the two embeddings",
        ylabel="pairs",
        title=f"{report.pairs} pairs, {report.undetected_pairs} without a score",
    )
    axes.legend(loc="upper left")


def confusion(counts: NDArray[np.int64], labels: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix, int [true, predicted]: colour and per cent are of each true class, small figures images."""
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(7, 6.5), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="named expression", ylabel="true expression", title=title)
    axes.set_xticks(range(len(labels)), labels, rotation=45)
    axes.set_yticks(range(len(labels)), labels)
    for (row, column), value in np.ndenumerate(share):
        ink = "white" if value > 55 else "black"
        axes.text(column, row - 0.1, f"{value:.0f} %", ha="center", va="center", color=ink)
        axes.text(
            column, row + 0.22, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=7
        )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def matching(report: GalleryReport, path: Path) -> None:
    """Time of a look against the size of the gallery, median and quartiles, with the memory's limit."""
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    sizes = [row.templates for row in report.rows]
    curves = {
        f"match, {name}": [row.backends[name].match for row in report.rows]
        for name in report.rows[0].backends
    }
    curves["bare matrix product"] = [row.product for row in report.rows]
    for label, timings in curves.items():
        _band(axes, sizes, timings, label)
    read = [row.read.median for row in report.rows]
    axes.plot(sizes, read, color="black", linestyle="--", label="reading all templates once")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"templates of {report.dim} numbers",
        ylabel="µs, one thread",
        title=f"One look among many; {report.rounds} rounds, median and quartiles",
    )
    axes.grid(which="both", alpha=0.25)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _band(axes: Axes, sizes: Sequence[int], timings: Sequence[Timing], label: str) -> None:
    (line,) = axes.plot(sizes, [each.median for each in timings], marker=".", label=label)
    axes.fill_between(
        sizes,
        [each.low for each in timings],
        [each.high for each in timings],
        color=line.get_color(),
        alpha=0.2,
    )
