"""The ONNX Runtime backend: memory bound once, norm parameters exchangeable, mistakes named."""

import os
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.engine import EngineError
from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

ONE = SessionSettings(threads=1, dims={"N": 1})


@pytest.fixture(scope="module")
def chip(samples):
    photograph = cv2.imread(str(samples / "obama.jpg"))
    return cv2.resize(photograph[150:410, 360:620], (150, 150), interpolation=cv2.INTER_AREA)[None]


@pytest.fixture(scope="module")
def engine(pack):
    return OnnxRuntimeEngine.load(pack.face, ONE)


def test_its_inputs_and_outputs_are_told(engine):
    assert [(s.name, s.shape, s.dtype) for s in engine.inputs] == [("chip", (1, 150, 150, 3), np.uint8)]
    assert {s.name: (s.shape, s.dtype) for s in engine.outputs} == {
        "embedding": ((1, 128), np.float32),
        "emotion": ((1, 7), np.float32),
    }


def test_buffers_are_bound_once_and_used_for_every_run(engine, chip):
    buffer, first = engine.buffer("chip"), engine.run()
    arrays = dict(first)
    buffer[:] = 0
    black = engine.run()["embedding"].copy()
    buffer[:] = chip
    seen = engine.run()
    assert engine.buffer("chip") is buffer
    assert all(seen[name] is arrays[name] for name in arrays)
    assert not np.allclose(seen["embedding"], black, atol=1e-3)


def test_feeding_is_copying_into_the_buffer(engine, chip):
    fed = engine.run({"chip": chip})["embedding"].copy()
    assert np.array_equal(engine.buffer("chip"), chip)
    engine.buffer("chip")[:] = 0
    engine.run()
    engine.buffer("chip")[:] = chip
    assert np.array_equal(engine.run()["embedding"], fed)


def test_faces_in_a_batch_do_not_touch_each_other(engine, pack, chip):
    black = np.zeros_like(chip)
    alone = [{k: v.copy() for k, v in engine.run({"chip": each}).items()} for each in (chip, black)]
    both = OnnxRuntimeEngine.load(pack.face, SessionSettings(threads=1, dims={"N": 2}))
    together = both.run({"chip": np.concatenate([chip, black])})
    for name, values in together.items():
        for row, one in zip(values, alone, strict=True):
            assert np.allclose(row, one[name][0], atol=1e-4)


@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        ({"image": np.zeros((1, 150, 150, 3), np.uint8)}, "no input image; there are chip"),
        ({"chip": np.zeros((1, 150, 150, 3), np.float32)}, "wants uint8"),
        ({"chip": np.zeros((1, 151, 150, 3), np.uint8)}, r"not uint8 \(1, 151, 150, 3\)"),
        ({"chip": np.zeros((150, 150, 3), np.uint8)}, "chip wants"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(engine, feeds, complaint):
    with pytest.raises(ValueError, match=complaint):
        engine.run(feeds)


def test_new_norms_make_a_new_engine_and_leave_the_old_one_alone(engine, pack, chip):
    before = engine.run({"chip": chip})["embedding"].copy()
    scale = read_norms(onnx.load(str(pack.face)))["norm.input.scale"]
    darker = engine.with_norms({"norm.input.scale": scale / 2})
    changed = darker.run({"chip": chip})["embedding"]
    assert float(before[0] @ changed[0]) < 0.999
    assert np.array_equal(engine.run({"chip": chip})["embedding"], before)
    back = darker.with_norms({"norm.input.scale": scale})
    assert np.array_equal(back.run({"chip": chip})["embedding"], before)


def test_norms_of_the_emotion_branch_leave_the_embedding_alone(engine, pack, chip):
    before = {name: value.copy() for name, value in engine.run({"chip": chip}).items()}
    norms = read_norms(onnx.load(str(pack.face)))
    shifted = {name: v + 0.1 for name, v in norms.items() if name.startswith("norm.emotion.")}
    after = engine.with_norms(shifted).run({"chip": chip})
    assert np.array_equal(after["embedding"], before["embedding"])
    assert not np.allclose(after["emotion"], before["emotion"], atol=1e-2)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"norm.nothing.scale": np.ones(3)}, "no norm parameter"),
        ({"norm.input.scale": np.ones(4)}, "3 channels, not 4"),
        ({"norm.input.scale": np.array([1, np.nan, 1])}, "not finite"),
    ],
)
def test_norms_that_cannot_be_meant_are_refused(engine, params, complaint):
    with pytest.raises(ValueError, match=complaint):
        engine.with_norms(params)


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(EngineError, match="no such model; `cabinsense models fetch`"):
        OnnxRuntimeEngine.load(tmp_path / "absent.onnx", ONE)
    for content in (b"", b"\x00" * 100, b"<html>not found</html>"):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(EngineError, match=r"bad\.onnx|refuses the model"):
            OnnxRuntimeEngine.load(tmp_path / "bad.onnx", ONE)


def test_a_side_without_a_size_is_named(pack):
    with pytest.raises(EngineError, match=r"chip has open dimensions .*give each a size"):
        OnnxRuntimeEngine.load(pack.face, SessionSettings())


def test_a_type_that_no_backend_here_knows_is_named():
    value = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value[0]], [value[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(EngineError, match=r"tensor x has type tensor\(int64\)"):
        OnnxRuntimeEngine(model, SessionSettings(threads=1))


@pytest.mark.parametrize("module", ["engines.onnxruntime_engine", "calibration.int8", "trainer.export"])
def test_onnx_runtime_keeps_no_number_of_the_machine_and_nothing_to_report(module, tmp_path):
    """Whichever of our modules imports it first; by its own choice it does both as soon as it is imported."""
    if module.startswith("trainer"):
        pytest.importorskip("torch", reason="the extra trainer is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    folders = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment | folders, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
