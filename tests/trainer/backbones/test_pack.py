"""A trained backbone becomes a pack, and the agent runs it."""

import hashlib

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from torch import nn

from agent import networks
from agent.adaptation.bank import read_bank
from agent.adaptation.refined import Refined
from agent.adaptation.types import Sample
from agent.config import AdaptationSettings, Config
from agent.perception.chain import FaceReader
from calibration import conditions, conditions_run
from engines.norms import read_norms
from engines.pack import verify
from trainer.backbones import BackboneError, make
from trainer.backbones.export import answers
from trainer.backbones.heads import ExpressionHead
from trainer.backbones.pack import About, write_face
from trainer.common import packs
from trainer.common.proof import ExportError

# Where eyes, nose and corners of the mouth lie in the 112×112 chips of ArcFace.
TEMPLATE = ((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2))
ABOUT = About(
    template=TEMPLATE,
    labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    threshold=0.4,
    threshold_basis="none: the weights are random",
    licence="Apache-2.0",
    source="made for this test",
)


def made_pack(folder, base, backbone, heads):
    return packs.pack_with(
        folder / "mine", "mine", base, "face", lambda file: write_face(file, backbone, heads, ABOUT)
    )


def test_the_agent_runs_a_pack_of_a_backbone(made, noise, pack, samples, tmp_path):
    backbone, heads = made("mobilefacenet")
    mine = made_pack(tmp_path, pack, backbone, heads)
    assert verify(tmp_path / "mine") == mine
    assert mine.bank is None
    face = mine.manifest.face
    assert (face.side, face.dim, face.labels, face.template) == (112, 32, ABOUT.labels, TEMPLATE)
    config = Config()
    loaded = networks.load(mine, config, gated=False)
    reader = FaceReader(loaded, config, lambda: 0.0)
    image = cv2.imread(str(samples / "obama.jpg"))
    (detection,) = reader.find(image)
    look = reader.look(image, detection)
    assert look.embedding.shape == (32,)
    assert float(np.linalg.norm(look.embedding)) == pytest.approx(1, abs=1e-5)
    assert look.logits.shape == (7,)
    assert len(read_norms(onnx.load(mine.face))) > 100
    chip = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    assert (
        np.abs(
            loaded.face.run({"chip": chip})["embedding"] - answers(backbone, heads, chip)["embedding"]
        ).max()
        < 1e-4
    )
    loaded.close()


def test_the_manifest_says_what_was_written(made, tmp_path):
    backbone, heads = made("mobilefacenet")
    part = write_face(tmp_path / "face.onnx", backbone, heads, ABOUT)
    assert part.sha256 == hashlib.sha256((tmp_path / "face.onnx").read_bytes()).hexdigest()
    assert msgspec.toml.decode(msgspec.toml.encode(part), type=type(part)) == part


def test_a_pack_of_a_backbone_gets_a_norm_bank_and_can_adapt(
    made, noise, pack, fer2013, lfw, tmp_path, monkeypatch
):
    few = {"dark": ("low_light",)}
    monkeypatch.setattr(conditions, "CONDITIONS", few)
    monkeypatch.setattr(conditions_run, "CONDITIONS", few)
    backbone, heads = made("mobilefacenet")
    mine = made_pack(tmp_path, pack, backbone, heads)
    recipe = conditions.Recipe(threads=1, bfloat16=False, images=16, faces=16, steps=1, batch=8, samples=16)
    conditions_run.make(mine, fer2013, lfw, [], recipe, tmp_path / "bank", lambda *_: None)
    model = onnx.load(mine.face)
    bank = read_bank(tmp_path / "bank" / conditions_run.BANK, model)
    assert bank.conditions == ("source", "dark")
    assert bank.layers[0] == "input"
    assert len(bank.layers) == conditions.SIZES
    adapter = Refined(model, bank, AdaptationSettings(tier="gradient"), 0)
    for number, chip in enumerate(noise(24, 112) // 4):
        adapter.observe(Sample(chip, (1 / 7,) * 7, number % 3, float(number)))
    proposal = adapter.propose()
    assert proposal is not None
    assert {"source", "dark"} <= proposal.figures.keys()


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        ({}, "has the heads emotion and, if wanted, embedding; here are none"),
        ({"projection": nn.Linear(8, 4)}, "here are projection"),
        ({"emotion": ExpressionHead(64, 3)}, "the head emotion has 3 outputs for 7 labels"),
    ],
)
def test_what_the_agent_could_not_run_is_refused(heads, told, tmp_path):
    backbone = make("mobilefacenet", 32, 8, 0.125)
    assert backbone.channels == 64
    with pytest.raises(BackboneError, match=told):
        write_face(tmp_path / "face.onnx", backbone, heads, ABOUT)
    assert not list(tmp_path.iterdir())


class Fickle(nn.Module):
    """A head whose answer hangs on something that no graph has."""

    calls = 0

    def forward(self, summary):
        self.calls += 1
        return summary[:, :7] + self.calls


def test_a_network_that_onnx_does_not_repeat_is_not_written(made, tmp_path):
    backbone, _ = made("mobilefacenet")
    with pytest.raises(ExportError, match="the exported emotion differs from PyTorch's"):
        write_face(tmp_path / "face.onnx", backbone, {"emotion": Fickle()}, ABOUT)
    assert not list(tmp_path.iterdir())
