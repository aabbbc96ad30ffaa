"""A finished face network learns to run in whole numbers, and what comes out does: on the grid, verified, in a pack."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from engines.norms import read_norms
from engines.pack import verify
from trainer.common import checkpoint, loop, runtime
from trainer.common.distributed import World
from trainer.common.settings import ConfigError, load_settings
from trainer.quantise import Quantised, bits_for, deployable
from trainer.tasks import load

HEAD = ("head.margin=0", "head.scale=12")


def quiet(what, count, total):
    pass


def job_of(name, settings, *more):
    task = load(name)
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


@pytest.fixture(scope="module")
def base(settings, tmp_path_factory):
    """A run of recognition that has ended."""
    out = tmp_path_factory.mktemp("base")
    loop.train(job_of("recognise", settings, *HEAD, "steps=8"), out, quiet)
    return out


@pytest.fixture
def fine(settings, base):
    """Settings that fine-tune it."""
    return [*settings, *HEAD, f"start={base}", "quantise=true", "steps=16", "learning_rate=0.03", "ema=0.5"]


def test_a_recognition_is_fine_tuned_and_its_pack_has_weights_in_powers_of_two(fine, base, fer2013, tmp_path):
    ship = [f"ship.expressions={fer2013}", "ship.expression_faces=64"]
    job = job_of("recognise", fine, *ship)
    assert ("fine-tuned for whole numbers", f"all of {base}") in job.facts()
    before = checkpoint.load(base / loop.CHECKPOINT)[0]
    assert torch.equal(job.module.head.layer.centres, before["model/head.layer.centres"])
    module = loop.train(job, tmp_path / "whole", quiet)
    losses = [line["loss"] for line in loop.read_history(tmp_path / "whole")]
    assert np.mean(losses[-2:]) < 0.97 * losses[0]

    loop.train(job_of("recognise", fine, *ship), tmp_path / "cut", quiet, stop_after=2)
    loop.train(job_of("recognise", fine, *ship), tmp_path / "cut", quiet)
    weights = [checkpoint.load(tmp_path / out / loop.CHECKPOINT)[0] for out in ("whole", "cut")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

    said = []
    load("recognise").finish(job, module, tmp_path / "whole", tmp_path / "pack", quiet, said.append)
    assert "in whole numbers" in said[0]
    made = onnx.load(verify(tmp_path / "pack").face)
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    products = [node for node in made.graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]
    for node in products:
        weight = fixed[node.input[1]]
        whole = weight * 2.0 ** bits_for(np.abs(weight).max().item())
        assert np.array_equal(whole, np.round(whole))
        assert np.abs(whole).max() <= 128
    bits = {each.key: int(each.value) for each in made.metadata_props}
    assert len(bits) == len(products)
    assert {"bits.stem.0.conv", "bits.emotion.linear"} <= bits.keys()
    assert {"norm.stem.0.norm.scale", "norm.stem.0.norm.shift"} <= read_norms(made).keys()

    chips = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    planes = torch.from_numpy(np.ascontiguousarray(chips[..., ::-1].transpose(0, 3, 1, 2))).float()
    with torch.inference_mode():
        ours = torch.nn.functional.normalize(deployable(module.backbone)[0](planes / 127.5 - 1).summary)
    (theirs,) = runtime.answers(made, ["embedding"], {"chip": chips})
    assert np.abs(ours.numpy() - theirs).max() < 1e-4

    with pytest.raises(checkpoint.CheckpointError, match="name the run that it began with"):
        job_of("recognise", fine, f"start={tmp_path / 'whole'}")


def test_several_objectives_begin_with_a_backbone_and_round_the_expressions_too(fine, base, fer2013):
    job = job_of("multitask", fine, f"fer2013={fer2013}", "fer_batch=4", "batch=4")
    assert ("fine-tuned for whole numbers", f"the backbone of {base}") in job.facts()
    module = job.module
    trained = checkpoint.load(base / loop.CHECKPOINT)[0]["model/backbone.stem.0.conv.weight"]
    assert torch.equal(module.backbone.stem[0].conv.layer.weight, trained)
    assert isinstance(module.expression.linear, Quantised)
    assert not any(isinstance(layer, Quantised) for layer in module.projection.modules())
    module.train()
    job.losses(module, next(job.batches(0)), 0)["loss"].backward()
    assert module.backbone.stem[0].conv.layer.weight.grad.abs().sum() > 0
    assert module.expression.linear.layer.weight.grad.abs().sum() > 0


def test_there_must_be_something_to_fine_tune(settings):
    for task in ("recognise", "relate", "distill", "multitask"):
        with pytest.raises(ConfigError, match="name its run with start"):
            load_settings(load(task).settings, None, [*settings, "quantise=true"])
