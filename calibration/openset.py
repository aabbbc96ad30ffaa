"""Open-set identification: people who are enrolled are to be named, strangers are not.

Words and measures are those of ISO/IEC 19795-1 and of NIST's evaluations (FRVT 1:N). A search compares one look with
everybody enrolled. A search with a stranger that names somebody is a false positive; their share is FPIR. A search with
an enrolled person that names that person is an identification; their share is DIR, and FNIR is 1 - DIR. A look in which
no face was found is a search all the same: it names nobody.

A search names somebody as the agent does: the best person, from the threshold on, with a margin to the second best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agent.gallery.templates import Aggregate
from agent.gallery.types import Sample
from agent.perception.types import Float32
from calibration.metrics import Roc, roc

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STEP = 1e-4
"""Thresholds are multiples of this: finer than any data can say."""


@dataclass(frozen=True)
class Looks:
    """Looks at people, and whom each shows.

    Attributes:
        samples: what was seen; None where no face was found.
        person: int64 [n], an index into ``names``.
        names: of the people.
    """

    samples: Sequence[Sample | None]
    person: Ints
    names: tuple[str, ...]

    @cached_property
    def embeddings(self) -> Float32:
        """float32 [n, dim]; NaN where no face was found."""
        dim = next((len(sample.embedding) for sample in self.samples if sample is not None), 1)
        nothing = np.full(dim, np.nan, np.float32)
        return np.stack([nothing if sample is None else sample.embedding for sample in self.samples])

    @cached_property
    def of_person(self) -> list[Ints]:
        """The looks at each person, as indices."""
        order = np.argsort(self.person, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.person, minlength=len(self.names)))[:-1])

    @property
    def undetected(self) -> int:
        """Looks in which no face was found."""
        return sum(sample is None for sample in self.samples)


def labelled(samples: Sequence[tuple[str, Sample | None]]) -> Looks:
    """Looks from pairs of a name and what was seen."""
    names, person = np.unique([name for name, _ in samples], return_inverse=True)
    return Looks([sample for _, sample in samples], person.astype(np.int64), tuple(names.tolist()))


@dataclass(frozen=True)
class Split:
    """Who is enrolled with which looks, and who searches.

    Attributes:
        people: int64 [k], who is enrolled.
        enrolled: for each of them the looks that are enrolled, as indices.
        mated: int64 [m], the other looks at enrolled people.
        own: int64 [m], whom each of them shows, as an index into ``people``.
        strangers: int64 [s], looks at everybody else.
    """

    people: Ints
    enrolled: list[Ints]
    mated: Ints
    own: Ints
    strangers: Ints


def divide(looks: Looks, among: Ints, count: int, images: int | None, rng: np.random.Generator) -> Split:
    """Enrol ``count`` people with ``images`` looks each where there are so many; one look at least is left to search.

    Args:
        looks: all there are.
        among: int64, the people who take part.
        count: how many are enrolled: at random among those of whom there are enough looks; if these are too few, those
            with the next fewer looks, and so on.
        images: how many looks are enrolled of each; None: all but one.
        rng: makes the choice.
    """
    enough = np.inf if images is None else images + 1
    sizes = np.array([min(len(looks.of_person[who]), 2 if images is None else enough) for who in among])
    shuffled = rng.permutation(len(among))
    order = among[shuffled[np.argsort(-sizes[shuffled], kind="stable")]]
    enrolled, mated, own = [], [], []
    for index, who in enumerate(order[:count]):
        mixed = rng.permutation(looks.of_person[who])
        most = len(mixed) - 1 if images is None else images
        cut = max(1, min(most, len(mixed) - 1))
        enrolled.append(mixed[:cut])
        mated.append(mixed[cut:])
        own.append(np.full(len(mixed) - cut, index))
    strangers = [looks.of_person[who] for who in order[count:]]
    return Split(order[:count], enrolled, _joined(mated), _joined(own), _joined(strangers))


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Gallery:
    """The templates of a split.

    Attributes:
        templates: float32 [t, dim]; a person's rows are neighbours. Somebody without a usable look has one of zeros,
            which nobody matches.
        first: int64 [k], each person's first row.
    """

    templates: Float32
    first: Ints

    def scores(self, embeddings: Float32) -> Float32:
        """The cosine of each look, float32 [n, dim], to the best template of each person: float32 [n, k]."""
        return np.asarray(np.maximum.reduceat(embeddings @ self.templates.T, self.first, axis=1), np.float32)


def enrol(looks: Looks, split: Split, aggregate: Aggregate) -> Gallery:
    """Make the templates of everybody in a split."""
    rows = []
    for indices in split.enrolled:
        found = [sample for index in indices if (sample := looks.samples[index]) is not None]
        rows.append(
            aggregate(found) if found else np.zeros((1, looks.embeddings.shape[1]), np.float32),
        )
    first = np.cumsum([0, *(len(each) for each in rows[:-1])])
    return Gallery(np.concatenate(rows), first.astype(np.int64))


def decide(scores: Float32, margin: float) -> tuple[Ints, Float32]:
    """Whom each search would name, given a low enough threshold.

    Args:
        scores: float32 [n, k ≥ 1] of each search to each person.
        margin: least lead over the second best.

    Returns:
        int64 [n], the best person; float32 [n], the threshold up to which that person is named: the score, or minus
        infinity where the margin or a missing face forbids any name.
    """
    best = scores.argmax(axis=1)
    score = scores[np.arange(len(scores)), best]
    if scores.shape[1] > 1:
        second = np.partition(scores, -2, axis=1)[:, -2]
        score = np.where(score - second >= margin, score, np.float32(-np.inf))
    return best.astype(np.int64), np.where(np.isnan(score), np.float32(-np.inf), score).astype(np.float32)


@dataclass(frozen=True)
class Searches:
    """Searches and what came of them.

    Attributes:
        score: float32 [n], the threshold up to which somebody is named; minus infinity: nobody ever.
        person: int64 [n], who searched.
        mated: bool [n], the person is enrolled.
        right: bool [n], the one who would be named is the one who searched.
    """

    score: Float32
    person: Ints
    mated: Bools
    right: Bools

    def dir(self, threshold: float) -> float:
        """Share of the searches of enrolled people that name the right person."""
        return _share((self.score >= threshold) & self.right, self.mated)

    def fpir(self, threshold: float) -> float:
        """Share of the searches of strangers that name somebody."""
        return _share(self.score >= threshold, ~self.mated)

    def misnamed(self, threshold: float) -> float:
        """Share of the searches of enrolled people that name another."""
        return _share((self.score >= threshold) & ~self.right, self.mated)

    def threshold(self, fpir: float) -> float:
        """The lowest threshold, in steps of ``STEP``, at which FPIR is at most ``fpir``.

        Raises:
            ValueError: no stranger searched.
        """
        scores = self.score[~self.mated]
        if not len(scores):
            raise ValueError("a threshold needs strangers who search")
        allowed = int(fpir * len(scores) + 1e-9)  # 0.29 × 100 is 28.999… in floating point
        if allowed >= len(scores):
            return -1.0
        return just_above(float(np.partition(scores, -allowed - 1)[-allowed - 1]))

    def curve(self) -> Roc:
        """DIR over FPIR: as a ROC whose genuine pairs are the searches of enrolled people."""
        never = np.isneginf(self.score) | (self.mated & ~self.right)
        return roc(np.where(never, np.float32(np.nan), self.score), self.mated)


def _share(what: Bools, among: Bools) -> float:
    return float(what[among].mean()) if among.any() else math.nan


def just_above(score: float) -> float:
    """The lowest multiple of ``STEP`` that is greater than ``score``, from -1 on."""
    if score < -1:
        return -1.0
    return round(math.ceil(float(np.nextafter(np.float32(score), np.float32(2))) / STEP) * STEP, 4)


def search(looks: Looks, split: Split, gallery: Gallery, margin: float) -> Searches:
    """All searches of a split; ``looks`` may be others than those that were enrolled, if they are in the same order."""
    probes = np.concatenate([split.mated, split.strangers])
    best, score = decide(gallery.scores(looks.embeddings[probes]), margin)
    own = np.concatenate([split.own, np.full(len(split.strangers), -1)])
    return Searches(score, looks.person[probes], own >= 0, best == own)


def compare(looks: Looks, split: Split, gallery: Gallery) -> Searches:
    """Every look that searches against each person for itself: 1:1. DIR is then TAR, FPIR is FAR."""
    probes = np.concatenate([split.mated, split.strangers])
    scores = gallery.scores(looks.embeddings[probes])
    own = np.zeros(scores.shape, np.bool_)
    own[np.arange(len(split.mated)), split.own] = True
    flat = np.where(np.isnan(scores), np.float32(-np.inf), scores).ravel()
    return Searches(flat, np.repeat(looks.person[probes], scores.shape[1]), own.ravel(), own.ravel())


def joined(parts: Sequence[Searches]) -> Searches:
    """Several splits as one."""
    return Searches(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.person for part in parts]),
        np.concatenate([part.mated for part in parts]),
        np.concatenate([part.right for part in parts]),
    )


def redrawn(
    variants: Sequence[Searches], fpir: float, *, seed: int, rounds: int = 1000
) -> NDArray[np.float64]:
    """DIR at an FPIR when the people are drawn anew, float64 [rounds, variants].

    The bootstrap of Efron and Tibshirani (1993) with people as its unit, for looks at one person are alike. The
    threshold is chosen anew each time. All variants see the same draws, so that their difference has an interval too.
    Who is enrolled stays; so the intervals hold the chance in who searches, not that in who is searched among.

    Args:
        variants: searches of the same people, by different methods.
        fpir: share of the strangers' searches that may name somebody.
        seed: of the draws.
        rounds: how many.
    """
    rng = np.random.default_rng(seed)
    count = 1 + max(int(each.person.max()) for each in variants)
    there = np.unique(np.concatenate([each.person for each in variants]))
    counters = [_Counter(each, fpir) for each in variants]
    found = np.empty((rounds, len(variants)))
    for row in found:
        weights = np.bincount(there[rng.integers(0, len(there), len(there))], minlength=count)
        row[:] = [counter.dir(weights) for counter in counters]
    return found


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The percentiles between which ``level`` of the values lie."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class _Counter:
    """Searches sorted once, to be weighted often."""

    def __init__(self, searches: Searches, fpir: float) -> None:
        strangers = np.flatnonzero(~searches.mated)
        # Only the best of the strangers can be at the threshold: far more than a draw will ever let pass.
        most = min(len(strangers), int(8 * fpir * len(strangers)) + 100)
        top = strangers[np.argsort(-searches.score[strangers], kind="stable")[:most]]
        hits = np.flatnonzero(searches.mated & searches.right)
        hits = hits[np.argsort(-searches.score[hits], kind="stable")]
        self._fpir = fpir
        people = 1 + int(searches.person.max())
        self._strangers = np.bincount(searches.person[strangers], minlength=people)
        self._mated = np.bincount(searches.person[searches.mated], minlength=people)
        self._top, self._top_score = searches.person[top], searches.score[top]
        self._hits, self._hit_score = searches.person[hits], searches.score[hits]

    def dir(self, weights: NDArray[np.intp]) -> float:
        """DIR where the searches of each person count so many times; NaN where no enrolled person was drawn."""
        allowed = self._fpir * (weights[: len(self._strangers)] @ self._strangers)
        over = int(np.searchsorted(np.cumsum(weights[self._top]), allowed, side="right"))
        threshold = self._top_score[over] if over < len(self._top) else -np.inf
        accepted = int(np.searchsorted(-self._hit_score, -threshold, side="left"))
        total = weights[: len(self._mated)] @ self._mated
        return float(weights[self._hits[:accepted]].sum() / total) if total else math.nan
