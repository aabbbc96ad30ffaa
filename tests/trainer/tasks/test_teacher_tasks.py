"""What a finished network knows goes into a small one."""

import numpy as np
import pytest

from trainer.common import loop
from trainer.common.distributed import World
from trainer.common.settings import ConfigError, load_settings
from trainer.tasks import load


def quiet(what, count, total):
    pass


def job_of(name, settings, *more):
    task = load(name)
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


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
