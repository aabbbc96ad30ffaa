"""What several finished networks know goes into one small one, with both heads of a pack."""

import shutil

import numpy as np
import pytest
import torch

from engines.engine import EngineError
from engines.errors import UserError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import verify
from trainer.common import checkpoint, loop
from trainer.common.distributed import World
from trainer.common.settings import ConfigError, load_settings
from trainer.tasks import load


def quiet(what, count, total):
    pass


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Where the teachers' features are kept, once for all tests here."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def few(fer2013, tmp_path_factory):
    """Some of FER2013's faces, so that an evaluation takes a moment."""
    file = tmp_path_factory.mktemp("fer") / "few.npz"
    with np.load(fer2013) as whole:
        np.savez(file, **{name: whole[name][:40] for name in whole.files})
    return file


@pytest.fixture
def distil(settings, pack, few, features):
    """Gives a job with the pack as its teacher, or with other teachers as TOML has them."""

    def made(*more, cache=features, teachers=None, name="distill"):
        task = load(name)
        own = f'{{name="pack",source="onnx:{pack.path}",adaptor="direct",expression_weight=1.0}}'
        special = [
            f"fer2013={few}",
            "fer_faces=24",
            "fer_batch=8",
            "judged_expressions=20",
            f"cache={cache}",
            "fit_faces=40",
            f"teachers=[{','.join([own] if teachers is None else teachers)}]",
        ]
        chosen = [*settings, *(special if name == "distill" else []), *more]
        return task.build(load_settings(task.settings, None, chosen), World(), quiet)

    return made


def history(job, out):
    loop.train(job, out, quiet)
    return loop.read_history(out)


def test_a_student_learns_summary_and_expressions_from_a_pack(distil, tmp_path):
    found = history(distil("learning_rate=0.1", "steps=32", "label_weight=0"), tmp_path)
    for term in ("loss", "pack_summary"):
        assert np.mean([line[term] for line in found[-2:]]) < 0.97 * found[0][term]
    assert np.mean([line["pack_expression"] for line in found[-3:]]) < found[0]["pack_expression"]
    assert {"pair_accuracy", "expression_accuracy"} <= found[-1].keys()


def test_kept_features_teach_the_same_to_the_bit_whether_found_or_made(distil, features, tmp_path):
    def trained(out):  # four steps, and no evaluation
        loop.train(distil("steps=8"), tmp_path / out, quiet, stop_after=1)

    trained("first")
    assert next(features.iterdir()).is_dir()
    before = {folder.name: folder.stat().st_mtime_ns for folder in features.iterdir()}
    trained("found")
    assert before == {folder.name: folder.stat().st_mtime_ns for folder in features.iterdir()}
    for folder in features.iterdir():
        shutil.rmtree(folder)
    trained("made")
    first = checkpoint.load(tmp_path / "first" / loop.CHECKPOINT)[0]
    for other in ("found", "made"):
        weights = checkpoint.load(tmp_path / other / loop.CHECKPOINT)[0]
        assert all(torch.equal(tensor, weights[name]) for name, tensor in first.items())


def test_without_a_cache_the_teachers_see_what_the_student_sees(distil):
    job = distil("steps=24", "learning_rate=0.1", "side=150", "fer_batch=0", "batch=8", cache="")
    batch = next(job.batches(0))
    said = job.panel.teachers["pack"](batch["pictures"])
    for answer in ("summary", "logits"):
        assert torch.equal(batch[f"pack/{answer}"], said[answer])
    assert not torch.equal(
        batch["pictures"], next(distil("side=150", "fer_batch=0", "batch=8").batches(1))["pictures"]
    )


def test_a_student_is_fine_tuned_for_whole_numbers_where_it_ended(distil, tmp_path):
    first = history(distil("steps=8"), tmp_path / "first")
    job = distil("steps=8", "learning_rate=0.01", f"start={tmp_path / 'first'}", "quantise=true")
    assert any("all of" in value for _, value in job.facts())
    fitted = checkpoint.load(tmp_path / "first" / loop.CHECKPOINT)[0]
    second = history(job, tmp_path / "second")
    assert second[0]["loss"] < np.mean([line["loss"] for line in first])
    tuned = checkpoint.load(tmp_path / "second" / loop.CHECKPOINT)[0]
    standards = [name for name in fitted if name.startswith("model/standards")]
    assert standards
    assert all(torch.equal(tuned[name], fitted[name]) for name in standards)
    assert "model/expression.linear.peak" in tuned


def test_mirrored_pictures_have_the_mirrored_features(distil):
    still = [
        f"augment.{effect}=0"
        for effect in ("yaw", "pitch", "roll", "scale", "shift", "gamma", "colour", "shade")
    ]
    job = distil("side=150", "augment.flip=0.5", "augment.saturation=0", *still)
    batch = next(job.batches(0))
    said = job.panel.teachers["pack"](batch["pictures"])
    assert torch.allclose(batch["pack/summary"], said["summary"], atol=1e-4)
    assert (batch["expressions"] == -1).sum() == (batch["labels"] >= 0).sum() == 16
    assert (batch["expressions"] >= 0).sum() == (batch["labels"] == -1).sum() == 8


