"""What a finished network knows goes into a shorter embedding, and into a small network."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from engines.pack import verify
from trainer.common import loop
from trainer.common.distributed import World
from trainer.common.settings import ConfigError, load_settings
from trainer.tasks import load

OF_FACES = ("width=", "dim=", "side=", "augment.")


def quiet(what, count, total):
    pass


def job_of(name, settings, *more):
    task = load(name)
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


@pytest.fixture(scope="module")
def of_reduce(settings, pack):
    kept = [setting for setting in settings if not setting.startswith(OF_FACES)]
    return [*kept, f"teacher={pack.path}", "dim=64", "batch=32", "steps=60", "interval=10"]


def test_a_shorter_embedding_is_learnt_and_the_agent_runs_it(of_reduce, pack, tmp_path):
    from agent import networks
    from agent.config import Config

    task = load("reduce")
    job = job_of("reduce", of_reduce)
    module = loop.train(job, tmp_path / "run", quiet)
    history = loop.read_history(tmp_path / "run")
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert history[-1]["teacher_pair_accuracy"] > 0.9  # the teacher knows LFW
    assert history[-1]["pair_accuracy"] > history[-1]["teacher_pair_accuracy"] - 0.15
    task.finish(job, module, tmp_path / "run", tmp_path / "pack", quiet, lambda line: None)
    made = verify(tmp_path / "pack")
    assert (made.manifest.face.dim, made.manifest.face.steps) == (64, ())
    chip = np.random.default_rng(0).integers(0, 256, (1, 150, 150, 3), np.uint8)
    answers = []
    for each in (pack, made):
        loaded = networks.load(each, Config())
        answers.append({name: value.copy() for name, value in loaded.face.run({"chip": chip}).items()})
        loaded.close()
    long, short = answers
    assert np.allclose(long["emotion"], short["emotion"], atol=1e-5)  # expressions stay as they were
    with torch.inference_mode():
        expected = functional.normalize(module.reducer(torch.from_numpy(long["embedding"])), dim=1)
    assert np.allclose(short["embedding"], expected, atol=1e-4)


@pytest.mark.parametrize(
    "more",
    [["dim=128"], ["values=0", "distances=1.0", "angles=2.0"]],
    ids=["values", "relations, of another length"],
)
def test_a_student_learns_its_teachers_embeddings(settings, pack, tmp_path, more):
    job = job_of("relate", settings, f"teacher={pack.path}", "learning_rate=0.1", *more)
    wanted = job.wanted[:3].cpu().numpy()
    assert np.allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-5)
    loop.train(job, tmp_path, quiet)
    history = loop.read_history(tmp_path)
    assert np.mean([line["loss"] for line in history[-2:]]) < 0.97 * history[0]["loss"]


def test_a_student_of_another_length_cannot_learn_values(settings, pack):
    with pytest.raises(ConfigError, match="dim = 32, but the teacher's embedding has 128 numbers"):
        job_of("relate", settings, f"teacher={pack.path}")
