"""What is exported is what was trained, and the agent's own code finds faces with it."""

import copy

import cv2
import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from agent import networks
from agent.config import Config
from agent.perception.chain import FaceReader
from agent.perception.detector import DECODERS
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import MANIFEST, encode_manifest, verify
from trainer.common import packs
from trainer.common.proof import ExportError
from trainer.detector.export import (
    anchor_table,
    answers,
    detector_graph,
    prove,
    write_detector,
)
from trainer.detector.network import SIZES, TinySsd, all_anchors, flat
from trainer.losses.detection import decode


def trained(width=0.5):
    """A network as after some training: moments that are not 0 and 1, scores that differ."""
    torch.manual_seed(1)
    network = TinySsd(width)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
        for head in [*network.scores.values(), *network.boxes.values()]:
            head.weight.normal_(0, 0.05)
        for head in network.scores.values():
            head.bias.zero_()
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return trained()


@pytest.fixture(scope="module")
def made(network, pack, tmp_path_factory):
    target = tmp_path_factory.mktemp("made") / "pack"
    return packs.pack_with(
        target,
        "own",
        pack,
        "detector",
        lambda file: write_detector(file, network, 0.5, "none", "this test", {"bits.first": "7"}),
    )


def test_onnx_runtime_and_pytorch_agree_at_any_size(network):
    assert prove(detector_graph(network), network) < 1e-4
    assert prove(detector_graph(network, 0.2), network, 0.2) < 1e-4


def test_a_graph_of_another_network_is_not_believed(network):
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.first.weight[0, 0] += 0.1
    with pytest.raises(ExportError, match=r"exported .* differs from PyTorch's by"):
        prove(detector_graph(other), network)


def test_the_chosen_threshold_becomes_one_half(network):
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    plain = answers(network, image)
    chosen = float(np.median(plain["scores_8"])) + 1e-4
    for name, after in answers(network, image, chosen).items():
        if name.startswith("scores"):
            assert ((plain[name] >= chosen) == (after >= 0.5)).all()
        else:
            assert (plain[name] == after).all()
    assert 0.3 < (plain["scores_8"] >= chosen).mean() < 0.7


def test_the_graph_reads_bgr_and_has_no_norms_left(network):
    graph = detector_graph(network).graph
    assert {node.op_type for node in graph.node} <= {
        "Transpose", "Cast", "Div", "Sub", "Conv", "MaxPool", "Relu", "Sigmoid", "Constant",
    }  # fmt: skip
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[..., 2] = 255  # red, as the agent has it
    with torch.inference_mode():
        red = torch.full((1, 3, 64, 64), -1.0)
        red[:, 0] = 1.0
        expected = network(red)[8].offsets.numpy()
    assert np.allclose(answers(network, image)["boxes_8"], expected, atol=1e-5)


def test_the_agent_reads_the_boxes_that_training_meant(network, made):
    """Decoded by the agent from ONNX Runtime's maps as by the arithmetic that the targets were made with."""
    height, width = 96, 128
    engine = OnnxRuntimeEngine.load(made.detector, SessionSettings(threads=1, dims={"H": height, "W": width}))
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    engine.buffer("image")[0] = image
    detector = made.manifest.detector
    found = DECODERS[detector.decoder](detector)(engine.run(), 0.0)
    with torch.inference_mode():
        pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        logits, offsets = flat(network(pixels))
    order = logits[0].sigmoid().argsort(descending=True, stable=True)
    boxes = decode(offsets[0], all_anchors(height, width))[order].numpy()
    assert found.shape == (len(boxes), 15)
    assert np.allclose(found[:, 4], logits[0].sigmoid()[order].numpy(), atol=1e-5)
    some = slice(0, 200)  # further down equal scores may stand in another order
    assert np.allclose(found[some, :4], boxes[some], rtol=1e-3, atol=0.05)
    engine.close()


def test_a_pack_with_it_is_whole_and_runs_in_the_agent(made, pack, samples):
    assert verify(made.path).manifest == made.manifest
    assert made.manifest.face == pack.manifest.face
    assert made.manifest.adaptation == pack.manifest.adaptation
    assert made.manifest.digest != pack.manifest.digest
    assert made.manifest.detector.anchors == anchor_table()
    assert [each.stride for each in made.manifest.detector.anchors] == list(SIZES)
    assert onnx.load(made.detector).metadata_props[0].key == "bits.first"
    config = Config()
    loaded = networks.load(made, config, coarse=True)
    reader = FaceReader(loaded, config, lambda: 0.0)
    image = cv2.imread(str(samples / "obama.jpg"))
    for coarse in (False, True):
        for face in reader.find(image, coarse=coarse):
            look = reader.look(image, face)
            assert np.isfinite(look.embedding).all()
    loaded.close()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: msgspec.structs.replace(d, anchors=()), r"decoder ssd needs detector\.anchors"),
        (lambda d: msgspec.structs.replace(d, anchors=d.anchors[:2]), "its tensors are"),
        (
            lambda d: msgspec.structs.replace(
                d, anchors=(*d.anchors[:2], msgspec.structs.replace(d.anchors[2], sizes=((90.0, 110.0),)))
            ),
            "its tensors are .*the manifest says",
        ),
        (
            lambda d: msgspec.structs.replace(
                d, anchors=(msgspec.structs.replace(d.anchors[0], stride=4), *d.anchors[1:])
            ),
            "scores_4",
        ),
        (lambda d: msgspec.structs.replace(d, decoder="sdd"), "decoder 'sdd' is not known; there are .*ssd"),
    ],
    ids=["no anchors", "a level too few", "an anchor too few", "another stride", "another decoder"],
)
def test_a_manifest_that_does_not_suit_the_file_is_refused_at_the_start(made, tmp_path, change, complaint):
    for name in (made.manifest.detector.file, made.manifest.face.file, made.manifest.adaptation.file):
        (tmp_path / name).symlink_to(made.path / name)
    manifest = msgspec.structs.replace(made.manifest, detector=change(made.manifest.detector))
    (tmp_path / MANIFEST).write_bytes(encode_manifest(manifest))
    with pytest.raises(EngineError, match=complaint):
        networks.load(verify(tmp_path), Config())


def test_a_face_detector_of_the_other_kind_is_not_taken_for_one(pack, tmp_path):
    for file in (pack.detector, pack.face, pack.bank):
        (tmp_path / file.name).symlink_to(file)
    detector = msgspec.structs.replace(pack.manifest.detector, decoder="ssd", anchors=anchor_table())
    (tmp_path / MANIFEST).write_bytes(
        encode_manifest(msgspec.structs.replace(pack.manifest, detector=detector))
    )
    with pytest.raises(EngineError, match="heatmap"):
        networks.load(verify(tmp_path), Config())


def test_a_file_alone_is_described_for_a_manifest(network, tmp_path):
    model = write_detector(tmp_path / "own.onnx", network, 0.4, "MIT", "here", {})
    assert (model.file, model.decoder, model.stride, model.licence) == ("own.onnx", "ssd", 32, "MIT")
    assert [file.name for file in tmp_path.iterdir()] == ["own.onnx"]
