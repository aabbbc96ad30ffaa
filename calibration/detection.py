"""How well a detector finds faces, against boxes that are marked: hits, misses and false alarms."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.perception.detector import iou

OVERLAP = 0.5
"""Intersection over union from which a face counts as found (PASCAL VOC, WIDER FACE)."""

HIT, FALSE, NEITHER = 1, 0, -1
"""Verdicts on what a detector has found; ``NEITHER`` lies on a face that is neither to be found nor to be missed."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """What a detector has found in one picture.

    Attributes:
        scores: float32 [m], best first.
        verdicts: int8 [m].
        faces: how many were to be found.
    """

    scores: Float32
    verdicts: NDArray[np.int8]
    faces: int


def judge(boxes: Float32, ignored: NDArray[np.bool_], found: Float32, scores: Float32) -> Judged:
    """Compare what was found in a picture with what is marked there.

    The best scored choose first; each takes the marked face that it overlaps most among those that are left. A second
    box on one face is a false alarm.

    Args:
        boxes: float32 [n, 4], x1, y1, x2, y2: the marked faces.
        ignored: bool [n], those that do not count.
        found: float32 [m, 4].
        scores: float32 [m].
    """
    order = np.argsort(-scores, kind="stable")
    wanted, others = boxes[~ignored], boxes[ignored]
    left = np.ones(len(wanted), bool)
    verdicts = np.zeros(len(found), np.int8)
    for place, box in enumerate(found[order]):
        overlaps = np.where(left, iou(box, wanted), 0)
        if overlaps.max(initial=0) >= OVERLAP:
            left[overlaps.argmax()] = False
            verdicts[place] = HIT
        elif iou(box, others).max(initial=0) >= OVERLAP:
            verdicts[place] = NEITHER
    return Judged(scores[order], verdicts, len(wanted))


@dataclass(frozen=True)
class Finding:
    """What a detector does on many pictures, by the least score that counts.

    Attributes:
        scores: float32 [m], falling: one row for each hit or false alarm.
        recall: share of faces found with that score or a better one, [m].
        alarms: false alarms a picture, [m].
        precision: share of hits among what is found, [m].
        pictures: how many.
        faces: in all of them.
    """

    scores: Float32
    recall: NDArray[np.float64]
    alarms: NDArray[np.float64]
    precision: NDArray[np.float64]
    pictures: int
    faces: int

    @property
    def average_precision(self) -> float:
        """Area below the precision over the recall, each precision the best at that recall or beyond."""
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.sum(np.diff(self.recall, prepend=0.0) * best))

    def at(self, score: float) -> tuple[float, float]:
        """Recall, and false alarms a picture, where ``score`` is the least that counts."""
        counted = int(np.sum(self.scores >= score))
        return (float(self.recall[counted - 1]), float(self.alarms[counted - 1])) if counted else (0.0, 0.0)

    def threshold(self, alarms: float) -> float:
        """The least score with at most so many false alarms a picture; 1 if even the best scored is one too many."""
        allowed = self.scores[self.alarms <= alarms]
        return float(allowed[-1]) if len(allowed) else 1.0


def sum_up(judged: Iterable[Judged]) -> Finding:
    """The findings of many pictures as one."""
    all_ = list(judged)
    scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in all_)])
    verdicts = np.concatenate([np.zeros(0, np.int8), *(each.verdicts for each in all_)])
    order = np.argsort(-scores, kind="stable")
    order = order[verdicts[order] != NEITHER]
    hits = np.cumsum(verdicts[order] == HIT)
    false = np.cumsum(verdicts[order] == FALSE)
    faces = sum(each.faces for each in all_)
    return Finding(
        scores[order],
        hits / max(faces, 1),
        false / max(len(all_), 1),
        hits / np.maximum(hits + false, 1),
        len(all_),
        faces,
    )
