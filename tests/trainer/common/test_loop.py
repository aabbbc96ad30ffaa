"""A run can be cut off at any moment and goes on as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.common import checkpoint, loop
from trainer.common.job import TrainingError

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("tiny.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def quiet(what, count, total):
    pass


def start(out, *arguments):
    command = [sys.executable, SCRIPT, "tiny", "--out", out, *arguments]
    return subprocess.Popen(
        list(map(str, command)), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines(out):
    """The metrics, without what differs from run to run."""
    if not (out / loop.HISTORY).is_file():
        return []
    whole = (out / loop.HISTORY).read_text().splitlines(keepends=True)
    found = [json.loads(line) for line in whole if line.endswith("\n")]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def wait_for_lines(process, out, count):
    while len(lines(out)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def same(one, other):
    first, second = (checkpoint.load(out / loop.CHECKPOINT)[0] for out in (one, other))
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_killed_and_then_stopped_ends_bit_identical_to_an_unbroken_one(tiny, tmp_path):
    settings = ["dropout=0.3", "ema=0.9", "optimizer=adamw", "learning_rate=0.01", "steps=150"]
    sets = [part for setting in [*settings, "pause=0.01"] for part in ("--set", setting)]
    out = tmp_path / "broken"
    process = start(out, *sets, "--set", "halt=100")  # however late the signal comes, the run is not over
    wait_for_lines(process, out, 2)
    time.sleep(np.random.default_rng(7).uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed = checkpoint.load(out / loop.CHECKPOINT)[1]["interval"]
    assert len(lines(out)) - 1 <= killed < 30  # an interval at most was lost

    process = start(out, *sets, "--set", "halt=145")
    wait_for_lines(process, out, killed + 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert f"stopped; the same command continues from {out}" in said
    assert "Traceback" not in said
    assert killed < checkpoint.load(out / loop.CHECKPOINT)[1]["interval"] < 30

    converted = tiny.TinySettings(
        dropout=0.3, ema=0.9, optimizer="adamw", learning_rate=0.01, steps=150, threads=0
    )
    for run in (out, tmp_path / "unbroken"):
        loop.train(tiny.TinyJob(converted), run, quiet)
    assert lines(out) == lines(tmp_path / "unbroken")
    assert same(out, tmp_path / "unbroken")


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(tiny, tmp_path):
    job = tiny.TinyJob(tiny.TinySettings(learning_rate=0.01, clip=0.0))
    loop.train(job, tmp_path, quiet, stop_after=2)
    job.images[:] = float("nan")
    with pytest.raises(TrainingError, match="loss is no number any more in interval 3"):
        loop.train(job, tmp_path, quiet)
    tensors, meta = checkpoint.load(tmp_path / loop.CHECKPOINT)
    assert meta["interval"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_the_checkpoint_of_another_run_is_refused_but_may_move_house(tiny, tmp_path):
    loop.train(tiny.TinyJob(tiny.TinySettings(steps=10)), tmp_path, quiet, stop_after=1)
    with pytest.raises(checkpoint.CheckpointError, match="another config; choose another --out"):
        loop.train(tiny.TinyJob(tiny.TinySettings(steps=10, seed=2)), tmp_path, quiet)
    loop.train(tiny.TinyJob(tiny.TinySettings(steps=10, threads=2)), tmp_path, quiet)
    assert len(lines(tmp_path)) == 2


def test_evaluations_come_when_asked_for_and_at_the_end(tiny, tmp_path):
    loop.train(tiny.TinyJob(tiny.TinySettings(steps=25)), tmp_path, quiet)
    assert [line["interval"] for line in lines(tmp_path) if "accuracy" in line] == [4, 5]
