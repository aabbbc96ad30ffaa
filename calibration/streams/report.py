"""What came out of streams: rates, and how much of a shift's loss was won back.

A rate is accuracy where expressions were named. Where people were compared it is TAR at the threshold that gives a FAR
of 1 % on the clean faces of the same pairs, frozen source: the agent does not know of the shift, its threshold stays.
As a method may win TAR there by making everybody alike, the FAR at that threshold stands beside, and the TAR at a
threshold chosen anew. A method that says by how much the threshold is to rise while it answers (ours does) is judged by
the threshold so raised.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from calibration.baselines.catalogue import FROZEN
from calibration.metrics import at_threshold, tar_at_far
from calibration.streams.cells import Cell, Run
from calibration.streams.orders import Order, Stream

FAR = 0.01
LEAST_LOSS = 0.02
"""A shift that costs less than this has no share of its loss in the mean: it would be a quotient of two chances."""

Bools = NDArray[np.bool_]


class Rates(Struct, frozen=True, kw_only=True):
    """One method on one shift and order, means over the seeds. Rates are shares, 0 to 1.

    Attributes:
        order: of the stream.
        shift: how it is spoiled.
        severity: how badly.
        method: its name.
        seeds: how many.
        frozen: rate of the frozen source.
        adapted: rate of the method.
        clean: rate of the frozen source on the same faces unspoiled.
        gain: adapted less frozen.
        worst: the least gain of a seed.
        share: of the loss, clean less frozen, what was won back; None where there is too little loss.
        share_std: standard deviation over the seeds.
        after: gain over the frozen source on the clean faces behind the stream.
        after_worst: the least of a seed.
        far: of people, at the threshold that was chosen clean.
        rise: mean rise of that threshold; see ``agent.adaptation.rise``.
        own_frozen: TAR at a threshold chosen anew for a FAR of 1 %, frozen.
        own_adapted: the same, of the method.
        ms: milliseconds a frame.
        notes: what the method decided, counted over the seeds.
    """

    order: Order
    shift: str
    severity: int
    method: str
    seeds: int
    frozen: float
    adapted: float
    clean: float
    gain: float
    worst: float
    share: float | None
    share_std: float | None
    after: float
    after_worst: float
    far: float | None = None
    rise: float | None = None
    own_frozen: float | None = None
    own_adapted: float | None = None
    ms: float
    notes: dict[str, int] = {}


class Summary(Struct, frozen=True, kw_only=True):
    """One method on one order, over all shifts.

    Attributes:
        order: of the streams.
        method: its name.
        shifts: how many have a share.
        share: of the loss won back, mean over those shifts; mean over the seeds.
        share_std: standard deviation of that mean over the seeds.
        pooled: what was won over what was lost, all shifts together.
        worst: the least gain of a shift, mean over its seeds, with the shift.
        worst_shift: which.
        worst_seed: the least gain of a shift and seed.
        after: mean gain on the clean faces behind the streams.
        after_worst: the least, mean over seeds.
    """

    order: Order
    method: str
    shifts: int
    share: float | None
    share_std: float | None
    pooled: float | None
    worst: float
    worst_shift: str
    worst_seed: float
    after: float
    after_worst: float


class Report(Struct, frozen=True):
    """The report, as JSON shows it."""

    run: Run
    seeds: int
    summary: list[Summary]
    rates: list[Rates]


class _Score(Struct, frozen=True):
    """One cell against the frozen one of its stream."""

    cell: Cell
    frozen: float
    adapted: float
    clean: float
    after: float
    far: float | None
    rise: float | None
    own_frozen: float | None
    own_adapted: float | None


def report(run: Run, cells: Iterable[Cell]) -> Report:
    """The figures of all streams for which there is a frozen cell."""
    by_stream: dict[Stream, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        if cell.run == run:
            by_stream[cell.stream][cell.method] = cell
    groups: dict[tuple[Order, str, int, str], list[_Score]] = defaultdict(list)
    for stream, found in sorted(by_stream.items()):
        if FROZEN in found:
            for method, cell in found.items():
                group = stream.order, stream.shift, stream.severity, method
                groups[group].append(_score(cell, found[FROZEN]))
    rates = [_rates(scores) for scores in groups.values()]
    return Report(
        run=run,
        seeds=max((rate.seeds for rate in rates), default=0),
        summary=_summaries(groups),
        rates=rates,
    )


def right(cell: Cell, answers: Sequence[float] | None = None) -> Bools:
    """Which frames a cell answered rightly, bool [n]; of people, at the threshold that was chosen clean.

    Args:
        cell: the cell.
        answers: others to its frames; else its own.
    """
    given = np.array(_judged(cell) if answers is None else answers)
    if cell.run.task == "identity":
        return np.asarray((given >= threshold(cell)) == np.array(cell.truth, bool))
    return np.asarray(given == np.array(cell.truth))


def threshold(cell: Cell) -> float:
    """The cosine for a FAR of 1 % on the stream's pairs, clean."""
    return tar_at_far(*_pairs(cell, cell.reference, slice(None, cell.cut)), FAR).threshold


