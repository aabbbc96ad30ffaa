"""TensorRT for RTX really parses and builds both models of the pack, without a GPU; TensorRT itself asks for one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.int8 import quantise
from engines.build import (
    Model,
    Target,
    build_plan,
    choose_target,
    ensure_plan,
    onnx_file,
    plan_file,
    wanted_key,
)
from engines.engine import EngineError
from engines.model import with_dims
from engines.plans import read_plan
from engines.probe import Device, probe_cuda, probe_library

ORIN = Device("Orin", "8.7", 7620, "12.6")
DIMS = {"detector.onnx": {"H": 256, "W": 320}, "face.onnx": {"N": 1}}
SHAPES = {"detector.onnx": (256, 320, 3), "face.onnx": (150, 150, 3)}


@pytest.fixture(scope="module")
def rtx() -> Target:
    library = probe_library("tensorrt-rtx")
    if library.problem:
        pytest.skip(library.problem)
    return choose_target("tensorrt-rtx", "8.6", None)


@pytest.fixture
def folder(pack, tmp_path) -> Path:
    """A pack of one's own, to leave plans in."""
    for file in (pack.detector, pack.face):
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def build(folder: Path, name: str, target: Target, precision="fp32"):
    return build_plan(Model(folder / name, DIMS[name]), target, precision, folder / "timings")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", DIMS)
def test_both_models_of_the_pack_are_built(folder, rtx, name, precision):
    plan = build(folder, name, rtx, precision)
    key = plan.key
    assert (key.library, key.capability, key.precision, key.device) == ("tensorrt-rtx", "8.6", precision, "")
    assert len(plan.payload) > 0.4 * (folder / name).stat().st_size


@pytest.mark.parametrize("name", DIMS)
def test_both_models_are_built_from_their_quantised_form(folder, rtx, name):
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, SHAPES[name], np.uint8) for _ in range(2)]
    (folder / "int8").mkdir()
    model = with_dims(onnx.load(folder / name), DIMS[name])
    onnx.save(quantise(model, images, "minmax"), onnx_file(folder / name, "int8"))
    plan = build(folder, name, rtx, "int8")
    assert plan.key.precision == "int8"
    if name == "face.onnx":
        assert len(plan.payload) < 0.6 * (folder / name).stat().st_size


def test_a_good_plan_is_not_built_twice(folder, rtx):
    model = Model(folder / "detector.onnx", DIMS["detector.onnx"])
    first, built = ensure_plan(model, rtx, "fp16")
    assert built
    file = plan_file(model.path, "tensorrt-rtx", "fp16")
    before = file.stat().st_mtime_ns
    again, built = ensure_plan(model, rtx, "fp16")
    assert not built
    assert again == first
    assert file.stat().st_mtime_ns == before


def test_a_damaged_plan_is_built_anew(folder, rtx):
    model = Model(folder / "detector.onnx", DIMS["detector.onnx"])
    ensure_plan(model, rtx, "fp16")
    file = plan_file(model.path, "tensorrt-rtx", "fp16")
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\xa5\x5a\xa5\x5a")
    _, built = ensure_plan(model, rtx, "fp16")
    assert built
    assert read_plan(file).key.precision == "fp16"


def test_another_model_or_size_needs_another_plan(folder, rtx):
    model = Model(folder / "detector.onnx", {"H": 128, "W": 160})
    ensure_plan(model, rtx, "fp16")
    _, built = ensure_plan(Model(model.path, {"H": 160, "W": 128}), rtx, "fp16")
    assert built


def test_a_build_that_fails_leaves_the_old_plan(folder, rtx):
    model = Model(folder / "detector.onnx", {"H": 128, "W": 160})
    good, _ = ensure_plan(model, rtx, "fp16")
    with pytest.raises(EngineError, match=r"knows 7\.5"):
        ensure_plan(model, choose_target("tensorrt-rtx", "8.7", None), "fp16")
    assert read_plan(plan_file(model.path, "tensorrt-rtx", "fp16")) == good


def test_progress_is_told_from_nothing_to_all(folder, rtx):
    told = []
    model = Model(folder / "detector.onnx", {"H": 128, "W": 160})
    build_plan(model, rtx, "fp16", folder / "timings", lambda *step: told.append(step))
    phases = dict.fromkeys(phase for phase, _, _ in told)
    assert phases
    for phase in phases:
        steps = [(done, of) for name, done, of in told if name == phase]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]


