"""The task ``emotion`` with a backbone: a whole network for expressions beside the one that tells people apart."""

import json
import time

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from agent import networks
from agent.adaptation.network import FaceNetwork
from agent.config import Config
from agent.images import read_image
from agent.perception.chain import FaceReader
from calibration.fer2013 import LABELS
from engines.errors import UserError
from engines.norms import read_norms, write_norms
from engines.pack import verify
from trainer.__main__ import app
from trainer.backbones import BackboneError, make
from trainer.backbones.heads import ExpressionHead
from trainer.common import loop
from trainer.common.checkpoint import CheckpointError
from trainer.common.distributed import World
from trainer.common.proof import ExportError
from trainer.common.runtime import answers
from trainer.common.settings import convert, read_table
from trainer.tasks import load
from trainer.tasks.emotion_pack import Expressions, beside, prove, write


def quiet(what, count, total):
    pass


def job_of(sets, *more):
    table = read_table(None, [*sets, *more])
    task = load("emotion").of(table)
    return task.build(convert(task.settings, table), World(), quiet)


def command(sets, *arguments):
    sets = [part for each in sets for part in ("--set", each)]
    return CliRunner().invoke(app, list(map(str, ["emotion", *sets, *arguments])))


@pytest.fixture(scope="module")
def sets(fer2013, pack):
    """Settings of a run of seconds on real pictures; its pictures are smaller than the pack's chips."""
    effects = ("erase", "blur", "coarse", "noise", "jpeg")
    return [
        f"data={fer2013}",
        f"pack={pack.path}",
        *("backbone=mobilefacenet", "width=0.25", "side=48", "dim=16", "limit=96", "batch=32", "threads=1"),
        *("steps=36", "interval=6", "evaluate=0", "mixup=0", "ema=0.8", "learning_rate=0.004"),
        *(f"augment.{effect}=0" for effect in effects),
    ]


@pytest.fixture(scope="module")
def trained(sets, tmp_path_factory):
    """The folder of a run, and the pack that it has written."""
    root = tmp_path_factory.mktemp("whole")
    done = command(sets, "--out", root / "run", "--export", root / "pack")
    assert done.exit_code == 0, done.output
    assert "validation accuracy" in done.stdout
    assert f"through {root / 'pack'}" in " ".join(done.stdout.split())
    return root / "run", root / "pack"


@pytest.fixture(scope="module")
def network(sets, trained):
    """What was trained, as the run's checkpoint has it."""
    return loop.train(job_of(sets), trained[0], quiet)


def test_a_whole_network_learns_from_pictures_and_leaves_its_metrics_and_pictures(trained):
    out, _ = trained
    history = [json.loads(line) for line in (out / loop.HISTORY).read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"] - 0.1
    assert 0 <= history[-1]["validation_accuracy"] <= 1
    assert {file.name for file in out.iterdir()} == {
        "checkpoint.npz",
        "metrics.jsonl",
        "loss.png",
        "confusion-validation.png",
        "confusion-test.png",
    }


def test_the_pack_tells_people_apart_as_before_and_expressions_as_pytorch_does(trained, network, pack, lfw):
    made = verify(trained[1])
    assert made.bank is None  # it was made for the other expressions
    before, after = pack.manifest.face, made.manifest.face
    assert (after.threshold, after.steps, after.template) == (before.threshold, before.steps, before.template)
    assert made.manifest.digest != pack.manifest.digest
    photo = read_image(sorted((lfw / "George_W_Bush").iterdir())[0])
    looks, chips = [], []
    for each in (pack, made):
        loaded = networks.load(each, Config())
        reader = FaceReader(loaded, Config(), time.perf_counter)
        looks.append(reader.look(photo, reader.find(photo)[0]))
        chips.append(reader.chip.copy())
        loaded.close()
    assert np.array_equal(chips[0], chips[1])
    assert np.array_equal(looks[0].embedding, looks[1].embedding)
    picture = torch.from_numpy(chips[1][..., ::-1].copy()).permute(2, 0, 1)[None].float()
    seen = torch.nn.functional.interpolate(picture, (48, 48), mode="bilinear", antialias=True)
    with torch.inference_mode():
        logits = network(seen / 127.5 - 1)[0].numpy()
    temperature = float(logits @ logits / (logits @ looks[1].logits))  # by which the export divides
    assert 0.3 <= temperature <= 3.0
    assert looks[1].logits == pytest.approx(logits / temperature, abs=1e-4)


def test_the_card_says_what_was_measured_through_the_export(trained):
    card = trained[1].with_name("pack.md").read_text()
    assert f"`{verify(trained[1]).manifest.face.sha256}`" in card
    assert "FER2013, training split, 96 images" in card
    assert "| test (private test) | 96 |" in card
    assert "brought to 48×48 by two matrix products" in card
    assert "private test" in verify(trained[1]).manifest.face.source


def test_another_network_takes_the_place_of_the_first(trained, tmp_path):
    made = verify(trained[1])
    graph = onnx.load(made.face)
    for target in (tmp_path / "pack", tmp_path / "alone" / "face.onnx"):
        write(target, "again", made, graph, licence="mine", source="made again")
    face = verify(tmp_path / "pack").manifest.face
    assert face.source.count("; expressions: ") == face.licence.count("; expressions: ") == 1
    assert face.source.endswith("; expressions: made again")
    assert (tmp_path / "alone" / "face.onnx").read_bytes() == made.face.read_bytes()


def test_both_networks_can_adapt_each_for_itself(trained):
    model = onnx.load(verify(trained[1]).face)
    names = {name.removeprefix("norm.").rpartition(".")[0] for name in read_norms(model)}
    of_expressions = FaceNetwork(model, ("emotion",)).norms.keys()
    of_people = FaceNetwork(model, ("embedding",)).norms.keys()
    assert of_expressions | of_people == names
    assert not of_expressions & of_people
    assert all(name.startswith("emotion.") for name in of_expressions)
    assert "emotion.input" in of_expressions
    chips = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), np.uint8)
    whole = FaceNetwork(model)
    with torch.inference_mode():
        found = whole(torch.from_numpy(chips))
    for name, value in zip(found, answers(model, list(found), {"chip": chips}), strict=True):
        assert np.abs(found[name].numpy() - value).max() < 1e-4, name


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(sets, trained, network, tmp_path):
    loop.train(job_of(sets), tmp_path, quiet, stop_after=4)
    torch.manual_seed(99)
    resumed = loop.train(job_of(sets, "ship.name=another", "threads=1"), tmp_path, quiet).state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(CheckpointError, match="another config"):
        loop.train(job_of(sets, "dropout=0.1"), tmp_path, quiet)