def test_several_teachers_at_once(distil, pack, repository, tmp_path):
    teachers = [
        f'{{name="pack",source="onnx:{pack.path}",adaptor="linear",map_weight=0.5,expression_weight=1.0,distances=0.5}}',
        f'{{name="radio",source="torchhub:{repository}",entry="tiny_radio",side=64,map_weight=1.0,reads="map"}}',
        '{name="timm",source="timm:test_resnet",weights="random",side=96,hidden=32,angles=0.5}',
    ]
    layers = 'layers=[{teacher="pack",theirs="level2.2.out",ours="blocks.5"}]'
    job = distil(
        layers, "steps=16", "interval=4", "learning_rate=0.05", "identity_weight=0.1", teachers=teachers
    )
    found = history(job, tmp_path / "run")
    terms = {
        *("pack_summary", "pack_map", "pack_expression", "pack_distances", "pack_layer0"),
        *("radio_summary", "radio_map", "timm_summary", "timm_angles", "expressions", "identity"),
    }
    assert terms <= found[0].keys()
    for term in ("loss", "pack_map", "pack_layer0", "radio_map"):
        assert found[-1][term] < found[0][term]


def test_answers_are_standardised_before_the_first_step(distil):
    job = distil()
    next(job.batches(0))
    teacher = job.settings.teachers[0]
    standard = job.module.standard(teacher, "summary")
    faces, _ = job.kept
    items = torch.arange(len(job.people.training.labels))
    plain = torch.cat(
        [faces(items, torch.full((len(items),), flip))["pack/summary"] for flip in (False, True)]
    )
    found = standard(plain)
    assert found.shape[1] == job.settings.dim == 32 < plain.shape[1]
    assert torch.allclose(found.mean(0), torch.zeros(32), atol=0.15)
    assert torch.allclose(found.std(0), torch.ones(32), atol=0.35)


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_been(distil, tmp_path):
    loop.train(distil("steps=12", "ema=0.9"), tmp_path / "cut", quiet, stop_after=1)
    for out in ("cut", "whole"):
        loop.train(distil("steps=12", "ema=0.9"), tmp_path / out, quiet, stop_after=2)
    weights = [checkpoint.load(tmp_path / out / loop.CHECKPOINT)[0] for out in ("cut", "whole")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    with pytest.raises(checkpoint.CheckpointError, match="another features"):
        loop.train(distil("steps=12", "ema=0.9", cache=""), tmp_path / "whole", quiet)


def test_the_last_layer_may_be_the_teachers(distil, tmp_path):
    loop.train(distil("steps=8", name="recognise"), tmp_path / "big", quiet, stop_after=1)
    big = f'{{name="big",source="backbone:{tmp_path / "big"}",adaptor="direct",standardise=false,map_weight=1.0}}'
    job = distil("copied=big", 'frozen=["backbone.head"]', "steps=8", teachers=[big])
    theirs = job.panel.teachers["big"].module.head.state_dict()
    copied = [name for name, _ in job.backbone.head.named_parameters()]
    assert all(torch.equal(theirs[name], tensor) for name, tensor in job.backbone.head.state_dict().items())
    found = history(job, tmp_path / "run")
    assert found[-1]["big_map"] < found[0]["big_map"]
    after = dict(job.module.backbone.head.named_parameters())
    assert all(torch.equal(theirs[name], after[name]) for name in copied)
    for more, named in (
        (["copied=pack"], "source begins with backbone:"),
        (["copied=big", "dim=16"], "they must have one shape"),
    ):
        with pytest.raises(ConfigError, match=named):
            distil(*more, teachers=[big])


def test_a_pack_comes_out_with_both_heads(distil, pack, tmp_path):
    job = distil(
        "dim=64", f"backbone=trunk:{pack.path}", "side=150", "batch=8", "fer_batch=4", "steps=4", "width=0.25"
    )
    module = loop.train(job, tmp_path / "run", quiet)
    said = []
    load("distill").finish(job, module, tmp_path / "run", tmp_path / "pack", quiet, said.append)
    made = verify(tmp_path / "pack")
    assert made.manifest.face.dim == 64
    assert made.manifest.face.side == 150
    engine = OnnxRuntimeEngine.load(made.face, SessionSettings(threads=1, dims={"N": 1}))
    face = job.people.judged.read(0)
    found = engine.run({"chip": np.ascontiguousarray(face[None, ..., ::-1])})
    with torch.inference_mode():
        images = torch.from_numpy(face).permute(2, 0, 1)[None].float() / 127.5 - 1
        features = module.backbone(images)
        logits = module.expression(features.map)
    own = torch.nn.functional.normalize(features.summary)
    assert np.allclose(found["embedding"], own, atol=1e-4)
    assert np.allclose(found["emotion"], logits, atol=1e-4)
    assert any("written and proved" in line for line in said)


def test_the_same_student_can_do_without_teachers(distil):
    job = distil("identity_weight=1.0", teachers=[])
    batch = next(job.batches(0))
    assert set(batch) == {"pictures", "labels", "expressions"}
    assert set(job.losses(job.module, batch, 0)) == {"loss", "identity", "expressions"}


@pytest.mark.parametrize(
    ("more", "teachers", "named"),
    [
        ([], ['{name="a",source="onnx:nowhere"}'], "nowhere"),
        (["label_weight=0"], [], "there is nothing to learn"),
        (["dim=200"], None, "set dim to that"),
        (['layers=[{teacher="other",theirs="x",ours="blocks.0"}]'], None, "no teacher 'other'"),
        (['layers=[{teacher="pack",theirs="level2.2.out",ours="tail"}]'], None, "no layer 'tail'"),
        (["frozen=['backbone.tail']"], None, "nothing in the student is called backbone.tail"),
        (["fer_batch=100"], None, "batch"),
    ],
)
def test_what_cannot_be_distilled_is_named(distil, more, teachers, named):
    with pytest.raises((UserError, EngineError), match=named):
        distil(*more, teachers=teachers)


def test_a_teacher_of_one_name_with_another_is_refused(distil, pack):
    twice = [f'{{name="pack",source="onnx:{pack.path}"}}'] * 2
    with pytest.raises(ConfigError, match="two teachers have one name"):
        distil(teachers=twice)
