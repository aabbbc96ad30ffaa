"""Which way of making templates recognises best, measured on photographs of many people, such as LFW's.

The people are divided in two halves by a digest of their names. On the first the best method is chosen, and thresholds;
what is reported is measured on the second, which had no say. Everything that is drawn is drawn with fixed seeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.config import TemplateMethod
from agent.gallery.templates import templates
from calibration.halves import ENROLLED_IMAGES, SPLITS, Half
from calibration.openset import (
    Ints,
    Searches,
    Split,
    compare,
    divide,
    enrol,
    interval,
    joined,
    redrawn,
    search,
)
from calibration.tracks import TrackReport

METHODS: tuple[TemplateMethod, ...] = get_args(TemplateMethod)
"""The simplest first: where two are equally good, the simpler is the better."""
IMAGES = (1, 3, 5)
"""So many photographs of a person are enrolled, where methods are compared by that."""
RATES = (0.1, 0.01, 0.001)
"""FPIR and FAR that are reported."""
RATE = 0.01
"""The FPIR at which methods are compared."""
_TAR_RATE = 0.001
_SEED = 2007  # of the bootstrap: any number, but always the same one


class ByImages(Struct, frozen=True, kw_only=True):
    """A method with a gallery of the people of whom there are many photographs.

    Attributes:
        images: how many are enrolled of each.
        foreign: one of them shows somebody else, as when a recording went wrong.
        method: of making templates.
        templates: how many a person has on average.
        tar: 1:1, share of looks accepted as the person they show, by FAR.
        tar_interval: 95 % bootstrap interval of it at a FAR of 0.001.
        dir: 1:N, share of looks named rightly, by FPIR.
        dir_interval: 95 % bootstrap interval of it at ``RATE``.
        gain: how much better it is at ``RATE`` than the first of ``METHODS``.
        gain_interval: 95 % bootstrap interval of that.
        best: no other method is better at ``RATE``, so far as chance lets us see.
    """

    images: int
    foreign: bool
    method: TemplateMethod
    templates: float
    tar: dict[str, float]
    tar_interval: tuple[float, float]
    dir: dict[str, float]
    dir_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    best: bool


class OpenSet(Struct, frozen=True, kw_only=True):
    """A method with a large gallery.

    Attributes:
        method: of making templates.
        dir: share of enrolled people's looks named rightly, by FPIR.
        dir_interval: 95 % bootstrap interval of it at ``RATE``.
        gain: how much better it is at ``RATE`` than the first of ``METHODS``.
        gain_interval: 95 % bootstrap interval of that.
        best: no other method is better at ``RATE``, so far as chance lets us see.
        misnamed: share of enrolled people's looks that name another, at ``RATE``.
        threshold: the least at which FPIR is at most ``RATE``.
    """

    method: TemplateMethod
    dir: dict[str, float]
    dir_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    best: bool
    misnamed: float
    threshold: float


class HalfReport(Struct, frozen=True, kw_only=True):
    """The figures of one half of the people.

    Attributes:
        people: how many there are.
        photographs: of them.
        many: people of whom there are as many photographs as the last of ``IMAGES``.
        by_images: with these people enrolled, and all others of the half as strangers. The same looks search in all
            rows: those beyond the last of ``IMAGES``. Empty where there are no two such people, or no others.
        enrolled: how many people are in the large gallery.
        in_full: how many of them with ``halves.ENROLLED_IMAGES`` photographs.
        mated: searches of enrolled people, of all splits together.
        strangers: searches of strangers, likewise.
        open_set: with this gallery.
    """

    people: int
    photographs: int
    many: int
    by_images: list[ByImages]
    enrolled: int
    in_full: int
    mated: int
    strangers: int
    open_set: list[OpenSet]


class Report(Struct, frozen=True, kw_only=True):
    """The report, as JSON shows it. Rates are shares, 0 to 1.

    Attributes:
        photographs: how many were looked at.
        undetected: how many of them showed no face.
        margin: least lead over the second best that a name needed.
        used: the method that the configuration asks for.
        best: the method that the first half prefers.
        chosen_on: the figures of that half.
        tested_on: the figures of the other half, which had no say.
        tracks: what the method in use does to tracks of the people of the other half, by size of the gallery.
    """

    photographs: int
    undetected: int
    margin: float
    used: TemplateMethod
    best: TemplateMethod
    chosen_on: HalfReport
    tested_on: HalfReport
    tracks: list[TrackReport]


def report(half: Half) -> HalfReport:
    """The figures of a half."""
    pooled = [half.searches(method) for method in METHODS]
    first = half.splits[0]
    return HalfReport(
        people=len(half.people),
        photographs=sum(len(half.looks.of_person[who]) for who in half.people),
        many=len(_many(half)),
        by_images=_by_images(half),
        enrolled=len(first.people),
        in_full=sum(len(indices) == ENROLLED_IMAGES for indices in first.enrolled),
        mated=int(pooled[0].mated.sum()),
        strangers=int((~pooled[0].mated).sum()),
        open_set=_open_set(pooled),
    )


def choose(found: HalfReport) -> TemplateMethod:
    """The method to prefer.

    It is among the best, so far as chance lets us see, in the large gallery and with any number of photographs. Of
    those the simplest, unless another bears it better that one photograph of each person shows somebody else.
    """
    clean: list[OpenSet | ByImages] = [*found.open_set, *(row for row in found.by_images if not row.foreign)]
    good = [method for method in METHODS if all(row.best for row in clean if row.method == method)]
    if not good:  # each is beaten somewhere
        good = [row.method for row in found.open_set if row.best]
    better = [
        row for row in found.by_images if row.foreign and row.method in good and row.gain_interval[0] > 0
    ]
    return max(better, key=lambda row: row.gain).method if better else good[0]


def _open_set(pooled: Sequence[Searches]) -> list[OpenSet]:
    drawn = redrawn(pooled, RATE, seed=_SEED)
    reached = [_rates(searches, RATES) for searches in pooled]
    good = _as_good_as_any(drawn, [rates[f"{RATE:g}"] for rates in reached])
    rows = []
    for index, (method, searches) in enumerate(zip(METHODS, pooled, strict=True)):
        threshold = searches.threshold(RATE)
        rows.append(
            OpenSet(
                method=method,
                dir=reached[index],
                dir_interval=interval(drawn[:, index]),
                gain=reached[index][f"{RATE:g}"] - reached[0][f"{RATE:g}"],
                gain_interval=interval(drawn[:, index] - drawn[:, 0]),
                best=good[index],
                misnamed=searches.misnamed(threshold),
                threshold=threshold,
            )
        )
    return rows


def _by_images(half: Half) -> list[ByImages]:
    rows: list[ByImages] = []
    if not 1 < len(_many(half)) < len(half.people):
        return rows
    for images in IMAGES:
        rows += _with_images(half, images, foreign=False)
    return rows + _with_images(half, IMAGES[-1], foreign=True)


def _with_images(half: Half, images: int, *, foreign: bool) -> list[ByImages]:
    looks, found = half.looks, []
    for method in METHODS:
        singles, searches, rows = [], [], 0
        for seed in range(SPLITS):
            split = _nested(half, images, np.random.default_rng(seed), foreign=foreign)
            gallery = enrol(looks, split, partial(templates, method=method))
            singles.append(compare(looks, split, gallery))
            searches.append(search(looks, split, gallery, half.margin))
            rows += len(gallery.templates)
        found.append((joined(singles), joined(searches), rows / SPLITS / len(split.people)))
    tars = redrawn([single for single, _, _ in found], _TAR_RATE, seed=_SEED)
    dirs = redrawn([pooled for _, pooled, _ in found], RATE, seed=_SEED)
    reached = [_rates(pooled, RATES) for _, pooled, _ in found]
    good = _as_good_as_any(dirs, [rates[f"{RATE:g}"] for rates in reached])
    return [
        ByImages(
            images=images,
            foreign=foreign,
            method=method,
            templates=found[index][2],
            tar=_rates(found[index][0], (RATE, _TAR_RATE)),
            tar_interval=interval(tars[:, index]),
            dir=reached[index],
            dir_interval=interval(dirs[:, index]),
            gain=reached[index][f"{RATE:g}"] - reached[0][f"{RATE:g}"],
            gain_interval=interval(dirs[:, index] - dirs[:, 0]),
            best=good[index],
        )
        for index, method in enumerate(METHODS)
    ]


def _many(half: Half) -> Ints:
    """The people of whom there are many photographs."""
    return half.people[[len(half.looks.of_person[who]) >= IMAGES[-1] for who in half.people]]


def _nested(half: Half, images: int, rng: np.random.Generator, *, foreign: bool) -> Split:
    """All people with many photographs enrolled with ``images`` each; the same looks search whatever that number.

    With ``foreign`` one photograph of each is a stranger's, who searches with all others.
    """
    known = _many(half)
    others = np.setdiff1d(half.people, known)
    split = divide(half.looks, known, len(known), IMAGES[-1], rng)
    enrolled = [indices[:images] for indices in split.enrolled]
    strangers = np.concatenate([half.looks.of_person[who] for who in others])
    if foreign:
        # Half of the strangers must be left to search; with few of them not everybody has a wrong photograph.
        wrong = rng.permutation(strangers)[: min(len(known), len(strangers) // 2)]
        enrolled[: len(wrong)] = [
            np.append(right[1:], other) for right, other in zip(enrolled, wrong, strict=False)
        ]
        strangers = np.setdiff1d(strangers, wrong)
    return replace(split, enrolled=enrolled, strangers=strangers)


def _rates(searches: Searches, rates: Sequence[float]) -> dict[str, float]:
    return {f"{rate:g}": searches.dir(searches.threshold(rate)) for rate in rates}


def _as_good_as_any(drawn: NDArray[np.float64], reached: Sequence[float]) -> list[bool]:
    """For each method whether the lead of the best over it could be chance: its 95 % interval holds 0."""
    leader = int(np.argmax(reached))
    return [interval(drawn[:, leader] - drawn[:, index])[0] <= 0 for index in range(len(reached))]
