"""From photographs to eight-bit networks that have passed the gate, step by step."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
from msgspec import Struct
from numpy.typing import NDArray

from agent import networks
from agent.config import Config
from agent.perception.chain import Networks
from agent.perception.types import Image
from calibration import fidelity, gate, int8, material, representative, sensitivity
from calibration.fer2013 import CHIP_SIDE, LABELS
from calibration.fidelity import Evidence
from calibration.gate import FaceJudge, GateReport
from calibration.lfw import read_pairs
from calibration.material import MaterialError, Progress
from engines import gates
from engines.engine import Engine, EngineError
from engines.model import read_model
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import Pack, PackError
from engines.sources.storage import write_file

_SCENES = 200  # photographs that the detectors are compared on
_DETECTOR_COUNT = 64  # photographs that the detector is calibrated on: its activations are large
_FER_POOL = 2000
_FER_JUDGES = 1000
_MARGIN = 0.75  # of a limit: what keeps just that on one backend may miss it by a hair on the next
_TRIAL = 48  # chips, and photographs, that the sensitivity of a layer is measured on


@dataclass(frozen=True)
class Sources:
    """What the user gives.

    Attributes:
        data: a folder of photographs, or FER2013 as ``.npz``.
        pairs: list of pairs among the photographs, as LFW has it.
        expressions: FER2013 as ``.npz``; its private test measures the loss in expressions.
    """

    data: Path
    pairs: Path | None = None
    expressions: Path | None = None

    @property
    def is_fer(self) -> bool:
        """The data are FER2013."""
        return self.data.suffix == ".npz"


@dataclass(frozen=True)
class Chosen:
    """What networks are calibrated on: chips and detector inputs, uint8 BGR, and the record of the choice."""

    chips: NDArray[np.uint8]
    scenes: list[Image]
    record: representative.Choice


@dataclass(frozen=True)
class Quantised:
    """Both networks in eight bits.

    Attributes:
        face: with Q/DQ pairs.
        detector: likewise; None where there were no photographs to calibrate it on: it stays in float.
        kept: layers that were put back to float, by role.
        layers: how harmful each layer is, where that was asked for.
    """

    face: onnx.ModelProto
    detector: onnx.ModelProto | None
    kept: dict[str, list[str]]
    layers: sensitivity.Sensitivity | None = None


class Record(Struct, frozen=True, kw_only=True):
    """What is written beside the quantised networks.

    Attributes:
        method: how the ranges of activations were chosen.
        seed: of the choice.
        data: what the networks were calibrated on.
        kept: layers left in float, by role.
        weights: share of the weights of convolutions and products that are in eight bits, by role.
    """

    method: str
    seed: int
    data: representative.Choice
    kept: dict[str, list[str]]
    weights: dict[str, float]


class Bench:
    """A pack on the workbench: the reference's engines, the user's data on either side of the line."""

    def __init__(self, pack: Pack, config: Config, sources: Sources, progress: Progress) -> None:
        """Load the reference and look through the data.

        Raises:
            MaterialError: the data are too few or not there.
            PackError: FER2013 cannot be used with this pack.
        """
        self.pack, self.config, self.progress = pack, config, progress
        self._sources = sources
        engine = msgspec.structs.replace(
            config.engine, backend="onnxruntime", providers=("cpu",), precision="fp32"
        )
        if sources.is_fer and sources.pairs is not None:
            raise MaterialError("pairs are of photographs; name their folder with --data, not an .npz file")
        if sources.is_fer or sources.expressions is not None:
            self._check_labels()
        pairs = read_pairs(sources.pairs) if sources.pairs else []
        self._division = None if sources.is_fer else material.divide(sources.data, pairs)
        self.reference = networks.load(pack, msgspec.structs.replace(config, engine=engine))

    def close(self) -> None:
        """Release the reference."""
        self.reference.close()

    def choose(self, count: int, seed: int) -> Chosen:
        """Choose what to calibrate on."""
        if self._division is None:
            faces, _ = material.fer_faces(self._sources.data, "train", _FER_POOL, seed)
        else:
            faces = material.calibrating_faces(
                self._division, self.config, self.reference, count, seed, self.progress
            )
        chosen = representative.choose(faces.traits, count, seed)
        record = representative.describe(
            faces.traits, chosen, faces.chips, without_face=faces.without_face, seed=seed
        )
        scenes: list[Image] = []
        if self._division is not None:
            size = self.config.detector.width, self.config.detector.height
            scenes = material.scenes(self._division, faces, chosen, size, _DETECTOR_COUNT)
        return Chosen(faces.chips[chosen], scenes, record)

    def judge(self) -> FaceJudge:
        """The evidence, and what the reference says of it."""
        return gate.face_judge(
            self.reference.face,
            self._evidence(),
            self.config.gate,
            self.pack.manifest.face.threshold,
            self.progress,
        )

    def quantise(self, chosen: Chosen, method: int8.Method) -> Quantised:
        """Quantise every layer of both networks."""

        def one(file: Path, images: NDArray[np.uint8] | list[Image], what: str) -> onnx.ModelProto:
            return int8.quantise(
                read_model(file), images, method, lambda done, total: self.progress(what, done, total)
            )

        face = one(self.pack.face, chosen.chips, "ranges, face network")
        detector = one(self.pack.detector, chosen.scenes, "ranges, detector") if chosen.scenes else None
        return Quantised(face, detector, {"face": [], "detector": []})

    def rank(self, quantised: Quantised, chosen: Chosen) -> sensitivity.Sensitivity:
        """The harm of every layer, measured on some of the chips that were calibrated on."""
        limits, quiet = self.config.gate, _quiet
        evidence = Evidence(chosen.chips[:_TRIAL])
        scenes = self._scenes(self._division.calibrating, _TRIAL) if self._division else []
        judge = gate.face_judge(
            self.reference.face, evidence, limits, self.pack.manifest.face.threshold, quiet
        )

        def face_harm(model: onnx.ModelProto) -> float:
            engine = self._engine(model)
            found = judge.report(engine, quiet)
            engine.close()
            return sensitivity.face_harm(found, limits)

        def detector_harm(model: onnx.ModelProto) -> float:
            candidate = self._candidate(None, model)
            found = fidelity.compare_detectors(self.reference, candidate, scenes, self.config, quiet)
            candidate.detector.close()
            return sensitivity.detector_harm(found, limits) if found else 0.0

        return sensitivity.Sensitivity(
            sensitivity.rank(quantised.face, face_harm, "layers, face network", self.progress),
            sensitivity.rank(quantised.detector, detector_harm, "layers, detector", self.progress)
            if quantised.detector is not None
            else (),
        )

    def keep_fewest(
        self,
        quantised: Quantised,
        layers: sensitivity.Sensitivity,
        judge: FaceJudge,
        refused: GateReport,
    ) -> Quantised:
        """Put the fewest layers back to float with which the gate passes by a margin; all of them if need be.

        Args:
            quantised: every layer is in eight bits.
            layers: ranked by harm.
            judge: with the evidence.
            refused: the report on ``quantised``; a network that it finds nothing wrong with stays as it is.
        """
        limits = gate.tightened(self.config.gate, _MARGIN)

        def face_passes(kept: list[str]) -> bool:
            engine = self._engine(int8.restore(quantised.face, kept))
            found = judge.report(engine, self.progress)
            engine.close()
            return not gate.face_reasons(found, limits)

        def detector_passes(kept: list[str]) -> bool:
            assert quantised.detector is not None  # noqa: S101 # asked only where there is one
            candidate = self._candidate(None, int8.restore(quantised.detector, kept))
            found = fidelity.compare_detectors(
                self.reference, candidate, judge.evidence.scenes, self.config, self.progress
            )
            candidate.detector.close()
            return not gate.detector_reasons(found, limits)

        kept: dict[str, list[str]] = {"face": [], "detector": []}
        if gate.face_reasons(refused.face, refused.limits):
            kept["face"] = _few(layers.face, face_passes)
        if quantised.detector is not None and gate.detector_reasons(refused.detector, refused.limits):
            kept["detector"] = _few(layers.detector, detector_passes)
        return Quantised(
            int8.restore(quantised.face, kept["face"]),
            int8.restore(quantised.detector, kept["detector"]) if quantised.detector is not None else None,
            kept,
            layers,
        )

    def try_out(self, quantised: Quantised, judge: FaceJudge) -> GateReport:
        """The gate's report on quantised networks that are not in the pack yet, on ONNX Runtime."""
        candidate = self._candidate(quantised.face, quantised.detector)
        digests = {role: _digest(data) for role, data in self._files(quantised).items()}
        same = quantised.detector is None
        report = self.reported(judge, candidate, "onnxruntime", "int8", digests, detector_is_reference=same)
        candidate.face.close()
        if not same:
            candidate.detector.close()
        return report

    def examine(self, judge: FaceJudge) -> GateReport:
        """The gate's report on the engines that the configuration names.

        Raises:
            EngineError: they do not load.
        """
        engine = self.config.engine
        backend = gates.name(engine.backend, engine.providers)
        if (backend, engine.precision) == ("onnxruntime", "fp32"):
            raise EngineError(
                "onnxruntime fp32 is the reference itself; name what to compare with it by --backend and --precision"
            )
        digests = gates.digests(gates.models(self.pack, engine.precision))
        plain = msgspec.structs.replace(self.config, engine=msgspec.structs.replace(engine, fallback=False))
        candidate = networks.load(self.pack, plain, gated=False)
        same = engine.backend == "onnxruntime" and digests["detector"] == self.pack.manifest.detector.sha256
        report = self.reported(
            judge, candidate, backend, engine.precision, digests, detector_is_reference=same
        )
        candidate.close()
        return report

    def reported(
        self,
        judge: FaceJudge,
        candidate: Networks,
        backend: str,
        precision: str,
        digests: dict[str, str],
        *,
        detector_is_reference: bool = False,
    ) -> GateReport:
        """The gate's report on any networks.

        Args:
            judge: with the evidence.
            candidate: what is judged.
            backend: what runs it, as ``engines.gates.name`` says it.
            precision: what it computes in.
            digests: SHA-256 of its ONNX files, by role.
            detector_is_reference: its detector is the reference's own, and need not be compared.
        """
        face = judge.report(candidate.face, self.progress)
        reasons = gate.face_reasons(face, judge.limits)
        detector = None
        if not detector_is_reference:
            detector = fidelity.compare_detectors(
                self.reference, candidate, judge.evidence.scenes, self.config, self.progress
            )
            reasons += gate.detector_reasons(detector, judge.limits)
        return GateReport(
            passed=not reasons,
            reasons=reasons,
            backend=backend,
            precision=precision,
            models=digests,
            runtime=gates.runtime(backend),
            pack=self.pack.manifest.digest,
            evidence=representative.digest(judge.evidence.chips),
            limits=judge.limits,
            face=face,
            detector=detector,
        )

    def write(
        self, quantised: Quantised, chosen: Chosen, method: str, report: GateReport, folder: Path
    ) -> Path:
        """Put quantised networks that passed in place, or only the report where they did not. Returns its file.

        What is in place and has passed stays as it is when its successor is refused.

        Raises:
            EngineError: the folder cannot be written.
        """
        target = gates.report_file(folder, report.backend, report.precision)
        if not report.passed:
            target = target.parent / "refused" / target.name
        try:
            if report.passed:
                (folder / "int8").mkdir(parents=True, exist_ok=True)
                for role, data in self._files(quantised).items():
                    write_file(folder / "int8" / gates.models(self.pack, "fp32")[role].name, data)
                record = self._record(quantised, chosen, method)
                write_json(folder / "int8" / "calibration.json", record)
            write_json(target, report)
        except OSError as error:
            raise EngineError(f"{folder}: {error.strerror}; name another folder with --out") from error
        return target

    def _files(self, quantised: Quantised) -> dict[str, bytes]:
        """The content of the ONNX files, by role."""
        detector = quantised.detector
        return {
            "face": quantised.face.SerializeToString(),
            "detector": self.pack.detector.read_bytes() if detector is None else detector.SerializeToString(),
        }

    def _record(self, quantised: Quantised, chosen: Chosen, method: str) -> Record:
        parts = {"face": quantised.face, "detector": quantised.detector}
        shares = {}
        for role, model in parts.items():
            quantised_count, total = int8.weight_count(model) if model is not None else (0, 1)
            shares[role] = quantised_count / total
        return Record(
            method=method, seed=chosen.record.seed, data=chosen.record, kept=quantised.kept, weights=shares
        )

    def _evidence(self) -> Evidence:
        expressions = None
        if self._sources.is_fer:
            faces, labels = material.fer_faces(self._sources.data, "test", _FER_JUDGES, 0)
            return Evidence(faces.chips, expressions=(faces.chips, self._in_pack_order(labels)))
        assert self._division is not None  # noqa: S101 # photographs always have one
        faces = material.judging_faces(self._division, self.config, self.reference, self.progress)
        if self._sources.expressions is not None:
            known, labels = material.fer_faces(self._sources.expressions, "test", 10**6, 0)
            expressions = known.chips, self._in_pack_order(labels)
        scenes = self._scenes(self._division.judging, _SCENES)
        return Evidence(faces.chips, faces.photos, self._division.pairs, scenes, expressions)

    def _scenes(self, files: list[str], most: int) -> list[Path]:
        assert self._division is not None  # noqa: S101 # asked only where there are photographs
        return [self._division.root / file for file in material.some(files, most, 0)]

    def _in_pack_order(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        order = np.array([self.pack.manifest.face.labels.index(label) for label in LABELS], np.int64)
        return order[labels]

    def _check_labels(self) -> None:
        face = self.pack.manifest.face
        if set(face.labels) != set(LABELS) or face.side != CHIP_SIDE:
            raise PackError(
                f"pack {self.pack.manifest.name} names {', '.join(face.labels)} on chips of {face.side} pixels: "
                "FER2013 says nothing about it; give photographs with --data, and no --expressions"
            )

    def _candidate(self, face: onnx.ModelProto | None, detector: onnx.ModelProto | None) -> Networks:
        """Networks of these models; where there is none, the reference's engine."""
        return Networks(
            self.pack.manifest,
            self.reference.detector if detector is None else self._engine(detector),
            self.reference.face if face is None else self._engine(face),
            landmarks=self.reference.landmarks,
        )

    def _engine(self, model: onnx.ModelProto) -> Engine:
        detector = self.config.detector
        threads = self.config.engine.threads or min(4, os.cpu_count() or 1)
        dims = {"N": 1, "H": detector.height, "W": detector.width}
        inputs = {side.dim_param for side in model.graph.input[0].type.tensor_type.shape.dim}
        return OnnxRuntimeEngine(
            model,
            SessionSettings(
                threads,
                self.config.engine.spinning,
                {name: size for name, size in dims.items() if name in inputs},
            ),
        )


def write_json(file: Path, value: Struct) -> None:
    """Write a report so that it can be read.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def _few(layers: tuple[sensitivity.Layer, ...], passes: sensitivity.Passes) -> list[str]:
    """The fewest layers; all of them where none are few enough."""
    found = sensitivity.fewest(layers, passes)
    return [layer.name for layer in layers] if found is None else found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _quiet(*_: object) -> None:
    """Progress that nobody watches."""
