"""Norms for a condition are learnt: the loss falls, nothing but norms changes, and the bank knows its conditions."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from agent.adaptation.bank import read_bank  # noqa: E402
from agent.adaptation.chip_filter import CHIP_FILTER, adaptable, identity  # noqa: E402
from agent.adaptation.network import FaceNetwork, FilteredNetwork  # noqa: E402
from agent.adaptation.types import Norms  # noqa: E402
from calibration import conditions  # noqa: E402
from calibration.conditions import loss, make_bank, people_loss, train_condition  # noqa: E402
from calibration.conditions_run import BANK, _claim, make  # noqa: E402
from calibration.fer2013 import read_split, to_chip  # noqa: E402
from calibration.recipe import Recipe  # noqa: E402
from calibration.teacher import Teacher, teach  # noqa: E402
from engines.errors import UserError  # noqa: E402

RECIPE = Recipe(threads=1, bfloat16=False, images=48, faces=16, steps=6, people_steps=2, batch=8, samples=24)


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
    people = np.concatenate([np.full(40, -1, np.int64), np.arange(24)])
    template = np.array(pack.manifest.face.template, np.float32)
    return teach(model, chips, known, people, template, 1, silent)


def loss_of(
    model: onnx.ModelProto, teacher: Teacher, kinds: tuple[str, ...], norms: Norms | None = None
) -> float:
    everybody = np.arange(len(teacher.chips))
    chips = teacher.suffering(everybody, kinds, np.random.default_rng(9))
    network = FilteredNetwork(FaceNetwork(model))
    network.write_norms(norms or {})
    with torch.inference_mode():
        answers = network(torch.from_numpy(chips))
    taught = (torch.from_numpy(each) for each in (teacher.embeddings, teacher.logits, teacher.labels))
    return float(loss(answers, *taught, RECIPE))


def test_some_steps_bring_the_answers_nearer_to_those_in_good_light(model, teacher):
    norms = train_condition(model, teacher, ["sensor_noise"], RECIPE, silent)
    kinds = ("sensor_noise",)
    assert loss_of(model, teacher, kinds, norms) < loss_of(model, teacher, kinds)
    assert norms.keys() == adaptable(model).keys()


def test_expressions_stay_to_the_last_bit_while_people_are_learnt_to_be_told_apart(model, teacher):
    source = adaptable(model)
    begun = {name: value * np.float32(1.1) for name, value in source.items()} | {CHIP_FILTER: identity()}
    longer = dataclasses.replace(RECIPE, people_steps=10)
    found = train_condition(model, teacher, ["sensor_noise"], longer, silent, begun)
    changed = {name.split(".")[1] for name in found if not np.array_equal(found[name], begun[name])}
    assert changed == {"level2", "level1", "level0"}
    network = FilteredNetwork(FaceNetwork(model))
    answers = []
    for norms in (begun, found):
        network.write_norms(norms)
        with torch.inference_mode():
            answers.append(network(torch.from_numpy(teacher.chips[:4])))
    assert torch.equal(answers[0]["emotion"], answers[1]["emotion"])
    assert not torch.equal(answers[0]["embedding"], answers[1]["embedding"])


def test_where_nothing_is_to_be_learnt_it_stays_at_the_source(model, teacher):
    harmful = dataclasses.replace(RECIPE, steps=3, learning_rate=3.0)
    norms = train_condition(model, teacher, ["jpeg"], harmful, silent)
    assert all(np.array_equal(norms[name], value) for name, value in adaptable(model).items())


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


def test_what_tells_people_apart_is_that_of_the_books():
    # Two others: a stranger, at right angles to the clean embedding, and the same person.
    given = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    others = torch.tensor([[0.0, 1.0], [0.8, 0.6]]), torch.tensor([[True, False]])
    recipe = Recipe(consistency=10, contrast=2, temperature=0.5, relations=3)
    found = float(people_loss(*given, *others, recipe))
    contrast = -np.log(np.exp(0.6 / 0.5) / (np.exp(0.6 / 0.5) + np.exp(0.8 / 0.5)))
    relations = ((0.8 - 0.0) ** 2 + (0.96 - 0.8) ** 2) / 2
    assert found == pytest.approx(10 * (1 - 0.6) + 2 * contrast + 3 * relations, abs=1e-5)


def test_other_pictures_of_a_person_are_no_strangers_to_them():
    people = np.array([-1, -1, 7, 7, 8])
    vectors = np.eye(5, dtype=np.float32)
    blank = np.zeros((5, 4, 4, 3), np.uint8)
    found = Teacher(blank, np.full(5, -1), people, vectors, vectors, np.zeros((5, 2), np.float32))
    embeddings, strangers = found.others(np.array([0, 2, 4]), 9, np.random.default_rng(0))
    drawn = embeddings.argmax(axis=1)
    assert sorted(drawn.tolist()) == [2, 3, 4]  # only faces whose people are known
    order = np.argsort(drawn)
    assert strangers[:, order].tolist() == [[True, True, True], [False, False, True], [True, True, False]]
    nobody = dataclasses.replace(found, people=np.full(5, -1))
    embeddings, strangers = nobody.others(np.array([1]), 9, np.random.default_rng(0))
    assert strangers.sum() == 4  # where nobody is known, a face is no stranger to itself


def test_a_bank_tells_its_conditions_apart(model, teacher, monkeypatch):
    monkeypatch.setattr(conditions, "CONDITIONS", {"dark": ("low_light",), "noise": ("sensor_noise",)})
    source = adaptable(model)
    bank = make_bank(model, teacher, {"dark": source, "noise": source}, RECIPE, silent)
    assert bank.conditions == ("source", "dark", "noise")
    from agent.adaptation.probe import Probe

    assert bank.rises[0] == 0
    assert ((bank.rises >= 0) & (bank.rises < 1)).all()
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
    make(pack, fer2013, lfw, [], recipe, tmp_path, silent)
    source = adaptable(model)
    conditions.save(tmp_path / "dark.npz", source)  # what is there is taken, and what is not is trained
    (tmp_path / "noise.npz").unlink()
    bank = make(pack, fer2013, lfw, [], recipe, tmp_path, silent)
    assert all(np.array_equal(bank.norms["dark"][name], value) for name, value in source.items())
    found = read_bank(tmp_path / BANK, model)
    with pytest.raises(UserError, match=r"dark\.npz, noise\.npz were trained by another recipe"):
        make(pack, fer2013, lfw, [], dataclasses.replace(recipe, steps=2), tmp_path, silent)
    with pytest.raises(UserError, match=r"from another start"):
        make(pack, fer2013, lfw, [], recipe, tmp_path, silent, tmp_path / BANK)
    assert found.conditions == ("source", "dark", "noise")


def test_a_folder_that_cannot_be_made_is_told_before_the_work(pack, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(UserError, match="taken: File exists; name a folder"):
        make(pack, tmp_path / "absent.npz", tmp_path, [], RECIPE, taken, silent)


def test_a_leftover_that_is_no_condition_is_named(pack, fer2013, lfw, tmp_path):
    _claim(tmp_path, RECIPE, pack)
    (tmp_path / "dark.npz").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"dark\.npz: not the norms of a condition"):
        make(pack, fer2013, lfw, [], RECIPE, tmp_path, silent)


def test_the_less_a_network_tells_people_apart_the_more_strictly_they_are_judged(model, teacher, monkeypatch):
    monkeypatch.setattr(conditions, "CONDITIONS", {"dim": (), "dull": ()})  # faces as they are
    source = adaptable(model)
    last = [name for name in source if name.startswith("norm.level0.") and name.endswith(".scale")]
    dull = source | {name: np.zeros_like(source[name]) for name in last}
    rises = conditions.measure_rises(model, teacher, {"dim": source, "dull": dull}, RECIPE, silent)
    assert rises[:2].tolist() == [0, 0]
    assert rises[2] > 0.05
