"""What came out of streams: rates, and how much of a shift's loss was won back.

A rate is accuracy where expressions were named. Where people were compared it is TAR at the threshold that gives a FAR
of 1 % on the clean faces of the same pairs, frozen source: the agent does not know of the shift, its threshold stays.
As a method may win TAR there by making everybody alike, the FAR at that threshold stands beside, and the TAR at a
threshold chosen anew. A method that says by how much the threshold is to rise while it answers (ours does) is judged by
the threshold so raised.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
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
FEWEST_LOST = 10
"""Nor has one that costs fewer faces than so many, all seeds together."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Rates(Struct, frozen=True, kw_only=True):
    """One method on one shift and order, means over the seeds. Rates are shares, 0 to 1.

    Attributes:
        order: of the stream.
        shift: how it is spoiled.
        severity: how badly.
        method: its name.
        seeds: how many.
        faces: that count of each stream; of people the pairs that show one person.
        frozen: rate of the frozen source.
        adapted: rate of the method.
        clean: rate of the frozen source on the same faces unspoiled.
        gain: adapted less frozen.
        gain_error: its standard error, which more seeds do not lessen: they show the same faces.
        worst: the least gain of a seed.
        share: of the loss, clean less frozen, what was won back; None where there is too little loss.
        share_std: standard deviation over the seeds.
        share_error: standard error, as of the gain.
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
    faces: int
    frozen: float
    adapted: float
    clean: float
    gain: float
    gain_error: float
    worst: float
    share: float | None
    share_std: float | None
    share_error: float | None
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
        faces: as of ``Rates``, where they are fewest.
        shifts: how many have a share.
        share: of the loss won back, mean over those shifts; mean over the seeds.
        share_std: standard deviation of that mean over the seeds.
        pooled: what was won over what was lost, all shifts together.
        worst: the least gain of a shift, mean over its seeds, with the shift.
        worst_shift: which.
        worst_error: standard error of that gain.
        worst_seed: the least gain of a shift and seed.
        after: mean gain on the clean faces behind the streams.
        after_worst: the least, mean over seeds.
    """

    order: Order
    method: str
    faces: int
    shifts: int
    share: float | None
    share_std: float | None
    pooled: float | None
    worst: float
    worst_shift: str
    worst_error: float
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
    """One cell against the frozen one of its stream.

    Attributes:
        won: of each face that counts, adapted less frozen: 1, 0 or -1.
        lost: likewise, clean less frozen.
    """

    cell: Cell
    won: Floats
    lost: Floats
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
    fixed, judged = threshold(cell) if cell.run.task == "identity" else None, _judged(cell)

    def hits(answers: Sequence[float], part: slice) -> Floats:
        """1 for each face that was answered rightly; of people for each pair of one person that was accepted."""
        if fixed is None:
            return np.asarray(np.array(answers[part]) == np.array(cell.truth[part]), np.float64)
        cosines, genuine = _pairs(cell, answers, part)
        return np.asarray(cosines[genuine] >= fixed, np.float64)

    adapted, before, clean = (hits(each, counted) for each in (judged, frozen.answers, cell.reference))
    behind = hits(judged, after) - hits(frozen.answers, after)
    found = _Score(
        cell=cell,
        won=adapted - before,
        lost=clean - before,
        frozen=float(before.mean()),
        adapted=float(adapted.mean()),
        clean=float(clean.mean()),
        after=float(behind.mean()) if len(behind) else 0.0,
        far=None,
        rise=None,
        own_frozen=None,
        own_adapted=None,
    )
    if fixed is None:
        return found
    own = [tar_at_far(*_pairs(cell, each, counted), FAR).tar for each in (frozen.answers, judged)]
    return msgspec.structs.replace(
        found,
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
        faces=min(len(score.won) for score in scores),
        frozen=_mean([score.frozen for score in scores]),
        adapted=_mean([score.adapted for score in scores]),
        clean=_mean([score.clean for score in scores]),
        gain=_mean(gains),
        gain_error=_error(scores, 0.0),
        worst=min(gains),
        share=_mean(shares) if shares else None,
        share_std=_deviation(shares),
        share_error=_error(scores, _mean(shares)) / _loss(scores) if shares else None,
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
        at_worst = next(scores for scores in shifts if scores[0].cell.stream.shift == worst)
        afters = [_mean([score.after for score in scores]) for scores in shifts]
        found.append(
            Summary(
                order=order,
                method=method,
                faces=min(len(score.won) for scores in shifts for score in scores),
                shifts=len(costly),
                share=_mean(means) if means else None,
                share_std=_deviation(means),
                pooled=sum(score.adapted - score.frozen for score in every) / lost if every else None,
                worst=gains[worst],
                worst_shift=worst,
                worst_error=_error(at_worst, 0.0),
                worst_seed=min(score.adapted - score.frozen for s in shifts for score in s),
                after=_mean(afters),
                after_worst=min(afters),
            )
        )
    return found


def _won_back(scores: Sequence[_Score]) -> list[float]:
    """What each seed won of the mean loss of one shift; nothing where there is too little of that."""
    loss, faces = _loss(scores), sum(float(score.lost.sum()) for score in scores)
    if loss < LEAST_LOSS or faces < FEWEST_LOST:
        return []
    return [(score.adapted - score.frozen) / loss for score in scores]


def _loss(scores: Sequence[_Score]) -> float:
    return _mean([score.clean - score.frozen for score in scores])


def _error(scores: Sequence[_Score], share: float) -> float:
    """Standard error of what was won beyond so much of what was lost, mean over the seeds.

    With a share of 0 that of the gain; with the share that was won back, divided by the loss, that of this quotient
    (Taylor series to the first order, as in Cochran, "Sampling Techniques", 1977, section 6.4).
    """
    beyond = [score.won - share * score.lost for score in scores]
    return _mean([float(np.std(each)) / max(1, len(each) - 1) ** 0.5 for each in beyond])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return _mean(there) if there else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
