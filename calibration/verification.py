"""Face verification measured by the protocol of LFW's view 2: pairs of photographs, is it one person?

The protocol's pairs serve for what is compared with other people's figures: accuracy, TAR at a FAR. They are too few to
choose a threshold: at a FAR of 0.1 %, one pair of the 1,500 impostor pairs of five folds decides, and by chance. So the
decision threshold is chosen on every two photographs of different people in those folds, millions of pairs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from agent.perception.types import Float32
from calibration.lfw import Pair, person, photographs
from calibration.metrics import (
    Labels,
    Mask,
    at_threshold,
    folded_accuracy,
    tar_at_far,
    tar_interval,
)

FARS = (0.01, 0.001)
"""False acceptance rates that are reported."""
DECISION_FAR = 0.001
"""False acceptance rate at which the decision threshold of a pack is chosen."""
_SEED = 2007  # of the bootstrap: any number, but always the same one


_BLOCK = 1024  # photographs whose cosines to all others are in memory at once


@dataclass(frozen=True, slots=True)
class Scored:
    """Pairs with their scores.

    Attributes:
        score: float32 [n]: the cosine; NaN where a face was not found.
        genuine: bool [n]: the pair shows one person.
        fold: int64 [n].
        undetected: photographs in which no face was found.
    """

    score: Float32
    genuine: Mask
    fold: Labels
    undetected: int


class Decision(Struct, frozen=True):
    """What a threshold gives on some folds.

    Attributes:
        threshold: the cosine from which two faces are taken for one person.
        tar: share of the listed genuine pairs accepted.
        far: share accepted of all pairs of photographs of different people.
        listed_far: share of the listed impostor pairs accepted.
    """

    threshold: float
    tar: float
    far: float
    listed_far: float


class Verification(Struct, frozen=True, kw_only=True):
    """The report, as JSON shows it. Rates are shares, 0 to 1.

    Attributes:
        accuracy: mean over the folds, each tested with the threshold that was best on the others.
        accuracy_std: standard deviation over the folds (of a sample: divided by the folds less one).
        accuracy_threshold: mean over the folds of the threshold that was best on the others.
        tar_at_far: TAR over all pairs, by FAR.
        tar_at_far_interval: 95 % bootstrap interval of it.
        threshold: the decision threshold, chosen on the first half of the folds at ``DECISION_FAR``.
        chosen_on: what it gives there.
        tested_on: what it gives on the other half, which had no say.
        pack_tested_on: what the pack's own threshold gives on the other half.
        pairs: how many, of both kinds.
        undetected: photographs in which no face was found.
        undetected_pairs: pairs with such a photograph; they count as failures (see ``calibration.metrics``).
    """

    accuracy: float
    accuracy_std: float
    accuracy_threshold: float
    tar_at_far: dict[str, float]
    tar_at_far_interval: dict[str, tuple[float, float]]
    threshold: float
    chosen_on: Decision
    tested_on: Decision
    pack_tested_on: Decision
    pairs: int
    undetected: int
    undetected_pairs: int


def score(
    pairs: Sequence[Pair],
    embeddings: Mapping[str, Float32 | None],
    of_second: Mapping[str, Float32 | None] | None = None,
) -> Scored:
    """The cosine of every pair.

    Args:
        pairs: any number, at least one.
        embeddings: for every photograph of ``pairs`` float32 [dim] of length 1, or None where no face was found.
        of_second: the same for the second of each pair, where that was looked at in other conditions.
    """
    others = embeddings if of_second is None else of_second
    dim = next((len(vector) for vector in embeddings.values() if vector is not None), 1)
    nothing = np.full(dim, np.nan, np.float32)

    def stacked(found: Iterable[Float32 | None]) -> Float32:
        return np.stack([nothing if vector is None else vector for vector in found])

    first = stacked(embeddings[pair.first] for pair in pairs)
    second = stacked(others[pair.second] for pair in pairs)
    return Scored(
        score=np.einsum("ij,ij->i", first, second),
        genuine=np.array([pair.genuine for pair in pairs]),
        fold=np.array([pair.fold for pair in pairs], np.int64),
        undetected=sum(vector is None for vector in embeddings.values()),
    )


def report(
    pairs: Sequence[Pair], embeddings: Mapping[str, Float32 | None], scored: Scored, pack_threshold: float
) -> Verification:
    """The figures.

    Args:
        pairs: all pairs.
        embeddings: as for ``score``.
        scored: what ``score`` made of the two.
        pack_threshold: the threshold that the pack ships.
    """
    scores, genuine = scored.score, scored.genuine
    folded = folded_accuracy(scores, genuine, scored.fold)
    intervals = {far: tar_interval(scores, genuine, far, seed=_SEED) for far in FARS}
    first, second = (_Half(pairs, embeddings, scored, mask) for mask in halves(scored.fold))
    threshold = first.strangers.threshold(DECISION_FAR)
    return Verification(
        accuracy=float(folded.accuracy.mean()),
        accuracy_std=float(folded.accuracy.std(ddof=1)),
        accuracy_threshold=float(folded.threshold.mean()),
        tar_at_far={f"{far:g}": tar_at_far(scores, genuine, far).tar for far in FARS},
        tar_at_far_interval={f"{far:g}": interval for far, interval in intervals.items()},
        threshold=threshold,
        chosen_on=first.decide(threshold),
        tested_on=second.decide(threshold),
        pack_tested_on=second.decide(pack_threshold),
        pairs=len(scores),
        undetected=scored.undetected,
        undetected_pairs=int(np.isnan(scores).sum()),
    )


def halves(fold: Labels) -> tuple[Mask, Mask]:
    """Which pairs are in the first half of the folds (1 to 5 of LFW's ten), where a threshold is chosen; the rest."""
    first = np.asarray(fold < (fold.max() + 1) // 2)
    return first, ~first


class _Half:
    """Half of the folds: its listed pairs, and all strangers in its photographs."""

    def __init__(
        self, pairs: Sequence[Pair], embeddings: Mapping[str, Float32 | None], scored: Scored, mask: Mask
    ) -> None:
        self._scores, self._genuine = scored.score[mask], scored.genuine[mask]
        photos = photographs(pair for pair, inside in zip(pairs, mask, strict=True) if inside)
        self.strangers = Strangers([person(photo) for photo in photos], [embeddings[p] for p in photos])

    def decide(self, threshold: float) -> Decision:
        listed = at_threshold(self._scores, self._genuine, threshold)
        return Decision(threshold, listed.tar, self.strangers.far(threshold), listed.far)


class Strangers:
    """Every two photographs of different people."""

    def __init__(self, people: Sequence[str], embeddings: Sequence[Float32 | None]) -> None:
        """Take in photographs: the person on each, and its embedding, or None where no face was found.

        Pairs with such a photograph count as refused.
        """
        of_each = np.unique(people, return_counts=True)[1]
        self.count = (len(people) ** 2 - int((of_each**2).sum())) // 2
        detected = [index for index, vector in enumerate(embeddings) if vector is not None]
        self._people = np.array([people[index] for index in detected])
        self._embeddings = np.array([embeddings[index] for index in detected], np.float32)

    def threshold(self, far: float) -> float:
        """The lowest threshold, in steps of 1/10,000, at which the FAR is at most ``far``."""
        allowed = int(far * self.count)
        best = np.full(allowed + 1, -1, np.float32)  # the greatest cosines; the least of them must be refused
        for cosines in self._cosines():
            best = np.partition(np.concatenate([best, cosines[cosines > best.min()]]), -allowed - 1)
            best = best[-allowed - 1 :]
        return math.ceil(float(np.nextafter(best.min(), np.float32(2))) * 10_000) / 10_000

    def far(self, threshold: float) -> float:
        """Share of the pairs that a threshold accepts; 0 where there are none."""
        accepted = sum(int((cosines >= threshold).sum()) for cosines in self._cosines())
        return accepted / self.count if self.count else 0.0

    def _cosines(self) -> Iterator[Float32]:
        """The cosines of all pairs with two detected faces, in blocks."""
        for start in range(0, len(self._people), _BLOCK):
            block = slice(start, start + _BLOCK)
            cosines = self._embeddings[block] @ self._embeddings[start:].T
            strangers = self._people[block, None] != self._people[None, start:]
            yield cosines[np.triu(strangers, 1)]
