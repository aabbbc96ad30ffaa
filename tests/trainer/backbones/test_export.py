"""An exported network is a pack's face network: the same answers as PyTorch's, norms by name, readable everywhere."""

import copy
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from agent.adaptation.network import FaceNetwork
from agent.adaptation.probe import Probe, front_layers
from engines.build import Model, build_plan, choose_target
from engines.norms import read_norms, write_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.probe import probe_library
from trainer.backbones import Backbone, BackboneError, Features, make, norms
from trainer.backbones.export import answers, face_graph, norm_parameters, verify
from trainer.backbones.heads import ExpressionHead
from trainer.common.proof import TOLERANCE, ExportError


@pytest.fixture(scope="session")
def graph(made):
    """Gives the exported graph of a backbone and its heads by name; each is exported once."""

    @cache
    def exported(name: str) -> onnx.ModelProto:
        return face_graph(*made(name))

    return exported


@pytest.fixture(scope="session")
def engine(graph):
    """Gives ONNX Runtime with the exported graph of a backbone by name, for two chips; each is loaded once."""

    @cache
    def loaded(name: str) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(graph(name), SessionSettings(threads=1, dims={"N": 2}))

    return loaded


def test_onnx_runtime_gives_what_pytorch_gives_for_one_face_and_for_three(small, made, graph, noise):
    backbone, heads = made(small)
    for count in (1, 3):
        assert verify(graph(small), backbone, heads, noise(count, backbone.side)) < TOLERANCE


def test_it_has_the_inputs_and_outputs_of_a_face_network(small, made, graph, engine, noise):
    backbone, _ = made(small)
    assert [(spec.name, spec.shape, spec.dtype) for spec in engine(small).inputs] == [
        ("chip", (2, backbone.side, backbone.side, 3), np.uint8)
    ]
    assert [(spec.name, spec.shape) for spec in engine(small).outputs] == [
        ("embedding", (2, 32)),
        ("emotion", (2, 7)),
    ]
    found = engine(small).run({"chip": noise(2, backbone.side)})["embedding"]
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert [entry.version for entry in graph(small).opset_import] == [17]


def test_every_norm_is_a_named_factor_and_addend(small, made, graph):
    backbone, heads = made(small)
    layers = ["input", *norms(backbone), *(f"{key}.{name}" for key in heads for name in norms(heads[key]))]
    found = read_norms(graph(small))
    assert set(found) == {f"norm.{layer}.{kind}" for layer in layers for kind in ("scale", "shift")}
    nodes = graph(small).graph.node
    used = {name: node.op_type for node in nodes for name in node.input if name in found}
    assert used == {name: "Mul" if name.endswith("scale") else "Add" for name in found}
    assert not {"BatchNormalization", "InstanceNormalization"} & {node.op_type for node in nodes}


def test_an_engine_with_other_norms_answers_as_pytorch_with_those(small, made, engine, noise):
    backbone, heads = copy.deepcopy(made(small))
    chips = noise(2, backbone.side)
    before = {name: value.copy() for name, value in engine(small).run({"chip": chips}).items()}
    torch.manual_seed(5)
    with torch.no_grad():
        for module in (backbone, *heads.values()):
            for layer in norms(module).values():
                layer.weight.mul_(1 + 0.05 * torch.randn_like(layer.weight))
                layer.bias.add_(0.05 * torch.randn_like(layer.bias))
    expected = answers(backbone, heads, chips)
    found = engine(small).with_norms(norm_parameters(backbone, heads)).run({"chip": chips})
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() < TOLERANCE
        assert np.abs(before[name] - value).max() > 100 * TOLERANCE  # there was something to change


def test_norms_that_are_alike_before_training_stay_apart():
    backbone = make("mobilefacenet", 64, 16, 0.125)
    model = face_graph(backbone, {"emotion": ExpressionHead(backbone.channels, 7)})
    found = read_norms(model)
    assert len(found) == 2 * (1 + len(norms(backbone)))
    one = "norm.blocks.0.main.0.norm.shift"
    moved = write_norms(model, {one: found[one] + 1})
    assert [name for name, value in read_norms(moved).items() if not np.array_equal(value, found[name])] == [
        one
    ]


