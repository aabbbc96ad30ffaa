"""One pack, one protocol, several backends: each computes what ONNX Runtime does, and behaves alike."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from engines.engine import EngineError
from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

ROOT = Path(__file__).parents[2]
ONE = {"N": 1}
SIZE = {"H": 256, "W": 320}
# Largest difference to ONNX Runtime of any value. All compute in float32, but add up in orders of their own. What the
# detector calls `scale` is the logarithm of a width: 1e-4 of it is a hundredth of a pixel on a face of 100.
EMBEDDING, LOGIT, MAP = 2e-6, 2e-5, 1e-4


@pytest.fixture(scope="module")
def photograph(samples):
    return cv2.imread(str(samples / "obama.jpg"))


@pytest.fixture(scope="module")
def chip(photograph):
    return cv2.resize(photograph[150:410, 360:620], (150, 150), interpolation=cv2.INTER_AREA)[None]


@pytest.fixture(scope="module")
def face(pack) -> onnx.ModelProto:
    return onnx.load(str(pack.face))


def reference(model, dims, feeds):
    """What ONNX Runtime makes of it."""
    return OnnxRuntimeEngine(model, SessionSettings(threads=1, dims=dims)).run(feeds)


def off(found, expected) -> dict[str, float]:
    assert list(found) == list(expected)
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}


def test_a_face_gets_the_same_embedding_and_emotion(make, face, chip):
    differences = off(make(face, ONE).run({"chip": chip}), reference(face, ONE, {"chip": chip}))
    assert differences["embedding"] < EMBEDDING
    assert differences["emotion"] < LOGIT


def test_the_detector_gives_the_same_maps(make, pack, photograph):
    model = onnx.load(str(pack.detector))
    feeds = {"image": cv2.resize(photograph, (SIZE["W"], SIZE["H"]))[None]}
    expected = reference(model, SIZE, feeds)
    assert expected["heatmap"].max() > 0.5  # there is a face to be found
    differences = off(make(model, SIZE).run(feeds), expected)
    assert max(differences.values()) < MAP


def test_inputs_and_outputs_are_those_of_the_graph(make, face):
    engine = make(face, ONE)
    assert [(s.name, s.shape, s.dtype) for s in engine.inputs] == [("chip", (1, 150, 150, 3), np.uint8)]
    assert [(s.name, s.shape, s.dtype) for s in engine.outputs] == [
        ("embedding", (1, 128), np.float32),
        ("emotion", (1, 7), np.float32),
    ]


def test_writing_into_the_buffer_is_all_that_a_run_needs(make, small):
    engine = make(small, ONE)
    buffer = engine.buffer("chip")
    white = np.full_like(buffer, 255)
    fed = engine.run({"chip": white})["embedding"].copy()
    assert np.array_equal(buffer, white)
    buffer[:] = 0
    first = engine.run()
    black = first["embedding"].copy()
    buffer[:] = 255
    second = engine.run()
    assert engine.buffer("chip") is buffer
    assert all(second[name] is first[name] for name in first)
    assert np.array_equal(second["embedding"], fed)
    assert not np.allclose(black, fed, atol=1e-3)


def test_faces_in_a_batch_do_not_touch_each_other(make, small):
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (3, 24, 24, 3), np.uint8)
    together = make(small, {"N": 3}).run({"chip": batch})
    alone = make(small, ONE)
    for index in range(3):
        for name, value in alone.run({"chip": batch[index : index + 1]}).items():
            assert np.allclose(together[name][index], value[0], atol=1e-5)


def test_a_feed_that_does_not_fit_is_refused(make, small):
    engine = make(small, ONE)
    with pytest.raises(ValueError, match="no input image; there are chip"):
        engine.run({"image": np.zeros((1, 24, 24, 3), np.uint8)})
    for wrong in (np.zeros((1, 24, 24, 3), np.float32), np.zeros((24, 24, 3), np.uint8)):
        with pytest.raises(ValueError, match="chip wants uint8"):
            engine.run({"chip": wrong})


def test_new_norms_do_what_they_do_on_onnx_runtime(make, face, chip):
    rng = np.random.default_rng(3)
    norms = {
        name: value * rng.uniform(0.9, 1.1, value.shape).astype(np.float32)
        for name, value in read_norms(face).items()
    }
    engine = make(face, ONE)
    before = {name: value.copy() for name, value in engine.run({"chip": chip}).items()}
    adapted = engine.with_norms(norms)
    expected = OnnxRuntimeEngine(face, SessionSettings(threads=1, dims=ONE)).with_norms(norms)
    differences = off(adapted.run({"chip": chip}), expected.run({"chip": chip}))
    assert differences["embedding"] < EMBEDDING
    assert differences["emotion"] < LOGIT
    assert off(engine.run({"chip": chip}), before) == {"embedding": 0, "emotion": 0}
    back = adapted.with_norms(read_norms(face))
    assert off(back.run({"chip": chip}), before) == {"embedding": 0, "emotion": 0}


def test_norms_that_cannot_be_meant_are_refused(make, small):
    engine = make(small, ONE)
    for params, complaint in (
        ({"norm.nothing.scale": np.ones(3)}, "no norm parameter"),
        ({"norm.input.scale": np.ones(4)}, "3 channels, not 4"),
        ({"norm.input.scale": np.array([1, np.nan, 1])}, "not finite"),
    ):
        with pytest.raises(ValueError, match=complaint):
            engine.with_norms(params)


def test_a_closed_engine_runs_no_more(make, small):
    engine = make(small, ONE)
    other = engine.with_norms({})
    engine.close()
    with pytest.raises(AttributeError):
        engine.run()
    assert np.isfinite(other.run()["embedding"]).all()


def test_a_side_without_a_size_is_named(make, small):
    with pytest.raises(EngineError, match=r"chip has open dimensions?"):
        make(small, {})


def test_openvino_calls_nobody(pack, tmp_path):
    """Left alone it reports its own import to a web address, and keeps a number for the machine in the home folder."""
    if find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    code = f"""
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, arguments)
sys.addaudithook(watch)
from pathlib import Path
from engines.openvino_engine import OpenVINOEngine
OpenVINOEngine.load(Path({str(pack.face)!r}), 1, {{"N": 1}}).run()
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {
        "HOME": str(tmp_path)
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_only_the_engine_imports_openvino():
    """Whoever else did, and came first, would let it report."""
    importing = re.compile(r"^\s*(import|from) openvino\b", re.MULTILINE)
    rooms = (ROOT / room for room in ("agent", "engines", "calibration", "trainer", "tests"))
    found = [path.name for room in rooms for path in room.rglob("*.py") if importing.search(path.read_text())]
    assert found == ["openvino_engine.py"]