def test_a_model_that_the_library_does_not_understand_is_named(small, rtx, tmp_path):
    strange = onnx.ModelProto()
    strange.CopyFrom(small)
    product = next(node for node in strange.graph.node if node.op_type == "MatMul")
    product.domain, product.op_type = "nobody", "Unheard"
    strange.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    onnx.save(strange, tmp_path / "strange.onnx")
    with pytest.raises(EngineError, match=r"strange\.onnx.*(Unheard|shapes)"):
        build_plan(Model(tmp_path / "strange.onnx", {"N": 1}), rtx, "fp32", tmp_path / "timings")


def test_a_file_that_is_no_model_is_named(rtx, tmp_path):
    (tmp_path / "face.onnx").write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"face\.onnx: not an ONNX model"):
        build_plan(Model(tmp_path / "face.onnx", {"N": 1}), rtx, "fp32", tmp_path / "timings")


def test_without_the_quantised_model_the_command_that_makes_it_is_named(folder, rtx):
    with pytest.raises(EngineError, match="calibrate int8"):
        build(folder, "face.onnx", rtx, "int8")


def test_a_folder_that_cannot_be_written_is_named(folder, rtx):
    (folder / "plans").write_text("in the way")
    with pytest.raises(EngineError, match=r"plans.*must belong to the user"):
        ensure_plan(Model(folder / "face.onnx", {"N": 1}), rtx, "fp32")


def test_the_inspector_reads_a_plan_back_where_there_is_a_gpu(folder, rtx):
    if probe_cuda().device is None:
        pytest.skip("TensorRT reads a plan only on a GPU of its capability, and there is none here")
    plan = build(folder, "face.onnx", choose_target("tensorrt-rtx", None, probe_cuda().device))
    code = (
        "import sys; from engines.probe import load_library; trt = load_library('tensorrt-rtx')\n"
        "engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(sys.stdin.buffer.read())\n"
        "print(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))"
    )
    told = subprocess.run([sys.executable, "-c", code], input=plan.payload, capture_output=True, check=True)
    assert b"chip" in told.stdout
    assert b"embedding" in told.stdout


def test_tensorrt_builds_only_where_the_gpu_is():
    with pytest.raises(EngineError, match="there is none here"):
        choose_target("tensorrt", None, None)
    with pytest.raises(EngineError, match=r"leave out --compute-capability"):
        choose_target("tensorrt", "8.6", ORIN)
    assert choose_target("tensorrt", "8.7", ORIN) == Target("tensorrt", "8.7", ORIN)


def test_tensorrt_for_rtx_builds_for_what_it_is_told():
    with pytest.raises(EngineError, match="--compute-capability"):
        choose_target("tensorrt-rtx", None, None)
    assert choose_target("tensorrt-rtx", "8.6", ORIN).device is None
    assert choose_target("tensorrt-rtx", "8.7", ORIN).device is ORIN


def test_the_key_changes_with_everything_that_a_plan_depends_on(folder):
    model = Model(folder / "face.onnx", {"N": 1})
    base = wanted_key(model, Target("tensorrt", "8.7", ORIN), "fp16", "10.3.0.30")
    others = [
        wanted_key(
            Model(folder / "detector.onnx", {"N": 1}), Target("tensorrt", "8.7", ORIN), "fp16", "10.3.0.30"
        ),
        wanted_key(Model(model.path, {"N": 2}), Target("tensorrt", "8.7", ORIN), "fp16", "10.3.0.30"),
        wanted_key(model, Target("tensorrt-rtx", "8.7", ORIN), "fp16", "10.3.0.30"),
        wanted_key(model, Target("tensorrt", "8.6", ORIN), "fp16", "10.3.0.30"),
        wanted_key(model, Target("tensorrt", "8.7", None), "fp16", "10.3.0.30"),
        wanted_key(model, Target("tensorrt", "8.7", ORIN), "fp32", "10.3.0.30"),
        wanted_key(model, Target("tensorrt", "8.7", ORIN), "fp16", "10.16.0.1"),
    ]
    assert base not in others
    assert len({str(each) for each in others}) == len(others)


def test_without_bindings_the_extra_is_named():
    """A Python that sees no site-packages of TensorRT: the message says how to install it."""
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = sys.modules['tensorrt_rtx_bindings'] = None\n"
        "from engines.probe import load_library\n"
        "load_library('tensorrt-rtx')"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert "pip install 'cabinsense[tensorrt-rtx]'" in told.stderr
