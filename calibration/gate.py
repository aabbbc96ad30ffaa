"""The gate: may an engine go live?

The reference is FP32 on ONNX Runtime's processor kernels; ``calibration.fidelity`` says how far an engine's answers are
from its own. Here each figure meets its limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct

from agent.config import Gate as Limits
from calibration import fidelity
from calibration.fidelity import (
    Agreement,
    Detections,
    Drift,
    Evidence,
    ExpressionLoss,
    Outputs,
    VerificationLoss,
)
from calibration.material import Progress
from engines.engine import Engine
from engines.gates import Verdict


class FaceReport(Struct, frozen=True):
    """What the gate saw of the face network; None where nothing was given to see it by."""

    chips: int
    drift: Drift
    agreement: Agreement
    verification: VerificationLoss | None = None
    expressions: ExpressionLoss | None = None


class GateReport(Verdict, frozen=True, kw_only=True):
    """The report, as JSON shows it: the verdict and all that it rests on.

    Attributes:
        pack: digest of the pack.
        evidence: SHA-256 of the chips.
        limits: the gate's limits when it judged.
        face: of the face network.
        detector: of the detector; None where there were no whole photographs.
    """

    pack: str
    evidence: str
    limits: Limits
    face: FaceReport
    detector: Detections | None


@dataclass
class FaceJudge:
    """Judges face networks against one reference, which runs once.

    Attributes:
        reference: what the reference says of the chips.
        expressions: and of the chips of known expression.
    """

    evidence: Evidence
    limits: Limits
    threshold: float
    reference: Outputs
    expressions: Outputs | None = None

    def report(self, candidate: Engine, progress: Progress) -> FaceReport:
        """What a candidate's outputs are worth."""
        evidence = self.evidence
        found = fidelity.observe(candidate, evidence.chips, "candidate, faces", progress)
        named = None
        if evidence.expressions is not None and self.expressions is not None:
            chips, true = evidence.expressions
            outputs = fidelity.observe(candidate, chips, "candidate, expressions", progress)
            named = fidelity.expression_loss(true, self.expressions.logits, outputs.logits)
        return FaceReport(
            chips=len(evidence.chips),
            drift=fidelity.drift(
                self.reference, found, fidelity.gap(self.reference.embedding, evidence, self.threshold)
            ),
            agreement=fidelity.agreement(self.reference.logits, found.logits),
            verification=fidelity.verification_loss(evidence, self.reference.embedding, found.embedding)
            if evidence.pairs
            else None,
            expressions=named,
        )


def face_judge(
    reference: Engine, evidence: Evidence, limits: Limits, threshold: float, progress: Progress
) -> FaceJudge:
    """Run the reference over the evidence. ``threshold`` is the pack's."""
    known = None
    faces = fidelity.observe(reference, evidence.chips, "reference, faces", progress)
    if evidence.expressions is not None:
        known = fidelity.observe(reference, evidence.expressions[0], "reference, expressions", progress)
    return FaceJudge(evidence, limits, threshold, faces, known)


@dataclass(frozen=True)
class Check:
    """One figure against its limit, which it must not exceed.

    Attributes:
        what: the figure in words.
        value: found.
        limit: allowed.
        unit: ``%`` for a share, else ``nats``.
    """

    what: str
    value: float
    limit: float
    unit: str = "%"

    @property
    def good(self) -> bool:
        """The limit is kept; what is not a number does not keep it."""
        return self.value <= self.limit

    @property
    def shown(self) -> str:
        """The figure as people read it."""
        return self._shown(self.value)

    @property
    def shown_limit(self) -> str:
        """The limit as people read it."""
        return self._shown(self.limit)

    def _shown(self, value: float) -> str:
        return f"{100 * value:.2f} %" if self.unit == "%" else f"{value:.4f} {self.unit}"


def face_checks(found: FaceReport, limits: Limits) -> list[Check]:
    """The figures of a face network."""
    loss, named = found.verification, found.expressions
    checks = [
        Check("mean drift of embeddings, share of the gap", found.drift.mean, limits.mean_drift),
        Check("drift that 1 embedding in 100 exceeds", found.drift.p99, limits.p99_drift),
        Check("expressions that change", 1 - found.agreement.same, limits.emotion_change),
        Check("mean divergence of expressions", found.agreement.kl, limits.emotion_kl, "nats"),
    ]
    if loss is not None:
        checks += [
            Check("loss in TAR at FAR 0.001", loss.tar_loss, limits.tar_loss),
            Check("the same against a gallery of the reference", loss.mixed_tar_loss, limits.tar_loss),
            Check("loss in accuracy of verification", loss.accuracy_loss, limits.accuracy_loss),
        ]
    if named is not None:
        checks.append(Check("loss in accuracy of expressions", named.loss, limits.emotion_loss))
    return checks


def detector_checks(found: Detections, limits: Limits) -> list[Check]:
    """The figures of a detector."""
    return [
        Check("part of a face's box that differs (1 - IoU)", 1 - found.iou, 1 - limits.detection_iou),
        Check("faces missed", found.missed, limits.detection_missed),
        Check("faces found in addition", found.extra, limits.detection_extra),
        Check("shift of landmarks, share of the eyes' distance", found.landmark_shift, limits.landmark_shift),
    ]


def face_reasons(found: FaceReport, limits: Limits) -> tuple[str, ...]:
    """Why a face network may not go live; nothing if it may."""
    return _reasons(face_checks(found, limits))


def detector_reasons(found: Detections | None, limits: Limits) -> tuple[str, ...]:
    """Why a detector may not go live; nothing if it may."""
    if found is None:
        return ("the detector was not judged; give photographs with --data",)
    if not found.faces:
        return ("the reference finds no face in the photographs: there is nothing to compare",)
    return _reasons(detector_checks(found, limits))


def tightened(limits: Limits, share: float) -> Limits:
    """Limits of which only a share may be used up."""
    values = {name: getattr(limits, name) * share for name in limits.__struct_fields__}
    return Limits(**values | {"detection_iou": 1 - (1 - limits.detection_iou) * share})


def checks(report: GateReport) -> list[Check]:
    """All figures of a report."""
    found = face_checks(report.face, report.limits)
    return found + (detector_checks(report.detector, report.limits) if report.detector else [])


def plot(report: GateReport, path: Path) -> None:
    """A picture: every figure as a share of its limit."""
    import matplotlib as mpl  # noqa: PLC0415 # an extra

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    found = checks(report)
    used = [100 * check.value / check.limit if check.limit else 0.0 for check in found]
    colours = ["tab:blue" if check.good else "tab:red" for check in found]
    figure, axis = plt.subplots(figsize=(11, 1 + 0.45 * len(found)), layout="constrained")
    axis.barh(range(len(found)), np.clip(used, -100, 300), color=colours)
    axis.set_yticks(range(len(found)), [f"{check.what}: {check.shown}" for check in found])
    axis.invert_yaxis()
    axis.axvline(100, color="black", linestyle="--")
    verdict = "passed" if report.passed else "refused"
    axis.set(
        title=f"{report.backend} {report.precision}: {verdict}, on {report.face.chips} faces",
        xlabel="share of the limit (%); cut off at 300",
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _reasons(found: Iterable[Check]) -> tuple[str, ...]:
    """What exceeds its limit."""
    return tuple(
        f"{check.what}: {check.shown}, the limit is {check.shown_limit}" for check in found if not check.good
    )
