"""No engine goes live that says something else than the reference, and the report says why."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from agent import networks
from agent.config import Config, Gate, parse
from agent.images import read_image
from agent.perception.chain import FaceReader
from calibration import fidelity, gate
from calibration.fidelity import Gap, Outputs
from calibration.procedure import Bench, Sources
from engines import gates
from engines.engine import EngineError
from engines.model import read_model
from engines.norms import read_norms, write_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import Pack, verify

LIMITS = Gate()


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture
def own_pack(pack, tmp_path) -> Pack:
    """A pack that reports can be written into."""
    shutil.copytree(pack.path, tmp_path / "pack", ignore=shutil.ignore_patterns("int8", "gates", "plans"))
    return verify(tmp_path / "pack")


@pytest.fixture(scope="module")
def bench(pack, photographs):
    made = Bench(pack, Config(), Sources(photographs), quiet)
    yield made
    made.close()


@pytest.fixture(scope="module")
def judge(bench):
    return bench.judge()


def test_the_identical_engine_passes(bench, judge):
    report = bench.reported(judge, bench.reference, "onnxruntime", "fp32", {})
    assert report.passed
    assert report.reasons == ()
    assert report.face.drift.mean == pytest.approx(0, abs=1e-4)
    assert report.face.agreement.same == 1
    assert report.detector is not None
    assert (report.detector.iou, report.detector.missed, report.detector.extra) == (pytest.approx(1), 0, 0)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [("level", "drift of embeddings"), ("emotion.", "expressions that change")],
)
def test_a_damaged_face_network_is_refused_and_the_reason_names_the_damage(
    bench, judge, pack, layers, reason
):
    model = read_model(pack.face)
    rng = np.random.default_rng(0)
    damaged = {
        name: value * rng.uniform(0.3, 3, value.shape).astype(np.float32)
        for name, value in read_norms(model).items()
        if name.startswith(f"norm.{layers}") and name.endswith(".scale")
    }
    engine = OnnxRuntimeEngine(write_norms(model, damaged), SessionSettings(threads=1, dims={"N": 1}))
    report = judge.report(engine, quiet)
    engine.close()
    reasons = gate.face_reasons(report, LIMITS)
    assert any(reason in each and "the limit is" in each for each in reasons)
    if layers == "emotion.":  # the other half of the network is whole, and no reason says otherwise
        assert not [each for each in reasons if "embedding" in each]


def test_a_detector_that_misses_faces_is_refused(bench, judge):
    config = parse(b"[detector]\nthreshold = 0.999\n", "strict")
    readers = [FaceReader(bench.reference, each, lambda: 0.0) for each in (Config(), config)]
    images = [read_image(file) for file in judge.evidence.scenes[:8]]
    found = fidelity.detections([(readers[0].find(image), readers[1].find(image)) for image in images])
    assert found.missed == 1
    assert "faces missed: 100.00 %, the limit is 2.00 %" in gate.detector_reasons(found, LIMITS)


def test_a_detector_that_nobody_judged_is_refused():
    assert gate.detector_reasons(None, LIMITS) == (
        "the detector was not judged; give photographs with --data",
    )


def test_what_is_not_a_number_never_passes():
    first = Outputs(np.full((4, 8), 8**-0.5, np.float32), np.eye(4, 7, dtype=np.float32))
    broken = Outputs(np.full((4, 8), np.nan, np.float32), np.full((4, 7), np.nan, np.float32))
    report = gate.FaceReport(
        4,
        fidelity.drift(first, broken, Gap(0.9, 0.8, known=True)),
        fidelity.agreement(first.logits, broken.logits),
    )
    assert len(gate.face_reasons(report, LIMITS)) >= 3


def test_limits_are_in_the_configuration_and_nothing_absurd_is_accepted():
    assert parse(b"[gate]\ntar_loss = 0.05\n", "x").gate.tar_loss == 0.05
    for text in (b"[gate]\nmean_drift = 0\n", b"[gate]\ndetection_iou = 1.0\n", b"[gate]\ndrift = 1\n"):
        with pytest.raises(Exception, match="gate"):
            parse(text, "x")


def test_limits_can_be_tightened_to_leave_a_margin():
    tight = gate.tightened(LIMITS, 0.5)
    assert tight.tar_loss == LIMITS.tar_loss / 2
    assert 1 - tight.detection_iou == pytest.approx((1 - LIMITS.detection_iou) / 2)


def verdict(pack: Pack, **changed: object) -> gates.Verdict:
    digests = gates.digests(gates.models(pack, "fp32"))
    plain = gates.Verdict(True, (), "openvino", "fp32", digests, gates.runtime("openvino"))
    return msgspec.structs.replace(plain, **changed)


def write(pack: Pack, value: gates.Verdict) -> None:
    file = gates.report_file(pack.path, "openvino", "fp32")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.encode(value))


def test_the_reference_needs_no_report_and_everything_else_does(own_pack):
    gates.require_passed(own_pack, "onnxruntime", "fp32")
    for backend, precision in (("openvino", "fp32"), ("onnxruntime", "int8"), ("onnxruntime-cuda", "fp32")):
        with pytest.raises(EngineError, match=f"calibrate gate --backend .* --precision {precision}"):
            gates.require_passed(own_pack, backend, precision)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"passed": False, "reasons": ("faces missed: 9 %",)}, "did not pass the gate: faces missed: 9 %"),
        ({"models": {"face": "0" * 64, "detector": "0" * 64}}, "about other models"),
        ({"runtime": "openvino 1.0 sparc"}, "or another version"),
        ({"precision": "int8"}, "about other models"),
    ],
)
def test_only_a_report_about_just_this_engine_lets_it_pass(own_pack, changed, told):
    write(own_pack, verdict(own_pack))
    gates.require_passed(own_pack, "openvino", "fp32")
    write(own_pack, verdict(own_pack, **changed))
    with pytest.raises(EngineError, match=told):
        gates.require_passed(own_pack, "openvino", "fp32")


def test_a_report_that_is_cut_off_lets_nothing_pass(own_pack):
    write(own_pack, verdict(own_pack))
    file = gates.report_file(own_pack.path, "openvino", "fp32")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(EngineError, match="not a gate's report"):
        gates.require_passed(own_pack, "openvino", "fp32")


@pytest.fixture
def calibrate(tmp_path, own_pack):
    """Runs the command as a user would, with limits that a short clip keeps."""
    config = tmp_path / "cabinsense.toml"
    config.write_text(
        f'pack = "{own_pack.path}"\n[gate]\ndetection_missed = 0.2\ndetection_extra = 0.2\ndetection_iou = 0.8\n'
        "landmark_shift = 0.2\nmean_drift = 0.5\np99_drift = 1.0\nemotion_change = 0.5\nemotion_kl = 1.0\n"
    )

    def run(what: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", "calibrate", what, "--config", str(config)]
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=250, check=False
        )

    return run


def test_eight_bits_go_live_after_the_gate_and_not_before(calibrate, own_pack, photographs, tmp_path):
    config = parse(b'[engine]\nprecision = "int8"\n', "x")
    with pytest.raises(EngineError, match="calibrate int8"):
        networks.load(own_pack, config)
    done = calibrate("int8", "--data", photographs, "--count", 16, "--method", "minmax", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert report["face"]["chips"] >= 16
    loaded = networks.load(own_pack, config)
    assert (loaded.face.run()["embedding"] != 0).any()
    loaded.close()
    record = json.loads((own_pack.path / "int8" / "calibration.json").read_text())
    assert record["data"]["count"] == 16
    assert record["weights"]["face"] == 1
    for picture in ("int8/calibration.png", "gates/onnxruntime-int8.png"):
        assert cv2.imread(str(own_pack.path / picture)) is not None
    # A successor that is refused leaves what is in place as it is.
    before = (own_pack.path / "int8" / "face.onnx").read_bytes()
    strict = tmp_path / "strict.toml"
    strict.write_text(f'pack = "{own_pack.path}"\n[gate]\nmean_drift = 1e-9\n')
    refused = calibrate("int8", "--data", photographs, "--count", 20, "--config", strict)
    assert refused.returncode == 1
    assert "error: the gate refuses onnxruntime int8: mean drift of embeddings" in refused.stderr
    assert "Nothing was put in place" in refused.stderr
    assert (own_pack.path / "int8" / "face.onnx").read_bytes() == before
    aside = json.loads((own_pack.path / "gates" / "refused" / "onnxruntime-int8.json").read_text())
    assert not aside["passed"]
    networks.load(own_pack, config).close()
    # Another model under the same name has not passed.
    (own_pack.path / "int8" / "face.onnx").write_bytes((own_pack.path / "face.onnx").read_bytes())
    with pytest.raises(EngineError, match="about other models"):
        networks.load(own_pack, config)


def test_another_backend_goes_live_after_the_gate(calibrate, own_pack, photographs):
    pytest.importorskip(
        "engines.openvino_engine", reason="the extra openvino is not installed", exc_type=ImportError
    )
    config = parse(b'[engine]\nbackend = "openvino"\n', "x")
    with pytest.raises(EngineError, match="has not passed the gate"):
        networks.load(own_pack, config)
    done = calibrate("gate", "--data", photographs, "--backend", "openvino")
    assert done.returncode == 0, done.stderr
    assert "openvino fp32: passed" in done.stdout
    loaded = networks.load(own_pack, config)
    assert loaded.notes == ()
    loaded.close()


def test_without_the_gate_the_reference_takes_over_where_it_may(own_pack):
    pytest.importorskip(
        "engines.openvino_engine", reason="the extra openvino is not installed", exc_type=ImportError
    )
    loaded = networks.load(own_pack, parse(b'[engine]\nbackend = "openvino"\nfallback = true\n', "x"))
    (note,) = loaded.notes
    assert "has not passed the gate" in note
    assert type(loaded.face) is OnnxRuntimeEngine
    loaded.close()


def test_expressions_calibrate_and_judge_the_face_network_alone(calibrate, own_pack, shared_data):
    npz = shared_data / "fer2013.npz"
    if not npz.is_file():
        pytest.skip(f"{npz} is absent")
    small = own_pack.path.parent / "small.npz"
    with np.load(npz) as arrays:
        np.savez(small, **{f"{s}_{a}": arrays[f"{s}_{a}"][:120] for s in ("train", "test") for a in "xy"})
    done = calibrate("int8", "--data", small, "--count", 32, "--json")
    report = json.loads(done.stdout)
    assert report["face"]["expressions"]["images"] == 120
    assert report["detector"] is None
    assert report["models"]["detector"] == own_pack.manifest.detector.sha256


def test_people_of_the_first_folds_calibrate_and_those_of_the_others_judge(pack, lfw, tmp_path):
    lines = (lfw / "pairs.txt").read_text("utf-8").split("\n")
    short = ["2\t12"]
    for block in range(4):  # genuine and impostor pairs of fold 1, then of fold 2
        short += lines[1 + 300 * block :][:12]
    (tmp_path / "pairs.txt").write_text("\n".join(short) + "\n", "utf-8")
    bench = Bench(pack, Config(), Sources(lfw, tmp_path / "pairs.txt"), quiet)
    chosen, judge = bench.choose(16, 0), bench.judge()
    assert (bench.choose(16, 0).chips == chosen.chips).all()
    assert not {chip.tobytes() for chip in chosen.chips} & {chip.tobytes() for chip in judge.evidence.chips}
    people = {pair.first.split("/")[0] for pair in judge.evidence.pairs}
    assert {photo.split("/")[0] for photo in judge.evidence.photos} >= people
    loss = judge.report(bench.reference.face, quiet).verification
    assert loss is not None
    assert (loss.tar_loss, loss.accuracy_loss, loss.pairs) == (0, 0, 24)
    bench.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "nowhere"], "nowhere: no such folder; name a folder of photographs, or fer2013.npz"),
        (["--data", "empty"], "empty: holds no photograph"),
        (["--data", "few"], "at least 16 are needed"),
        (["--data", "text"], "not an image that OpenCV can read"),
        (["--data", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--data", "nowhere.npz", "--pairs", "pairs.txt"], "pairs are of photographs"),
        (["--data", "few", "--pairs", "pairs.txt"], "LFW's list of pairs, pairs.txt, is needed"),
    ],
)
def test_data_that_cannot_be_used_are_named_with_what_to_do(calibrate, tmp_path, samples, arguments, told):
    for name in ("empty", "few", "text"):
        (tmp_path / name).mkdir()
    for name in ("obama.jpg", "biden.jpg", "obama2.jpg"):
        shutil.copy(samples / name, tmp_path / "few")
    for index in range(40):
        (tmp_path / "text" / f"{index}.jpg").write_text("no picture")
    done = calibrate("int8", *[tmp_path / a if not a.startswith("--") else a for a in arguments])
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