def test_it_goes_on_from_the_backbone_of_another_run(sets, trained, network):
    started = job_of(sets, f"start={trained[0]}").module.backbone.state_dict()
    assert all(torch.equal(tensor, started[name]) for name, tensor in network.backbone.state_dict().items())
    with pytest.raises(CheckpointError, match="set backbone, side, dim and width as"):
        job_of(sets, f"start={trained[0]}", "width=0.5")


def test_a_plan_names_the_pictures_and_trains_nothing(sets, tmp_path):
    done = command(sets, "--out", tmp_path / "run", "--dry-run")
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "96, 96 to judge by" in said
    assert "float32 [32, 3, 48, 48]" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["clips.kind=dfew"], "clips cannot be had together with backbone"),
        (['teachers=["runs/emotion"]'], "teachers cannot be had together with backbone"),
        (["trunk=pack", "epochs=3"], "trunk, epochs cannot be had together with backbone"),
        (["augment.rotation=3"], "rotation"),
        (["backbone=resnet"], "no backbone"),
        (["batch=97"], "97"),
        (["data=nowhere.npz"], "nowhere.npz does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(sets, more, named):
    with pytest.raises(UserError, match=named):
        job_of(sets, *more)


@pytest.fixture
def expressions():
    """An untrained network, whose pictures are larger than the chips of the fixture ``small``."""
    torch.manual_seed(0)
    backbone = make("mobilefacenet", 32, 8, 0.125).eval()
    return Expressions(backbone, ExpressionHead(backbone.channels, len(LABELS)).eval(), 1.7)


def renamed(model, old, new):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    return changed


def test_a_chip_that_is_smaller_than_the_pictures_is_enlarged(small, expressions):
    joined = beside(small, expressions.graph())
    assert prove(joined, small, expressions) < 1e-4
    # Once more, upon what was made: the newer expressions take the place of the older.
    again = beside(joined, expressions.graph())
    assert [each.name for each in again.graph.output] == ["embedding", "emotion"]
    assert {t.name for t in again.graph.initializer} == {t.name for t in joined.graph.initializer}


@pytest.mark.parametrize(
    ("moved", "told"),
    [
        ("norm.emotion.input.shift", "the exported emotion differs from PyTorch's"),
        ("norm.input.shift", "the exported embedding is not the one that it was"),
    ],
)
def test_an_export_that_computes_something_else_is_refused(small, expressions, moved, told):
    joined = beside(small, expressions.graph())
    changed = write_norms(joined, {moved: read_norms(joined)[moved] + np.float32(0.5)})
    with pytest.raises(ExportError, match=told):
        prove(changed, small, expressions)


def test_a_name_that_both_networks_need_is_told(small, expressions):
    own = expressions.graph()
    clashing = renamed(small, "0.conv", f"emotion.{own.graph.node[3].output[0]}")
    with pytest.raises(BackboneError, match="already that its embedding needs"):
        beside(clashing, own)


def test_another_operator_set_is_refused(small, expressions):
    other = renamed(small, "", "")
    other.opset_import[0].version = 13
    with pytest.raises(BackboneError, match="operator set 13"):
        beside(other, expressions.graph())
