"""The landmark network learns on real faces, and the agent aligns by what it says."""

import json
import time

import numpy as np
import pytest
import torch

from agent import networks
from agent.config import Config
from agent.images import read_image
from agent.perception.chain import FaceReader
from calibration.lfw import person
from engines.errors import UserError
from engines.pack import verify
from trainer.common import checkpoint, loop
from trainer.common.distributed import World
from trainer.common.settings import load_settings
from trainer.tasks import load


def quiet(what, count, total):
    pass


@pytest.fixture(scope="module")
def sets(pack, some_faces, tmp_path_factory):
    return [
        f"faces.root={some_faces}",
        f"faces.pack={pack.path}",
        f"faces.keep={tmp_path_factory.mktemp('points')}",
        "faces.held_out=0.3",
        *("side=64", "width=0.5", "batch=16", "steps=80", "interval=10", "evaluate=0", "threads=1", "ema=0"),
        *("jitter.rotation=0", "jitter.shift=0.3", "learning_rate=0.003"),
        *(f"augment.{effect}=0" for effect in ("erase", "blur", "coarse", "noise", "jpeg")),
    ]


def job_of(sets, *more):
    task = load("landmarks")
    return task.build(load_settings(task.settings, None, [*sets, *more]), World(), quiet)


@pytest.fixture(scope="module")
def trained(sets, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    job = job_of(sets)
    return job, loop.train(job, out, quiet), out


def test_the_loss_falls(trained):
    history = loop.read_history(trained[2])
    assert np.mean([line["loss"] for line in history[-2:]]) < 0.87 * history[0]["loss"]
    assert 0 < history[-1]["nme"] < 1


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_other_losses_fall_too(sets, tmp_path, loss):
    loop.train(job_of(sets, f"loss={loss}", "steps=40"), tmp_path, quiet, stop_after=3)
    history = loop.read_history(tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]


def test_nobody_who_judges_is_trained_on(trained):
    job = trained[0]
    people = [{person(photo) for photo in faces.photos} for faces in (job.training, job.judging)]
    assert all(people)
    assert not people[0] & people[1]


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(sets, tmp_path):
    settings = [*sets, "steps=9", "interval=3", "augment.erase=0.5", "jitter.rotation=20"]
    loop.train(job_of(settings), tmp_path / "cut", quiet, stop_after=1)
    for out in ("cut", "whole"):
        loop.train(job_of(settings), tmp_path / out, quiet, stop_after=2)
    cut, whole = (checkpoint.load(tmp_path / out / loop.CHECKPOINT)[0] for out in ("cut", "whole"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in cut.items())


def test_the_agent_aligns_by_what_was_trained(trained, some_faces, tmp_path):
    job, module, _ = trained
    said = []
    load("landmarks").finish(job, module, tmp_path, tmp_path / "pack", quiet, said.append)
    assert (tmp_path / "errors.png").is_file()
    assert not (tmp_path / "points.png").exists()  # it shows faces: only for who asks
    assert "the detector's boxes: mean error" in said[0]
    assert "jittered boxes: mean error" in said[1]
    loaded = networks.load(verify(tmp_path / "pack"), Config())
    reader = FaceReader(loaded, Config(), time.perf_counter)
    chips = torch.cat([images for images, _ in job.held_out(jittered=False)])
    with torch.inference_mode():
        true = module.network(chips.float() / 127.5 - 1).numpy().reshape(-1, 5, 2)
    for item, photo in list(enumerate(job.judging.photos))[:6]:
        image = read_image(some_faces / photo)
        box = job.judging.boxes[item]
        (face,) = [each for each in reader.find(image) if np.allclose(each.box, box, atol=0.01)]
        # In the frame as by hand: the chip's middle is the box's, its side the longer one and two margins of a tenth.
        longer = max(box[2] - box[0], box[3] - box[1])
        middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        own = (true[item] - 31.5) * (longer * 1.2 / 64) + middle
        assert np.abs(face.landmarks - own).max() < 0.25
        assert np.linalg.norm(reader.look(image, face).embedding) == pytest.approx(1, abs=1e-4)
    loaded.close()


def test_faces_are_drawn_for_who_asks(sets, trained, tmp_path):
    job = job_of(sets, "overview=3")
    load("landmarks").finish(job, trained[1], tmp_path, None, quiet, lambda _: None)
    assert (tmp_path / "points.png").stat().st_size > 1000


def test_where_faces_lie_is_the_jitters_matter_alone(sets):
    """The pictures' own augmentation would move them from under their points."""
    for settings in (job_of(sets, "augment.flip=1", "augment.roll=60"), job_of(sets)):
        batch = settings.example()
        again = job_of(sets, "augment.flip=0", "augment.roll=0").example()
        assert (batch["images"] == again["images"]).all()
        assert (batch["points"] == again["points"]).all()


def test_the_plan_names_the_faces(sets):
    facts = dict(job_of(sets, "faces.points=").facts())
    assert facts["points"] == "of the pack's detector"
    assert json.loads(facts["faces to train on"].replace(",", "")) > 40


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("faces.held_out=1", "nobody is left"),
        ("side=100", "side"),
        ("loss=awing", "loss"),
        ("faces.points=none.txt", "none.txt"),
        ("faces.root=nowhere", "nowhere"),
        ("batch=1000", "batch"),
    ],
)
def test_what_cannot_be_trained_is_named(sets, more, named):
    with pytest.raises(UserError, match=named):
        job_of(sets, more)
