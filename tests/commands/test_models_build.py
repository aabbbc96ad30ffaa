"""`cabinsense models build`, as a model engineer uses it on a machine without a GPU."""

import os
import shutil
import subprocess
import sys

import pytest

from engines.plans import read_plan
from engines.probe import probe_cuda, probe_library

RTX = ("--backend", "tensorrt-rtx", "--compute-capability", "86")


@pytest.fixture
def folder(tmp_path, pack):
    """A pack of one's own."""
    shutil.copytree(pack.path, tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def rtx():
    if problem := probe_library("tensorrt-rtx").problem:
        pytest.skip(problem)


def build(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "agent", "models", "build", "--source", str(folder), *arguments],
        env={**os.environ, "CABINSENSE_CONFIG": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_plans_are_built_once_and_then_found_good(folder, rtx):
    first = build(folder, *RTX, "--precision", "fp16")
    assert (first.returncode, first.stdout.count(": built")) == (0, 2)
    assert "norm parameters are fixed" in first.stdout
    plans = [
        read_plan(folder / "plans" / "tensorrt-rtx-fp16" / f"{name}.plan") for name in ("detector", "face")
    ]
    assert [plan.key.dims for plan in plans] == [{"H": 256, "W": 320}, {"N": 1}]
    again = build(folder, *RTX, "--precision", "fp16")
    assert (again.returncode, again.stdout.count(": good already")) == (0, 2)


def test_a_new_plan_has_yet_to_pass_the_gate(folder, rtx):
    report = folder / "gates" / "tensorrt-rtx-fp16.json"
    report.parent.mkdir()
    report.write_text('{"passed": true}')
    assert build(folder, *RTX).returncode == 0
    assert not report.exists()


def test_a_damaged_plan_is_told_and_replaced(folder, rtx):
    build(folder, *RTX)
    file = folder / "plans" / "tensorrt-rtx-fp16" / "detector.plan"
    with file.open("r+b") as stream:
        stream.truncate(5000)
    told = build(folder, *RTX)
    assert told.returncode == 0
    assert "detector.plan: has 5000 of" in told.stderr
    assert read_plan(file).key.precision == "fp16"


def test_a_compute_capability_that_cannot_be_built_for_is_told(folder, rtx):
    told = build(folder, "--backend", "tensorrt-rtx", "--compute-capability", "87")
    assert told.returncode == 1
    assert "does not build for compute capability 8.7; it knows 7.5" in told.stderr


def test_without_a_gpu_tensorrt_says_where_to_build(folder):
    if probe_cuda().device is not None:
        pytest.skip("there is a GPU here")
    told = build(folder, "--backend", "tensorrt")
    assert told.returncode == 1
    assert told.stderr.startswith("error: TensorRT builds on the GPU that the plan is for")
    assert not (folder / "plans").exists()


def test_int8_without_the_quantised_models_names_the_command(folder, rtx):
    told = build(folder, *RTX, "--precision", "int8")
    assert told.returncode == 1
    assert "cabinsense calibrate int8" in told.stderr