def test_the_same_weights_give_the_same_bytes(made):
    first, second = (
        face_graph(*made("mobilefacenet")).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second


def test_the_network_itself_stays_as_it_is(made, noise):
    backbone, heads = made("mobilefacenet")
    before = answers(backbone, heads, noise(1, 112))
    backbone.train()
    backbone.stem.eval()  # as one does with layers that are not to learn
    face_graph(backbone, heads)
    assert all(
        np.array_equal(value, before[name]) for name, value in answers(backbone, heads, noise(1, 112)).items()
    )
    assert backbone.training
    assert not backbone.stem[0].norm.training
    backbone.eval()
    after = answers(backbone, heads, noise(1, 112))
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_without_a_head_for_it_the_summary_is_the_embedding(made, noise):
    backbone, heads = made("mobilefacenet")
    alone = {"emotion": heads["emotion"]}
    model = face_graph(backbone, alone)
    assert [value.type.tensor_type.shape.dim[1].dim_value for value in model.graph.output] == [64, 7]
    assert verify(model, backbone, alone, noise(2, 112)) < TOLERANCE


def test_a_graph_that_computes_something_else_is_refused(made, graph, noise):
    backbone, heads = made("mobilefacenet")
    other = {**heads, "emotion": ExpressionHead(backbone.channels, 7)}
    with pytest.raises(ExportError, match="emotion differs from PyTorch's by"):
        verify(graph("mobilefacenet"), backbone, other, noise(1, 112))


def test_a_graph_that_takes_blue_for_red_is_refused(made, graph, noise):
    backbone, heads = made("mobilefacenet")
    red_first = onnx.ModelProto()
    red_first.CopyFrom(graph("mobilefacenet"))
    (tensor,) = [t for t in red_first.graph.initializer if t.name == "backbone.stem.0.conv.weight"]
    weight = numpy_helper.to_array(tensor)[:, ::-1]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight), tensor.name))
    with pytest.raises(ExportError, match="embedding differs"):
        verify(red_first, backbone, heads, noise(1, 112))


class Mean(Backbone):
    """A network that looks at the picture by something else than a convolution."""

    def __init__(self):
        super().__init__(32, 4, 3)
        self.linear = nn.Linear(3, 4)

    def forward(self, images):
        return Features(images, self.linear(images.mean((2, 3))))


def test_what_no_face_network_can_be_is_refused_by_name():
    with pytest.raises(BackboneError, match="the picture is read by ReduceMean"):
        face_graph(Mean(), {})
    with pytest.raises(BackboneError, match=r"a head cannot be called 'my\.head'"):
        face_graph(make("mobilefacenet", 32, 8, 0.125), {"my.head": nn.Linear(8, 2)})


def test_adaptation_reads_it_and_changes_every_norm_as_an_engine_does(small, made, graph, engine, noise):
    backbone, _ = made(small)
    model, chips = graph(small), noise(2, backbone.side)
    network = FaceNetwork(model)
    found = network(torch.from_numpy(chips))
    for name, value in engine(small).run({"chip": chips}).items():
        assert np.abs(found[name].detach().numpy() - value).max() < TOLERANCE
    assert set(network.read_norms()) == set(read_norms(model))
    (found["embedding"][:, 0].sum() + found["emotion"].logsumexp(1).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert len(gradients) == len(read_norms(model))
    assert [name for name, each in gradients.items() if each is None or not each.abs().sum() > 0] == []
    changed = {name: value * np.float32(0.95) for name, value in read_norms(model).items()}
    network.write_norms(changed)
    assert all(np.array_equal(value, changed[name]) for name, value in network.read_norms().items())
    with torch.no_grad():
        found = network(torch.from_numpy(chips))
    for name, value in engine(small).with_norms(changed).run({"chip": chips}).items():
        assert np.abs(found[name].numpy() - value).max() < TOLERANCE


def test_light_is_read_off_its_first_layers(small, made, graph, noise):
    backbone, _ = made(small)
    layers = front_layers(graph(small), 4)
    assert layers[0] == "input"
    assert len(layers) == (1 if "vit" in small else 4)  # a transformer has no maps behind the picture
    probe = Probe(graph(small), layers)
    (chip,) = noise(1, backbone.side)
    bright, dark = probe.moments(chip), probe.moments(chip // 4)
    channels = sum(read_norms(graph(small))[f"norm.{layer}.scale"].size for layer in layers)
    assert bright.shape == (2 * channels,)
    assert np.isfinite(bright).all()
    assert (bright[:6] > 3 * dark[:6]).all()  # mean and deviation of three colours


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("ghostfacenet-v1", "fp32"),
        ("ghostfacenet-v2", "fp16"),
        ("mobilefacenet", "fp16"),
        ("ir50", "fp32"),
        ("timm:efficientnet_b0", "fp32"),
        ("timm:vit_tiny_patch16_224", "fp16"),
    ],
)
def test_tensorrt_builds_it(name, precision, graph, tmp_path):
    library = probe_library("tensorrt-rtx")
    if library.problem:
        pytest.skip(library.problem)
    file = tmp_path / "face.onnx"
    onnx.save(graph(name), file)
    target = choose_target("tensorrt-rtx", "8.6", None)
    plan = build_plan(Model(file, {"N": 1}), target, precision, tmp_path / "timings")
    assert len(plan.payload) > 10_000
