"""How far the answers of an engine are from those of the reference, and what is lost by it.

Both see the same chips, cut by the reference's detector, of people on whom nothing was calibrated. The cosines of a
network may lie close together, so a drift of its embeddings is measured against the gap between the mean score of
genuine pairs and that of impostors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.config import Config
from agent.images import read_image
from agent.perception.chain import FaceReader, Networks
from agent.perception.detector import iou
from agent.perception.types import Detection, Float32
from calibration.lfw import Pair, person
from calibration.material import MaterialError, Progress
from calibration.metrics import Labels, Mask, Scores, best_threshold, folded_accuracy
from calibration.verification import DECISION_FAR, Scored, Strangers, score
from engines.engine import Engine

_SAME_FACE = 0.5  # least IoU of two boxes that are taken for one face
_ROUNDS = 1000
_SEED = 1979  # of the bootstrap: any number, but always the same one
_LEAST_GENUINE = 30  # pairs, from which on their mean score is worth something


@dataclass(frozen=True)
class Outputs:
    """What a face network says of chips.

    Attributes:
        embedding: float32 [n, dim], each of length 1.
        logits: float32 [n, labels].
    """

    embedding: Float32
    logits: Float32


@dataclass(frozen=True)
class Evidence:
    """What engines are judged by; none of it was calibrated on.

    Attributes:
        chips: uint8 BGR [n, side, side, 3].
        photos: the photograph of each chip, ``PERSON/…`` where it lies in a person's folder; empty if not known.
        pairs: pairs of photographs, where they are given.
        scenes: files of whole photographs, for the detector.
        expressions: chips as above and their true labels, int64 [m], in the pack's order, where they are given.
    """

    chips: NDArray[np.uint8]
    photos: Sequence[str] = ()
    pairs: Sequence[Pair] = ()
    scenes: Sequence[Path] = ()
    expressions: tuple[NDArray[np.uint8], Labels] | None = None


class Gap(Struct, frozen=True):
    """Between the scores of one person's faces and those of strangers.

    Attributes:
        genuine: mean cosine of two faces of one person; where people are not known the pack's threshold, which is
            less.
        impostor: mean cosine of two faces of different people.
        known: people are known.
    """

    genuine: float
    impostor: float
    known: bool

    @property
    def width(self) -> float:
        """The gap."""
        return max(self.genuine - self.impostor, 1e-6)


class Drift(Struct, frozen=True):
    """How far embeddings move: 1 - cosine between reference and candidate, as a share of the gap."""

    mean: float
    p99: float
    gap: Gap


class Agreement(Struct, frozen=True):
    """Expressions: share of chips with the same first label, and mean divergence from the reference, nats."""

    same: float
    kl: float


class Detections(Struct, frozen=True):
    """Faces found in whole photographs.

    Attributes:
        faces: that the reference found.
        iou: mean overlap of a face's two boxes.
        missed: share of the reference's faces that the candidate does not find.
        extra: faces that only the candidate finds, as a share of the reference's.
        landmark_shift: mean distance of a landmark from the reference's, as a share of the distance of the eyes.
    """

    faces: int
    iou: float
    missed: float
    extra: float
    landmark_shift: float


class VerificationLoss(Struct, frozen=True, kw_only=True):
    """What is lost in telling people apart. Rates are shares; a negative loss is a gain.

    Attributes:
        tar: TAR of reference and candidate at FAR 0.001, each with its own threshold, chosen on all pairs of different
            people in the photographs.
        tar_loss: the difference.
        tar_loss_interval: 95 % bootstrap interval of it: the same genuine pairs are drawn for both.
        mixed_tar_loss: loss where the reference enrolled people and the candidate meets them, at the reference's
            threshold: a gallery outlives the engine that filled it.
        mixed_far: FAR there.
        accuracy: of reference and candidate, each fold of the pairs tested with the threshold of the others.
        accuracy_loss: the difference.
        accuracy_loss_interval: 95 % bootstrap interval of it, pairs drawn as above, both thresholds fixed.
        pairs: how many were scored.
    """

    tar: tuple[float, float]
    tar_loss: float
    tar_loss_interval: tuple[float, float]
    mixed_tar_loss: float
    mixed_far: float
    accuracy: tuple[float, float]
    accuracy_loss: float
    accuracy_loss_interval: tuple[float, float]
    pairs: int


class ExpressionLoss(Struct, frozen=True):
    """Share of expressions named rightly, by reference and candidate; the difference; its interval; images."""

    accuracy: tuple[float, float]
    loss: float
    interval: tuple[float, float]
    images: int


def observe(engine: Engine, chips: NDArray[np.uint8], what: str, progress: Progress) -> Outputs:
    """Run a face network over chips, one by one as in the car."""
    embeddings, logits = [], []
    chip = engine.buffer("chip")[0]
    for index, each in enumerate(chips):
        chip[...] = each
        outputs = engine.run()
        embeddings.append(outputs["embedding"][0].copy())
        logits.append(outputs["emotion"][0].copy())
        progress(what, index + 1, len(chips))
    return Outputs(np.array(embeddings), np.array(logits))


def gap(embeddings: Float32, evidence: Evidence, threshold: float) -> Gap:
    """The gap between genuine and impostor scores of the reference.

    Where the evidence names people, of the pairs given, else of all pairs. Where it does not, every two chips are taken
    for strangers, and the threshold stands for the genuine: the gap is then smaller than it really is, and the gate
    stricter.

    Raises:
        MaterialError: the faces seem to be of one person.
    """
    people = [person(photo) if "/" in photo else photo for photo in evidence.photos]
    if evidence.pairs:
        scored = score(evidence.pairs, _embeddings(evidence, embeddings))
        scores, genuine = scored.score[~np.isnan(scored.score)], scored.genuine[~np.isnan(scored.score)]
    else:
        rows, columns = np.triu_indices(len(embeddings), 1)
        scores = (embeddings @ embeddings.T)[rows, columns]
        names = np.array(people or range(len(embeddings)))
        genuine = names[rows] == names[columns]
    impostor = float(scores[~genuine].mean()) if not genuine.all() else -1.0
    if genuine.sum() >= _LEAST_GENUINE:
        return Gap(float(scores[genuine].mean()), impostor, known=True)
    if impostor >= threshold:
        raise MaterialError(
            f"the {len(embeddings)} faces to judge by are too much alike to measure a drift by; give photographs of "
            "several people, a folder for each"
        )
    return Gap(threshold, impostor, known=False)


def drift(reference: Outputs, candidate: Outputs, gap: Gap) -> Drift:
    """How far the embeddings have moved; what is not finite has moved to the other end."""
    cosines = np.einsum("ij,ij->i", reference.embedding, candidate.embedding).astype(np.float64)
    moved = 1 - np.nan_to_num(cosines, nan=-1.0, posinf=-1.0, neginf=-1.0)
    return Drift(float(moved.mean()) / gap.width, float(np.quantile(moved, 0.99)) / gap.width, gap)


def agreement(reference: Float32, candidate: Float32) -> Agreement:
    """How far expressions agree; both are logits, float32 [n, labels]. What is not finite agrees with nothing."""
    sound = np.asarray(np.isfinite(candidate).all(axis=1))
    same = np.asarray(sound & (reference.argmax(axis=1) == candidate.argmax(axis=1)))
    first, second = _log_softmax(reference), _log_softmax(np.where(sound[:, None], candidate, 0))
    kl = (np.exp(first) * (first - second)).sum(axis=1)
    return Agreement(float(same.mean()), float(kl.mean()))


def detections(pairs: Iterable[tuple[Sequence[Detection], Sequence[Detection]]]) -> Detections:
    """Compare what two detectors found: for each photograph the reference's faces and the candidate's.

    Of all possible couples the one of greatest overlap is taken first.
    """
    faces, missed, extra = 0, 0, 0
    overlaps, shifts = [], []
    for reference, candidate in pairs:
        faces += len(reference)
        couples = _couples(reference, candidate)
        missed += len(reference) - len(couples)
        extra += len(candidate) - len(couples)
        for first, second, overlap in couples:
            eyes = max(float(np.hypot(*(first.landmarks[1] - first.landmarks[0]))), 1e-6)
            distance = np.hypot(*(second.landmarks - first.landmarks).T)
            overlaps.append(overlap)
            shifts.append(float(distance.mean()) / eyes)
    return Detections(
        faces=faces,
        iou=float(np.mean(overlaps)) if overlaps else 0.0,
        missed=missed / max(faces, 1),
        extra=extra / max(faces, 1),
        landmark_shift=float(np.mean(shifts)) if shifts else 0.0,
    )


def compare_detectors(
    reference: Networks, candidate: Networks, scenes: Sequence[Path], config: Config, progress: Progress
) -> Detections | None:
    """Both detectors on whole photographs; None where there are none."""
    if not scenes:
        return None
    readers = [FaceReader(networks, config, lambda: 0.0) for networks in (reference, candidate)]
    found = []
    for index, scene in enumerate(scenes):
        image = read_image(scene)
        found.append((readers[0].find(image), readers[1].find(image)))
        progress("photographs", index + 1, len(scenes))
    return detections(found)


def verification_loss(evidence: Evidence, reference: Float32, candidate: Float32) -> VerificationLoss:
    """What the candidate's embeddings lose; both float32 [n, dim], of the evidence's chips."""
    people = [person(photo) for photo in evidence.photos]
    thresholds = [Strangers(people, list(found)).threshold(DECISION_FAR) for found in (reference, candidate)]
    by_photo = [_embeddings(evidence, found) for found in (reference, candidate)]
    scored = [score(evidence.pairs, found) for found in by_photo]
    genuine = scored[0].genuine
    mixed = _mixed(evidence.pairs, *by_photo)
    accepted = [
        np.asarray(each.score[genuine] >= limit) for each, limit in zip(scored, thresholds, strict=True)
    ]
    tar = float(accepted[0].mean()), float(accepted[1].mean())
    accuracy = [_accuracy(each) for each in scored]
    right = [_right(each.score, genuine) for each in scored]
    return VerificationLoss(
        tar=tar,
        tar_loss=tar[0] - tar[1],
        tar_loss_interval=loss_interval(*accepted),
        mixed_tar_loss=float(tar[0] - (mixed[genuine] >= thresholds[0]).mean()),
        mixed_far=float((mixed[~genuine] >= thresholds[0]).mean()),
        accuracy=(accuracy[0], accuracy[1]),
        accuracy_loss=accuracy[0] - accuracy[1],
        accuracy_loss_interval=loss_interval(*right),
        pairs=int((~np.isnan(scored[0].score)).sum()),
    )


def expression_loss(true: Labels, reference: Float32, candidate: Float32) -> ExpressionLoss:
    """What the candidate loses in naming expressions; both are logits, float32 [n, labels]."""
    right = [logits.argmax(axis=1) == true for logits in (reference, candidate)]
    shares = float(right[0].mean()), float(right[1].mean())
    return ExpressionLoss(shares, shares[0] - shares[1], loss_interval(*right), len(true))


def loss_interval(reference: Mask, candidate: Mask) -> tuple[float, float]:
    """Percentile bootstrap interval, 95 %, of the difference of two shares of right answers to the same questions.

    The questions are drawn anew, the same ones for both: what both find hard cancels out (Efron and Tibshirani 1993).
    """
    difference = reference.astype(np.int8) - candidate.astype(np.int8)
    rng = np.random.default_rng(_SEED)
    means = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(_ROUNDS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _couples(
    reference: Sequence[Detection], candidate: Sequence[Detection]
) -> list[tuple[Detection, Detection, float]]:
    if not reference or not candidate:
        return []
    boxes = np.array([each.box for each in candidate], np.float32)
    overlap = np.stack([iou(np.array(each.box, np.float32), boxes) for each in reference])
    couples = []
    while (best := float(overlap.max())) >= _SAME_FACE:
        row, column = divmod(int(overlap.argmax()), len(candidate))
        couples.append((reference[row], candidate[column], best))
        overlap[row], overlap[:, column] = -1, -1
    return couples


def _embeddings(evidence: Evidence, found: Float32) -> dict[str, Float32 | None]:
    """The embedding of each photograph of the pairs; None where no face was found."""
    known: Mapping[str, Float32] = dict(zip(evidence.photos, found, strict=True))
    return {photo: known.get(photo) for pair in evidence.pairs for photo in (pair.first, pair.second)}


def _mixed(
    pairs: Sequence[Pair], first: Mapping[str, Float32 | None], second: Mapping[str, Float32 | None]
) -> Scores:
    """Cosines of the first photographs by one network and the second ones by the other; NaN without a face."""
    found = [(first[pair.first], second[pair.second]) for pair in pairs]
    return np.array([np.nan if a is None or b is None else float(a @ b) for a, b in found])


def _accuracy(scored: Scored) -> float:
    """Over the folds; where but one is left to judge by, at the best threshold."""
    if len(np.unique(scored.fold)) > 1:
        return float(folded_accuracy(scored.score, scored.genuine, scored.fold).accuracy.mean())
    return float(_right(scored.score, scored.genuine).mean())


def _right(scores: Scores, genuine: Mask) -> Mask:
    """Which pairs are answered rightly at the best threshold."""
    return np.asarray(((scores >= best_threshold(scores, genuine)) == genuine) & ~np.isnan(scores))


def _log_softmax(logits: Float32) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
