"""A finished network gets a shorter embedding, and is otherwise what it was."""

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from agent import networks
from agent.adaptation.network import FaceNetwork
from agent.config import Config
from engines.norms import read_norms
from engines.pack import verify
from trainer.common import loop, plan
from trainer.common.distributed import World
from trainer.common.job import TrainingError
from trainer.common.proof import ExportError
from trainer.common.settings import ConfigError, load_settings
from trainer.tasks import load, reduced_pack
from trainer.tasks.reduce import Reducer

OF_FACES = ("width=", "dim=", "side=", "augment.", "batch=", "steps=", "interval=", "learning_rate=")


def quiet(what, count, total):
    pass


def job_of(settings, *more):
    task = load("reduce")
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


@pytest.fixture(scope="module")
def of_reduce(settings, pack, tmp_path_factory):
    own = [setting for setting in settings if not setting.startswith(OF_FACES)]
    keep = tmp_path_factory.mktemp("teacher")
    return [*own, f"teacher={pack.path}", f"keep={keep}", "dim=16", "batch=32", "steps=40", "interval=10"]


@pytest.fixture(scope="module")
def trained(of_reduce, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    job = job_of(of_reduce)
    return job, loop.train(job, out, quiet), out


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    job, module, out = trained
    said = []
    target = tmp_path_factory.mktemp("packs") / "short"
    load("reduce").finish(job, module, out, target, quiet, said.append)
    assert any("the teacher itself" in line for line in said)
    return verify(target)


def test_it_begins_as_the_projection_that_keeps_most():
    torch.manual_seed(0)
    faces = functional.normalize(torch.randn(200, 12) * torch.linspace(2, 0.1, 12) + 3, dim=1)
    for centring in (0.0, 0.5, 1.0):
        reducer = Reducer(12, 12).eval()
        reducer.begin(faces, centring)
        passed = faces - centring * faces.mean(0)
        # Without a direction left out, every product is as it was.
        torch.testing.assert_close(reducer(faces) @ reducer(faces).T, passed @ passed.T, atol=1e-4, rtol=1e-4)
        shorter = Reducer(12, 5).eval()
        shorter.begin(faces, centring)
        kept = shorter(faces).square().sum()
        best = torch.linalg.svdvals(passed)[:5].square().sum()
        assert kept.item() == pytest.approx(best.item(), rel=1e-3)


def test_training_starts_there_and_learns_faces_apart(trained):
    job, _, out = trained
    history = loop.read_history(out)
    assert history[-1]["cross_entropy"] < 0.7 * history[0]["cross_entropy"]
    assert history[-1]["top1"] > 0.9
    assert history[-1]["teacher_pair_accuracy"] > 0.9  # the teacher knows LFW
    assert history[-1]["pair_accuracy"] > history[-1]["teacher_pair_accuracy"] - 0.1  # 16 numbers, 40 steps
    assert job.embedded.shape == (2 * len(job.people.training.labels), 128)


def test_who_asks_the_teacher_again_is_answered_from_the_folder(of_reduce, trained, monkeypatch):
    job = job_of(of_reduce)
    monkeypatch.setattr(
        type(job.teacher), "embeddings", lambda *_, **__: pytest.fail("the teacher was asked")
    )
    assert torch.equal(job.embedded, trained[0].embedded)
    with pytest.raises(pytest.fail.Exception, match="the teacher was asked"):
        _ = job_of(of_reduce, "people.held_out=0.4").embedded  # of others


def test_a_plan_does_not_ask_the_teacher(of_reduce, monkeypatch):
    job = job_of([*of_reduce, "keep="])
    monkeypatch.setattr(
        type(job.teacher), "embeddings", lambda *_, **__: pytest.fail("the teacher was asked")
    )
    assert ("parameters, reducer", f"{128 * 128 + 3 * 128 + 128 * 16 + 2 * 16:,}") in plan.make(job)


def test_a_run_that_goes_on_does_not_begin_again(of_reduce, trained, tmp_path):
    loop.train(job_of(of_reduce), tmp_path, quiet, stop_after=2)
    module = loop.train(job_of(of_reduce), tmp_path, quiet)
    for name, tensor in trained[1].state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name])


def test_the_agent_runs_it_and_only_the_embedding_is_another(made, trained, pack):
    face = made.manifest.face
    assert (face.dim, face.steps, face.side, made.bank) == (16, (), 150, None)
    assert face.template == pack.manifest.face.template
    assert made.manifest.digest != pack.manifest.digest  # people enrol anew
    chip = np.random.default_rng(0).integers(0, 256, (1, 150, 150, 3), np.uint8)
    answers = []
    for each in (pack, made):
        loaded = networks.load(each, Config(), gated=False)
        answers.append({name: value.copy() for name, value in loaded.face.run({"chip": chip}).items()})
        loaded.close()
    long, short = answers
    assert np.abs(long["emotion"] - short["emotion"]).max() < 1e-4
    with torch.inference_mode():
        expected = functional.normalize(trained[1].reducer(torch.from_numpy(long["embedding"])), dim=1)
    assert np.abs(short["embedding"] - expected.numpy()).max() < 1e-4


def test_adaptation_has_the_norms_of_the_source_and_reaches_all_of_them(made, pack):
    model = onnx.load(made.face)
    source, norms = read_norms(onnx.load(pack.face)), read_norms(model)
    assert list(norms) == list(source)
    assert all(np.array_equal(norms[name], value) for name, value in source.items())
    network = FaceNetwork(model)
    chips = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 150, 150, 3), np.uint8))
    found = network(chips)
    (found["embedding"][:, 0].sum() + found["emotion"].logsumexp(1).sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_what_cannot_be_reduced_is_refused(made, trained, of_reduce, tmp_path):
    job, module, _ = trained
    with pytest.raises(TrainingError, match="has been reduced before"):
        reduced_pack.write(tmp_path / "again", "again", made, module.reducer, job.judge(module))
    with pytest.raises(ConfigError, match="dim = 200, and the teacher's embedding has 128 numbers"):
        job_of(of_reduce, "dim=200")
    model = onnx.load(job.teacher.pack.face)
    graph = reduced_pack.reduced_graph(model, module.reducer.first, module.reducer.second)
    other = Reducer(128, 16).eval()
    with pytest.raises(ExportError, match="the exported embedding differs from PyTorch's by"):
        reduced_pack.prove(graph, model, other)
