"""Norms for a condition are learnt: the loss falls, nothing but norms changes, and the bank knows its conditions."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from agent.adaptation.bank import read_bank  # noqa: E402
from agent.adaptation.network import FaceNetwork  # noqa: E402
from calibration import conditions  # noqa: E402
from calibration.conditions import Recipe, Teacher, loss, make_bank, teach, train_condition  # noqa: E402
from calibration.conditions_run import BANK, make  # noqa: E402
from calibration.fer2013 import read_split, to_chip  # noqa: E402
from engines.errors import UserError  # noqa: E402
from engines.norms import read_norms, write_norms  # noqa: E402

RECIPE = Recipe(threads=1, images=48, faces=16, steps=6, batch=8, samples=24)


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def fer2013(shared_data) -> Path:
    if not (shared_data / "fer2013.npz").is_file():
        pytest.skip("../shared/data/fer2013.npz is absent")
    return shared_data / "fer2013.npz"


@pytest.fixture(scope="module")
def model(pack) -> onnx.ModelProto:
    return onnx.load(pack.face)


@pytest.fixture(scope="module")
def teacher(model, pack, fer2013) -> Teacher:
    images, labels = read_split(fer2013, "train")
    chosen = np.random.default_rng(0).permutation(len(images))[:64]
    chips = np.stack([to_chip(images[index]) for index in chosen])
    known = np.concatenate([labels[chosen[:48]], np.full(16, -1, np.int64)])
    return teach(model, chips, known, np.array(pack.manifest.face.template, np.float32))


def loss_of(model: onnx.ModelProto, teacher: Teacher, kinds: tuple[str, ...]) -> float:
    everybody = np.arange(len(teacher.chips))
    chips = teacher.suffering(everybody, kinds, np.random.default_rng(9))
    with torch.inference_mode():
        answers = FaceNetwork(model)(torch.from_numpy(chips))
    taught = (torch.from_numpy(each) for each in (teacher.embeddings, teacher.logits, teacher.labels))
    return float(loss(answers, *taught, RECIPE))


def test_some_steps_bring_the_answers_nearer_to_those_in_good_light(model, teacher):
    norms = train_condition(model, teacher, ["sensor_noise"], RECIPE, silent)
    learnt = write_norms(model, norms)
    assert loss_of(learnt, teacher, ("sensor_noise",)) < loss_of(model, teacher, ("sensor_noise",))
    assert norms.keys() == read_norms(model).keys()


def test_the_same_seed_learns_the_same(model, teacher):
    short = dataclasses.replace(RECIPE, steps=2)
    one, two = (train_condition(model, teacher, ["low_light"], short, silent) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_faces_in_good_light_leave_nothing_to_be_learnt_but_their_labels(model, teacher):
    blind = dataclasses.replace(teacher, labels=np.full(64, -1, np.int64))
    assert loss_of(model, blind, ()) == pytest.approx(0, abs=1e-4)
    assert loss_of(model, blind, ("sensor_noise",)) > 0.05


def test_the_loss_is_that_of_the_books():
    answers = {"embedding": torch.tensor([[0.6, 0.8]]), "emotion": torch.tensor([[0.0, 0.0]])}
    given = torch.tensor([[1.0, 0.0]]), torch.log(torch.tensor([[0.9, 0.1]])), torch.tensor([0])
    found = float(loss(answers, *given, Recipe(consistency=10, expression=0.5)))
    divergence = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert found == pytest.approx(10 * (1 - 0.6) + 0.5 * divergence + 0.5 * np.log(2), abs=1e-5)


def test_a_bank_tells_its_conditions_apart(model, teacher, monkeypatch):
    monkeypatch.setattr(conditions, "CONDITIONS", {"dark": ("low_light",), "noise": ("sensor_noise",)})
    source = read_norms(model)
    bank = make_bank(model, teacher, {"dark": source, "noise": source}, RECIPE, silent)
    assert bank.conditions == ("source", "dark", "noise")
    from agent.adaptation.probe import Probe

    probe, rng = Probe(model, bank.layers), np.random.default_rng(4)
    right = 0
    for number, kinds in enumerate(((), ("low_light",), ("sensor_noise",))):
        chips = teacher.suffering(np.arange(40, 64), kinds, rng)
        right += sum(int(bank.log_posterior(probe.moments(chip)).argmax()) == number for chip in chips)
    assert right >= 60  # of 72


def test_a_run_goes_on_where_it_was_cut_off(model, pack, fer2013, lfw, tmp_path, monkeypatch):
    few = {"dark": ("low_light",), "noise": ("sensor_noise",)}
    monkeypatch.setattr(conditions, "CONDITIONS", few)
    monkeypatch.setattr("calibration.conditions_run.CONDITIONS", few)
    recipe = dataclasses.replace(RECIPE, steps=1)
    conditions.save(tmp_path / "dark.npz", read_norms(model))  # as if it had been done before
    bank = make(pack, fer2013, lfw, [], recipe, tmp_path, silent)
    assert all(np.array_equal(bank.norms["dark"][name], value) for name, value in read_norms(model).items())
    found = read_bank(tmp_path / BANK, model)
    assert found.conditions == ("source", "dark", "noise")


def test_a_folder_that_cannot_be_made_is_told_before_the_work(pack, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(UserError, match="taken: File exists; name a folder"):
        make(pack, tmp_path / "absent.npz", tmp_path, [], RECIPE, taken, silent)


def test_a_leftover_that_is_no_condition_is_named(pack, fer2013, lfw, tmp_path):
    (tmp_path / "dark.npz").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"dark\.npz: not the norms of a condition"):
        make(pack, fer2013, lfw, [], RECIPE, tmp_path, silent)
