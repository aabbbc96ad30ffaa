"""Every task on faces of people runs a few real steps on real faces, and what it makes runs in the agent."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from engines.errors import UserError
from trainer.common import checkpoint, loop
from trainer.common.distributed import World
from trainer.common.settings import load_settings
from trainer.tasks import load

ROOT = Path(__file__).parents[3]
DOUBLE = Path(__file__).with_name("double.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def quiet(what, count, total):
    pass


def job_of(name, settings, *more):
    task = load(name)
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


def losses(out):
    return [line["loss"] for line in loop.read_history(out)]


@pytest.fixture
def double():
    """The module of the task in float64."""
    spec = importlib.util.spec_from_file_location("double", DOUBLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "more",
    [
        ["head.kind=softmax"],
        ["head.margin=0.2"],
        ["head.margin=0.2", "head.subcentres=3", "head.class_share=0.6"],
    ],
    ids=["softmax", "arcface", "sub-centres of a part of the classes"],
)
def test_recognition_learns(settings, tmp_path, more):
    job = job_of("recognise", settings, "head.margin_from=0", "head.scale=12", *more)
    loop.train(job, tmp_path, quiet)
    found = losses(tmp_path)
    assert np.mean(found[-2:]) < 0.95 * found[0]
    history = loop.read_history(tmp_path)
    assert 0 <= history[-1]["pair_accuracy"] <= 1
    assert all(0 <= line["top1"] <= 1 for line in history)
    without_margin = [line["cross_entropy"] for line in history]
    if "head.kind=softmax" in more:
        assert without_margin == found
    else:
        assert all(plain < loss for plain, loss in zip(without_margin, found, strict=True))


def test_nobody_who_judges_is_trained_on(settings):
    people = job_of("recognise", settings).people
    trained = {people.training.name(item).split("/")[-2] for item in range(len(people.training.labels))}
    judged = {name.split("/")[0] for name in people.places}
    assert trained
    assert judged
    assert not trained & judged
    assert len(trained) == people.classes == len(set(people.training.labels))
    for name, place in people.places.items():
        assert people.judged.name(place).endswith(name)
    assert {pair.genuine for pair in people.pairs} == {True, False}


def test_contrast_learns_without_names_and_recognition_starts_from_it(settings, tmp_path):
    simclr = job_of("simclr", settings)
    loop.train(simclr, tmp_path, quiet)
    found = losses(tmp_path)
    assert np.mean(found[-2:]) < 0.9 * found[0]
    started = job_of("recognise", settings, f"start={tmp_path}").backbone.state_dict()
    assert all(torch.equal(started[name], tensor) for name, tensor in simclr.backbone.state_dict().items())
    with pytest.raises(checkpoint.CheckpointError, match="set backbone, side, dim and width as"):
        job_of("recognise", settings, f"start={tmp_path}", "dim=16")


def test_three_objectives_are_learnt_at_once(settings, fer2013, tmp_path):
    more = [f"fer2013={fer2013}", "fer_batch=16", "head.margin=0", "head.scale=12"]
    job = job_of("multitask", settings, *more)
    for interval in range(job.course.intervals):  # without the evaluation on 3,589 expressions
        loop.train(job, tmp_path, quiet, stop_after=interval) if interval else None
    history = loop.read_history(tmp_path)
    for objective in ("recognition", "contrast"):
        assert history[-1][objective] < 0.95 * history[0][objective]
    assert (
        history[-1]["expression"] < history[0]["expression"] + 0.05
    )  # so few steps tell little of seven classes


def test_objectives_take_turns(settings, fer2013):
    turns = 'turns=["recognition","contrast","recognition","expression"]'
    more = [f"fer2013={fer2013}", "fer_batch=16", turns, "weights.contrast=[1.0,0.0]"]
    job = job_of("multitask", settings, *more)
    expected = ["recognition", "contrast", "recognition", "expression"]
    batch = next(job.batches(0))
    for step, objective in enumerate(expected):
        assert list(job.weights(step)) == [objective]
        beside = {"cross_entropy", "top1"} if objective == "recognition" else set()
        assert set(job.losses(job.module, batch, step)) == {"loss", objective} | beside
    assert job.weights(13)["contrast"] == pytest.approx(1 - 13 / 24)


def test_a_recognition_cut_off_goes_on_as_if_nothing_had_been(settings, tmp_path):
    more = ["head.subcentres=2", "head.class_share=0.6", "ema=0.9"]
    loop.train(job_of("recognise", settings, *more), tmp_path / "cut", quiet, stop_after=1)
    for out in ("cut", "whole"):
        loop.train(job_of("recognise", settings, *more), tmp_path / out, quiet, stop_after=2)
    weights = [checkpoint.load(tmp_path / out / loop.CHECKPOINT)[0] for out in ("cut", "whole")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    with pytest.raises(checkpoint.CheckpointError, match="another data sha256"):
        loop.train(job_of("recognise", settings, *more, "people.held_out=0.2"), tmp_path / "whole", quiet)


def test_two_processes_that_share_the_classes_have_the_loss_curve_of_one(
    settings, double, tmp_path, monkeypatch
):
    more = [*settings, "head.subcentres=2", "head.margin=0.2", "head.scale=12", "clip=1", "steps=12"]
    sets = [part for setting in more for part in ("--set", setting)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, DOUBLE, "double", "--out", tmp_path / "two", *sets]
    process = subprocess.Popen(
        list(map(str, command)), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    def alone(out):
        job = double.build(load_settings(double.TASK.settings, None, more), World(), quiet)
        loop.train(job, tmp_path / out, quiet)
        return loop.read_history(tmp_path / out)

    one = alone("one")
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert said.count("trained") == 1  # the second process keeps quiet
    found = [line["loss"] for line in one]
    assert np.ptp(found) > 0.1  # there is something to be alike in
    # The metrics have five decimals. In float64 rounding grows by some 1e4 over these steps, to 1e-11; in float32 one
    # process whose weights are moved by 1e-7 is as far from itself as two are from one.
    two = loop.read_history(tmp_path / "two")
    assert [line["loss"] for line in two] == pytest.approx(found, abs=1.1e-5)
    weights = [checkpoint.load(tmp_path / out / loop.CHECKPOINT)[0] for out in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    # All classes, put together from both; the norms' moments; the optimiser's state.
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-6, atol=1e-8, msg=name)
    assert alone("two") == two  # one process reads what two have written


def test_the_agent_runs_what_was_trained(settings, fer2013, some_faces, tmp_path):
    from agent import networks
    from agent.config import Config
    from agent.images import read_image
    from agent.perception.chain import FaceReader
    from engines.pack import verify

    task = load("recognise")
    ship = [f"ship.expressions={fer2013}", "ship.expression_faces=128", "ship.name=small"]
    job = job_of("recognise", settings, *ship, "steps=40", "learning_rate=0.02")
    module = loop.train(job, tmp_path / "run", quiet)
    said = []
    task.finish(job, module, tmp_path / "run", tmp_path / "pack", quiet, said.append)
    assert (tmp_path / "run" / "roc.png").is_file()
    made = verify(tmp_path / "pack")
    assert made.manifest.face.dim == 32
    loaded = networks.load(made, Config())
    reader = FaceReader(loaded, Config(), time.perf_counter)
    name, place = next(iter(job.people.places.items()))
    image = read_image(some_faces / name)
    look = reader.look(image, reader.find(image)[0])
    loaded.close()
    assert np.linalg.norm(look.embedding) == pytest.approx(1, abs=1e-5)
    # The agent cuts the face as the trainer has: both make the same of it.
    picture = torch.from_numpy(job.people.judged.read(place)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        own = module.backbone(picture).summary[0].numpy()
    assert look.embedding @ own / np.linalg.norm(own) > 0.999


def test_a_plan_names_the_faces_and_trains_nothing(settings, tmp_path):
    from trainer.__main__ import app

    sets = [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(app, ["recognise", "--dry-run", "--out", str(tmp_path / "run"), *sets])
    assert done.exit_code == 0, done.output
    assert "faces to train on" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("people.folds=[1]", "folds"),
        ("backbone=resnet", "no backbone"),
        ("batch=1000", "batch"),
        ("head.kind=mine", "mine"),
        ("people.least=7", "nobody is left"),
    ],
)
def test_what_cannot_be_trained_is_named(settings, more, named):
    with pytest.raises(UserError, match=named):
        job_of("recognise", settings, more)


def test_a_comparison_tells_what_a_run_before_is_worth(settings, tmp_path):
    from trainer import compare

    shared = load_settings(dict, None, [*settings, "steps=4"])
    wanted = compare.Comparison(
        task="recognise",
        seeds=(1,),
        figures=("pair_accuracy", "top1"),
        settings=shared,
        variants={
            "alone": compare.Variant(settings={"head": {"kind": "softmax"}}),
            "after simclr": compare.Variant(
                settings={"head": {"kind": "softmax"}, "start": compare.BEFORE},
                before=compare.Before(task="simclr", settings={"temperature": 0.2}),
            ),
        },
    )
    *_, results = compare.compare(wanted, tmp_path, quiet)
    assert [row[:2] for row in results.rows()[1:]] == [["alone", "1"], ["after simclr", "1"]]
    _, meta = checkpoint.load(tmp_path / "after simclr" / "1" / loop.CHECKPOINT)
    before, told = checkpoint.load(tmp_path / "after simclr" / "1" / "before" / loop.CHECKPOINT)
    assert meta["config"]["start"] == str(tmp_path / "after simclr" / "1" / "before")
    assert (told["config"]["temperature"], told["config"]["seed"], told["config"]["side"]) == (0.2, 1, 48)
    assert any(name.startswith("model/projection") for name in before)
