"""Pictures of evaluations, with matplotlib (the extra ``evaluate``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from agent.config import TemplateMethod
from agent.gallery.benchmark import GalleryReport, Timing
from calibration.identification import RATE, OpenSet
from calibration.metrics import Roc, roc
from calibration.openset import Searches
from calibration.quality import FAR, QualityReport
from calibration.threshold import Step
from calibration.verification import DECISION_FAR, Scored, Verification

_GENUINE, _IMPOSTOR = "tab:blue", "tab:orange"
_PAIRINGS = {"high_high": "tab:green", "low_high": "tab:blue", "low_low": "tab:orange"}


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


def identification(
    curves: Mapping[TemplateMethod, Roc], rows: Sequence[OpenSet], title: str, path: Path
) -> None:
    """Misses over false names (DET) of several methods, with the interval of each where methods are compared."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for row in rows:
        curve = curves[row.method]
        line = axes.step(
            100 * curve.far, 100 * (1 - curve.tar), where="post", label=row.method, linewidth=1.2
        )
        miss, (low, high) = 1 - row.dir[f"{RATE:g}"], row.dir_interval
        axes.errorbar(
            100 * RATE,
            100 * miss,
            yerr=[[100 * max(0.0, miss - 1 + high)], [100 * max(0.0, 1 - low - miss)]],
            color=line[0].get_color(),
            capsize=3,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(0.05, 10),
        ylim=(5, 100),
        xlabel="strangers' searches that name somebody (FPIR, %)",
        ylabel="enrolled people's that do not name the right one (FNIR, %)",
        title=title,
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def quality(report: QualityReport, title: str, path: Path) -> None:
    """Recall of each pairing of good and poor pictures, 1:1 and 1:N, as bars with their intervals."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained", sharey=True)
    figure.suptitle(title)
    names = [f"{row.kind or 'none'}\n{row.pairing.replace('_', ', ')}" for row in report.rows]
    colours = [_PAIRINGS[row.pairing] for row in report.rows]
    for axes, what, rates in (
        (panels[0], f"1:1, TAR at FAR {100 * FAR:g} % (%)", [row.one_to_one for row in report.rows]),
        (panels[1], f"1:N, DIR at FPIR {100 * FAR:g} % (%)", [row.one_to_many for row in report.rows]),
    ):
        recall = np.array([each.recall for each in rates])
        ends = np.array([each.interval for each in rates])
        errors = 100 * np.maximum(0, [recall - ends[:, 0], ends[:, 1] - recall])
        axes.bar(range(len(names)), 100 * recall, color=colours, yerr=errors, capsize=2)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set(ylabel=what, ylim=(0, 100))
        axes.grid(axis="y", alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def threshold(steps: Sequence[Step], behind: Sequence[Searches], people: int, title: str, path: Path) -> None:
    """Enrolled people named over strangers named, for every size of gallery; and the scores in one of them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    figure.suptitle(title)
    for step, searches in zip(steps, behind, strict=True):
        curve = searches.curve()
        seen = curve.far > 0  # a logarithmic axis has no place for 0
        (line,) = left.step(
            100 * curve.far[seen], 100 * curve.tar[seen], where="post", label=f"{step.people}"
        )
        low, high = step.tar_interval
        left.errorbar(
            100 * step.far,
            100 * step.tar,
            yerr=[[100 * max(0.0, step.tar - low)], [100 * max(0.0, high - step.tar)]],
            fmt="o",
            color=line.get_color(),
            capsize=3,
        )
    left.set(
        xscale="log",
        xlabel="strangers' searches that name somebody (%)",
        ylabel="enrolled people's that name the right one (%)",
        title="chosen thresholds, with their 95 % intervals",
    )
    left.grid(which="both", alpha=0.25)
    left.legend(title="people enrolled", loc="lower right")
    index = [step.people for step in steps].index(people)
    _search_scores(right, behind[index], steps[index])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _search_scores(axes: Axes, searches: Searches, step: Step) -> None:
    named = np.isfinite(searches.score)
    right = searches.score[named & searches.right]
    strangers = searches.score[named & ~searches.mated]
    bins = np.histogram_bin_edges(np.concatenate([right, strangers]), 100).tolist()
    axes.hist(right, bins, density=True, color=_GENUINE, alpha=0.6, label="enrolled people, themselves")
    axes.hist(strangers, bins, density=True, color=_IMPOSTOR, alpha=0.6, label="strangers, the most alike")
    axes.axvline(step.threshold, color="black", linestyle="--", label=f"threshold {step.threshold:.4f}")
    axes.margins(y=0.3)  # room for the legend
    axes.set(
        xlabel="cosine to the nearest template",
        ylabel="share of searches (density)",
        title=f"scores with {step.people} enrolled",
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
