"""What poor pictures cost: good against good, poor against good, poor against poor, 1:1 and 1:N.

A poor picture is a photograph that ``calibration.corruptions`` has spoiled, found and
aligned anew, as a camera would have delivered it. 1:1 uses LFW's pairs: in ``low_high`` the first of each pair is the
poor one. 1:N enrols good photographs and searches with poor ones, or enrols and searches with poor ones.

Each pairing is measured in two ways: at the false rate that it can reach with a threshold of its own, which says how
much is still in the pictures, and at the threshold that was chosen on good pictures, which says what happens to an
agent that does not know about the spoiling.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from msgspec import Struct

from agent.config import TemplateMethod
from agent.gallery.templates import templates
from agent.perception.types import Float32, Image
from calibration import corruptions
from calibration.halves import ENROLLED_IMAGES, SPLITS
from calibration.lfw import Pair
from calibration.metrics import at_threshold, tar_at_far, tar_interval
from calibration.openset import Looks, Searches, divide, enrol, interval, joined, redrawn, search
from calibration.verification import score

KINDS = ("defocus_blur", "sensor_noise", "low_light", "low_resolution", "jpeg")
"""The five ways to spoil a picture that are measured."""
POSSIBLE = corruptions.ON_IMAGES
"""Those that need not know where the face is."""
FAR = 0.01
"""False rate at which 1:1 and 1:N are reported, and for which thresholds are chosen on good pictures."""
_SEED = 2007  # of all draws: any number, but always the same one


class Rates(Struct, frozen=True, kw_only=True):
    """One pairing, 1:1 or 1:N. Rates are shares, 0 to 1.

    Attributes:
        recall: TAR at a FAR, or DIR at an FPIR, of ``FAR``, with a threshold of its own.
        interval: 95 % bootstrap interval of it.
        fixed_recall: TAR or DIR at the threshold that gives ``FAR`` on good pictures.
        fixed_far: FAR or FPIR at that threshold.
    """

    recall: float
    interval: tuple[float, float]
    fixed_recall: float
    fixed_far: float


class Row(Struct, frozen=True, kw_only=True):
    """One pairing of one kind of pictures.

    Attributes:
        kind: of corruption; empty for good against good.
        pairing: ``high_high``, ``low_high`` or ``low_low``; in 1:N the second is what is enrolled.
        undetected: share of the poor pictures in which no face was found; they count as not recognised.
        refused: share of those with a face that the quality gate would refuse.
        one_to_one: pairs.
        one_to_many: searches in a large gallery.
    """

    kind: str
    pairing: str
    undetected: float
    refused: float
    one_to_one: Rates
    one_to_many: Rates


class QualityReport(Struct, frozen=True, kw_only=True):
    """The report, as JSON shows it.

    Attributes:
        severity: of the corruptions, 1 to 5.
        seed: of the corruptions.
        pairs: how many, of both kinds.
        enrolled: people in the large gallery.
        mated: searches of enrolled people, of all splits together.
        strangers: searches of strangers, likewise.
        rows: the pairings.
    """

    severity: int
    seed: int
    pairs: int
    enrolled: int
    mated: int
    strangers: int
    rows: list[Row]


def spoil(kind: str, severity: int, seed: int, image: Image, photo: str) -> Image:
    """The photograph as a poor camera would deliver it, the same for the same seed."""
    return corruptions.corrupt(image, kind, severity, seed, photo)


class Bench:
    """Good pictures, and what they are compared with."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        photos: Sequence[str],
        good: Looks,
        people: int,
        method: TemplateMethod,
        margin: float,
    ) -> None:
        """Measure good against good.

        Args:
            pairs: of photographs.
            photos: the photographs that occur in them.
            good: looks at these, in their order.
            people: size of the large gallery; at most half of all people.
            method: of making templates.
            margin: least lead over the second best that a name needs.
        """
        self._pairs, self._photos, self._good = pairs, photos, good
        self._aggregate, self._margin = partial(templates, method=method), margin
        everybody = np.unique(good.person)
        count = min(people, len(everybody) // 2)
        rngs = [np.random.default_rng(seed) for seed in range(SPLITS)]
        self._splits = [divide(good, everybody, count, ENROLLED_IMAGES, rng) for rng in rngs]
        scored = score(pairs, self._vectors(good))
        self._threshold = tar_at_far(scored.score, scored.genuine, FAR).threshold
        searches = self._search(good, good)
        self._mated, self._strangers = int(searches.mated.sum()), int((~searches.mated).sum())
        self._search_threshold = searches.threshold(FAR)

    def good_row(self) -> Row:
        """Good against good."""
        return self._row("", "high_high", self._good, self._good)

    def rows(self, kind: str, poor: Looks) -> list[Row]:
        """Poor against good and poor against poor; ``poor`` are looks at the same photographs, in the same order."""
        return [
            self._row(kind, "low_high", poor, self._good),
            self._row(kind, "low_low", poor, poor),
        ]

    def report(self, severity: int, seed: int, rows: list[Row]) -> QualityReport:
        """The rows, with what they rest on."""
        return QualityReport(
            severity=severity,
            seed=seed,
            pairs=len(self._pairs),
            enrolled=len(self._splits[0].people),
            mated=self._mated,
            strangers=self._strangers,
            rows=rows,
        )

    def _row(self, kind: str, pairing: str, probes: Looks, gallery: Looks) -> Row:
        """One pairing: ``probes`` are the first of each pair and what searches, ``gallery`` the second and enrolled."""
        found = [sample for sample in probes.samples if sample is not None]
        return Row(
            kind=kind,
            pairing=pairing,
            undetected=probes.undetected / len(probes.samples),
            refused=sum(not sample.quality.good for sample in found) / max(1, len(found)),
            one_to_one=self._one_to_one(probes, gallery),
            one_to_many=self._one_to_many(probes, gallery),
        )

    def _one_to_one(self, first: Looks, second: Looks) -> Rates:
        scored = score(self._pairs, self._vectors(first), self._vectors(second))
        fixed = at_threshold(scored.score, scored.genuine, self._threshold)
        return Rates(
            recall=tar_at_far(scored.score, scored.genuine, FAR).tar,
            interval=tar_interval(scored.score, scored.genuine, FAR, seed=_SEED),
            fixed_recall=fixed.tar,
            fixed_far=fixed.far,
        )

    def _one_to_many(self, probes: Looks, gallery: Looks) -> Rates:
        searches = self._search(probes, gallery)
        return Rates(
            recall=searches.dir(searches.threshold(FAR)),
            interval=interval(redrawn([searches], FAR, seed=_SEED)[:, 0]),
            fixed_recall=searches.dir(self._search_threshold),
            fixed_far=searches.fpir(self._search_threshold),
        )

    def _search(self, probes: Looks, gallery: Looks) -> Searches:
        return joined(
            [
                search(probes, split, enrol(gallery, split, self._aggregate), self._margin)
                for split in self._splits
            ]
        )

    def _vectors(self, looks: Looks) -> dict[str, Float32 | None]:
        """The embedding of each photograph, as ``score`` wants them."""
        return {
            photo: None if sample is None else sample.embedding
            for photo, sample in zip(self._photos, looks.samples, strict=True)
        }