def _judged(cell: Cell) -> Sequence[float]:
    """A cell's answers such that the threshold that was chosen clean suits them.

    With a rise r a cosine c must reach t + r (1 - t), which is to say (c - r) / (1 - r) must reach t.
    """
    if not any(cell.rises):
        return cell.answers
    return [(answer - rise) / (1 - rise) for answer, rise in zip(cell.answers, cell.rises, strict=True)]


def _pairs(cell: Cell, answers: Sequence[float], part: slice) -> tuple[NDArray[np.float64], Bools]:
    return np.array(answers[part]), np.array(cell.truth[part], bool)


def _score(cell: Cell, frozen: Cell) -> _Score:
    # Of the chain of streams what counts is the clean stretch at its end.
    stream, after = slice(None, cell.cut), slice(cell.cut, None)
    counted = after if cell.stream.order == "clean" else stream
    if cell.run.task != "identity":
        hits, before, clean = right(cell), right(frozen), right(cell, cell.reference)
        return _Score(
            cell=cell,
            frozen=float(before[counted].mean()),
            adapted=float(hits[counted].mean()),
            clean=float(clean[counted].mean()),
            after=float(hits[after].mean() - before[after].mean()),
            far=None,
            rise=None,
            own_frozen=None,
            own_adapted=None,
        )
    fixed, judged = threshold(cell), _judged(cell)

    def tar(answers: Sequence[float], part: slice) -> float:
        return at_threshold(*_pairs(cell, answers, part), fixed).tar

    own = [tar_at_far(*_pairs(cell, each, counted), FAR).tar for each in (frozen.answers, judged)]
    return _Score(
        cell=cell,
        frozen=tar(frozen.answers, counted),
        adapted=tar(judged, counted),
        clean=tar(cell.reference, counted),
        after=tar(judged, after) - tar(frozen.answers, after),
        far=at_threshold(*_pairs(cell, judged, counted), fixed).far,
        rise=_mean(cell.rises[counted] or [0.0]),
        own_frozen=own[0],
        own_adapted=own[1],
    )


def _rates(scores: Sequence[_Score]) -> Rates:
    stream, method = scores[0].cell.stream, scores[0].cell.method
    gains = [score.adapted - score.frozen for score in scores]
    shares = _won_back(scores)
    notes: dict[str, int] = defaultdict(int)
    for score in scores:
        for note, count in score.cell.notes.items():
            notes[note] += count
    frames = sum(len(score.cell.answers) for score in scores)
    return Rates(
        order=stream.order,
        shift=stream.shift,
        severity=stream.severity,
        method=method,
        seeds=len(scores),
        frozen=_mean([score.frozen for score in scores]),
        adapted=_mean([score.adapted for score in scores]),
        clean=_mean([score.clean for score in scores]),
        gain=_mean(gains),
        worst=min(gains),
        share=_mean(shares) if shares else None,
        share_std=_deviation(shares),
        after=_mean([score.after for score in scores]),
        after_worst=min(score.after for score in scores),
        far=_mean_of([score.far for score in scores]),
        rise=_mean_of([score.rise for score in scores]),
        own_frozen=_mean_of([score.own_frozen for score in scores]),
        own_adapted=_mean_of([score.own_adapted for score in scores]),
        ms=1e3 * sum(score.cell.seconds for score in scores) / frames,
        notes=dict(sorted(notes.items())),
    )


def _summaries(groups: Mapping[tuple[Order, str, int, str], Sequence[_Score]]) -> list[Summary]:
    by_method: dict[tuple[Order, str], list[Sequence[_Score]]] = defaultdict(list)
    for (order, _, _, method), scores in groups.items():
        by_method[order, method].append(scores)
    found = []
    for (order, method), shifts in by_method.items():
        costly = [scores for scores in shifts if _won_back(scores)]
        shares: dict[int, list[float]] = defaultdict(list)
        for scores in costly:
            for score, share in zip(scores, _won_back(scores), strict=True):
                shares[score.cell.stream.seed].append(share)
        means = [_mean(each) for each in shares.values()]
        every = [score for scores in costly for score in scores]
        lost = sum(score.clean - score.frozen for score in every)
        gains = {s[0].cell.stream.shift: _mean([e.adapted - e.frozen for e in s]) for s in shifts}
        worst = min(gains, key=lambda shift: gains[shift])
        afters = [_mean([score.after for score in scores]) for scores in shifts]
        found.append(
            Summary(
                order=order,
                method=method,
                shifts=len(costly),
                share=_mean(means) if means else None,
                share_std=_deviation(means),
                pooled=sum(score.adapted - score.frozen for score in every) / lost if every else None,
                worst=gains[worst],
                worst_shift=worst,
                worst_seed=min(score.adapted - score.frozen for s in shifts for score in s),
                after=_mean(afters),
                after_worst=min(afters),
            )
        )
    return found


def _won_back(scores: Sequence[_Score]) -> list[float]:
    """What each seed won of the mean loss of one shift; nothing where there is too little of that."""
    loss = _mean([score.clean - score.frozen for score in scores])
    return [(score.adapted - score.frozen) / loss for score in scores] if loss >= LEAST_LOSS else []


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return _mean(there) if there else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
