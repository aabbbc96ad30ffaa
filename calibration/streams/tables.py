"""The report as tables: rows of words, for the terminal and for Markdown alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.baselines.catalogue import FROZEN
from calibration.streams.report import Rates, Report


@dataclass(frozen=True)
class Grid:
    """A table: what it shows, its headings and its rows."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """As Markdown, with its title above."""
        lines = [self.headings, ("---",) * len(self.headings), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}\n\n{table}\n"


def grids(report: Report) -> list[Grid]:
    """The summary, where anything was compared, and for each order what every method won on every shift."""
    summary = _summary(report)
    found = [summary] if summary.rows else []
    orders = dict.fromkeys(rate.order for rate in report.rates)
    for order in orders:
        rates = [rate for rate in report.rates if rate.order == order]
        found.append(_by_shift(order, rates))
        if report.run.task == "identity":
            found.append(_people(order, rates))
    return found


def _summary(report: Report) -> Grid:
    rows = [
        (
            row.order,
            row.method,
            _share(row.share, row.share_std),
            _share(row.pooled),
            f"{_points(row.worst)} ± {100 * row.worst_error:.1f} ({row.worst_shift})",
            _points(row.worst_seed),
            _points(row.after),
            _points(row.after_worst),
        )
        for row in report.summary
        if row.method != FROZEN
    ]
    faces = min((row.faces for row in report.summary), default=0)
    title = (
        f"{report.run.task}, {report.run.split}, {report.seeds} {'seed' if report.seeds == 1 else 'seeds'} of {faces} "
        "faces: share of the shifts' loss won back (± over the seeds), and points above the frozen source (± standard "
        "error)"
    )
    headings = (
        "order",
        "method",
        "won back",
        "pooled",
        "worst shift",
        "worst seed",
        "clean after",
        "its worst",
    )
    return Grid(title, headings, rows)


def _by_shift(order: str, rates: Sequence[Rates]) -> Grid:
    methods = list(dict.fromkeys(rate.method for rate in rates if rate.method != FROZEN))
    rows = []
    for shift, severity in dict.fromkeys((rate.shift, rate.severity) for rate in rates):
        here = {rate.method: rate for rate in rates if (rate.shift, rate.severity) == (shift, severity)}
        frozen = here[FROZEN]
        cells = [
            f"{_per_cent(here[name].adapted)} ({_share(here[name].share, here[name].share_error)})"
            if name in here
            else ""
            for name in methods
        ]
        rows.append((f"{shift} {severity}", _per_cent(frozen.clean), _per_cent(frozen.frozen), *cells))
    faces = min(rate.faces for rate in rates)
    what = "looks at one face" if order == "neutral" else "faces"
    title = f"{order}, {faces} {what}: rate in %, and share of the loss won back (± standard error)"
    return Grid(title, ("shift", "clean", FROZEN, *methods), rows)


def _people(order: str, rates: Sequence[Rates]) -> Grid:
    rows = [
        (
            f"{rate.shift} {rate.severity}",
            rate.method,
            _per_cent(rate.adapted),
            _per_cent(rate.far),
            "" if rate.rise is None else f"{rate.rise:.3f}",
            _per_cent(rate.own_adapted),
        )
        for rate in rates
    ]
    headings = ("shift", "method", "TAR, clean threshold", "FAR there", "rise", "TAR, threshold chosen anew")
    return Grid(f"{order}: TAR at FAR 1 %, in %", headings, rows)


def _per_cent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _points(gain: float) -> str:
    return f"{100 * gain:+.2f}"


def _share(share: float | None, deviation: float | None = None) -> str:
    if share is None:
        return "–"
    return f"{100 * share:.0f} %" + ("" if deviation is None else f" ± {100 * deviation:.0f}")
