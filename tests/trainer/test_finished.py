"""Branches that learn from branches before them, or go on from one."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trainer.__main__ import app
from trainer.common.checkpoint import CheckpointError
from trainer.config import load_config
from trainer.emotion import EmotionJob, batches, logits_of, open_source, prepare, read_data, train
from trainer.finished import read_branch
from trainer.metrics import best_temperature, log_softmax


def quiet(what, count, total):
    pass


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="session")
def two_runs(faces, trunk_file, tmp_path_factory):
    """Two branches of different seeds, as runs, and the first exported, too."""
    root = tmp_path_factory.mktemp("teachers")
    common = [
        f"data={faces}",
        f"trunk={trunk_file}",
        f"cache={root / 'cache'}",
        "branch.stages=[[16, 2], [16, 2]]",
        *("versions=2", "batch=32", "threads=1", "epochs=3", "bfloat16=false"),
    ]
    for seed in (1, 2):
        sets = [part for each in (*common, f"seed={seed}") for part in ("--set", each)]
        target = ["--export", root / "one.onnx"] if seed == 1 else []
        done = command("emotion", *sets, "--out", root / str(seed), *target)
        assert done.exit_code == 0, done.output
    return root, common


def test_targets_are_the_teachers_mean_answer_and_the_label(two_runs):
    root, common = two_runs
    named = f'teachers=["{root / "1"}", "{root / "2"}"]'
    config = load_config(None, [*common, named, "teacher_share=0.75", "mixup=0", "teacher_views=2"])
    data = prepare(config, quiet)
    expected = np.zeros((160, 7))
    for run in (root / "1", root / "2"):
        branch = read_branch(str(run))
        temperature = best_temperature(logits_of(branch, data.validation, config), data.validation_labels)
        for maps in data.train:
            logits = logits_of(branch, maps, config) / np.float32(temperature)
            expected += np.exp(log_softmax(logits)) / 4  # two teachers, two variants of each image
    share = config.label_smoothing
    smoothed = np.eye(7)[data.train_labels] * (1 - share) + share / 7
    expected = 0.75 * expected + 0.25 * smoothed
    found = torch.cat([targets for _, targets in batches(config, data, 0)])
    order = np.random.default_rng((config.seed, 0)).permutation(160)
    assert np.abs(found.numpy() - expected[order]).max() < 1e-5


def test_an_exported_branch_answers_as_its_run_does(two_runs):
    root, common = two_runs
    answers = [
        prepare(load_config(None, [*common, f'teachers=["{root / name}"]']), quiet).answers
        for name in ("1", "one.onnx")
    ]
    # Weights in half precision, and a temperature that the export has folded in and that is found again here.
    assert np.abs(answers[0] - answers[1]).max() < 0.02
    assert (answers[0].argmax(1) == answers[1].argmax(1)).mean() > 0.97


def test_answers_are_asked_for_once(two_runs):
    root, common = two_runs
    config = load_config(None, [*common, f'teachers=["{root / "1"}"]'])
    first = prepare(config, quiet).answers
    kept = {path: path.stat().st_mtime_ns for path in (root / "cache").glob("answers-*.npy")}
    assert kept
    assert (prepare(config, quiet).answers == first).all()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_branch_that_learns_from_two_falls_in_loss_and_goes_on_only_with_the_same(two_runs, tmp_path):
    root, common = two_runs
    sets = [*common, "epochs=4", "mixup=0", "seed=5"]
    config = load_config(None, [*sets, f'teachers=["{root / "1"}", "{root / "2"}"]'])
    data = prepare(config, quiet)
    train(config, data, tmp_path / "run", quiet)
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"] - 0.02
    other = load_config(None, [*sets, f'teachers=["{root / "2"}"]'])
    with pytest.raises(CheckpointError, match="another teachers"):
        train(other, data, tmp_path / "run", quiet)
    (tmp_path / "moved").symlink_to(root)  # the same teachers elsewhere
    moved = load_config(
        None, [*sets, f'teachers=["{tmp_path / "moved" / "1"}", "{tmp_path / "moved" / "2"}"]']
    )
    train(moved, data, tmp_path / "run", quiet)


def test_a_branch_goes_on_from_the_averaged_weights_of_a_run(two_runs):
    root, common = two_runs
    config = load_config(None, [*common, f"start={root / '1'}"])
    source = open_source(config, quiet)
    job = EmotionJob(config, source, lambda: read_data(source))
    there = read_branch(str(root / "1")).state_dict()
    assert all(torch.equal(value, there[name]) for name, value in job.module.state_dict().items())
    other = load_config(None, [*common, f"start={root / '1'}", "branch.stages=[[16, 2], [24, 2]]"])
    with pytest.raises(CheckpointError, match="another shape"):
        EmotionJob(other, source, lambda: read_data(source))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("teachers=['nowhere']", "nowhere is not a checkpoint"),
        ("teachers=['nowhere.onnx']", "nowhere.onnx: no exported emotion branch"),
        ("teacher_share=1.5", "teacher_share must be in [0, 1]"),
        ("start=nowhere", "nowhere is not a checkpoint"),
    ],
)
def test_a_teacher_that_cannot_be_used_is_named(two_runs, tmp_path, setting, said):
    _, common = two_runs
    sets = [part for each in (*common, setting) for part in ("--set", each)]
    done = command("emotion", *sets, "--out", tmp_path)
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())
