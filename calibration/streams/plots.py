"""Pictures of streams, with matplotlib (the extra ``evaluate``)."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt

from calibration.baselines.catalogue import FROZEN
from calibration.streams.cells import Cell
from calibration.streams.orders import stretches
from calibration.streams.report import Report, right

Floats = NDArray[np.float64]


def over_time(cells: Iterable[Cell], folder: Path) -> list[Path]:
    """A picture for each order, shift and severity: errors of every method over time, mean over the seeds.

    Returns:
        The pictures' files.
    """
    groups: dict[tuple[str, str, int], dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        groups[cell.stream.order, cell.stream.shift, cell.stream.severity][cell.method].append(cell)
    files = []
    for (order, shift, severity), methods in sorted(groups.items()):
        file = folder / f"errors-{order}-{shift}-{severity}.png"
        _errors(methods, f"{order}, {shift}, severity {severity}", file)
        files.append(file)
    return files


def _errors(methods: dict[str, list[Cell]], title: str, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    first = next(iter(methods.values()))[0]
    for start, end, severity in stretches([int(digit) for digit in first.severities]):
        axes.axvspan(start, end, color="black", alpha=0.025 * severity, linewidth=0)
    axes.axvline(first.cut, color="black", linestyle=":", linewidth=1)
    window = max(10, len(first.answers) // 20)
    clean = [smoothed(~right(cell, cell.reference), window) for cell in next(iter(methods.values()))]
    axes.plot(100 * np.mean(clean, axis=0), color="grey", linestyle="--", label="frozen source, clean faces")
    for name, found in sorted(methods.items(), key=lambda item: item[0] != FROZEN):
        curve = 100 * np.mean([smoothed(~right(cell), window) for cell in found], axis=0)
        ours = name.startswith("cabinsense")
        axes.plot(
            curve,
            color="black" if name == FROZEN else None,
            linewidth=2.2 if ours or name == FROZEN else 1.1,
            label=name,
        )
    axes.set(
        xlabel=f"frame; behind the dotted line faces are clean, shades are severities (mean of {window} frames)",
        ylabel="errors (%)",
        title=title,
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def smoothed(errors: NDArray[np.bool_], window: int) -> Floats:
    """The share of errors in the ``window`` frames up to each, float64 [n]; at the start of as many as there are."""
    total = np.concatenate([[0.0], np.cumsum(errors)])
    ends = np.arange(1, len(errors) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


def won_back(report: Report, file: Path) -> None:
    """What each method won back on each order, as bars with their spread over the seeds."""
    rows = [row for row in report.summary if row.share is not None and row.method != FROZEN]
    orders, names = list(dict.fromkeys(r.order for r in rows)), list(dict.fromkeys(r.method for r in rows))
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    width = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        mine = {row.order: row for row in rows if row.method == name}
        places = [orders.index(order) + (index - (len(names) - 1) / 2) * width for order in mine]
        shares = [100 * (row.share or 0.0) for row in mine.values()]
        spread = [100 * (row.share_std or 0.0) for row in mine.values()]
        axes.bar(places, np.clip(shares, -100, 100), width, yerr=spread, capsize=2, label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(orders)), orders)
    axes.set(
        ylabel="share of the loss won back (%; cut off at ±100)",
        title=f"{report.run.task}, {report.run.split}",
    )
    axes.grid(axis="y", alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)
    plt.close(figure)
