"""A teacher may come from anywhere that a user has one, and from nowhere that could run something behind their back."""

import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from trainer.backbones import make
from trainer.backbones.timm import TimmBackbone
from trainer.common import checkpoint
from trainer.teachers.interface import LOGITS, MAP, SUMMARY, TeacherError, TeacherSettings, Tensors
from trainer.teachers.kept import ask, at_side
from trainer.teachers.modules import read_hub
from trainer.teachers.sources import open_teacher
from trainer.teachers.weights import read_weights

CPU = torch.device("cpu")
BOTH = (SUMMARY, MAP)


def teacher(source, answers=BOTH, **settings):
    return open_teacher(TeacherSettings(name="t", source=source, **settings), answers, 1, CPU)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pack_says_what_the_agent_would_hear(pack, faces):
    found = teacher(f"onnx:{pack.path}", (SUMMARY, MAP, LOGITS, "layer:level2.2.out"))(faces)
    assert {name: tuple(answer.shape) for name, answer in found.items()} == {
        "summary": (6, 128),
        "map": (6, 64, 17, 17),
        "logits": (6, 7),
        "layer:level2.2.out": (6, 128, 8, 8),
    }
    engine = OnnxRuntimeEngine.load(pack.face, SessionSettings(threads=1, dims={"N": 1}))
    chip = faces[0].permute(1, 2, 0).flip(2).numpy()[None]
    said = engine.run({"chip": chip})
    assert np.allclose(found["summary"][0], said["embedding"][0], atol=1e-5)
    assert np.allclose(found["logits"][0], said["emotion"][0], atol=1e-4)


@pytest.mark.parametrize("batch", ["N", 1])
def test_an_arcface_network_reads_rgb_planes_in_minus_one_to_one(tmp_path, faces, batch):
    # Its answer is the mean of each colour, of what the network reads.
    mean = helper.make_node("ReduceMean", ["data"], ["fc1"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [mean],
        "arcface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [batch, 3])],
    )
    file = tmp_path / "arcface.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    found = ask(teacher(f"onnx:{file}", (SUMMARY,), tensors=Tensors(summary="fc1")), faces, 16)["summary"]
    expected = faces.float().mean((2, 3)) / 127.5 - 1
    assert torch.allclose(found, expected, atol=0.01)


def test_what_is_no_network_of_faces_is_named(tmp_path, pack):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07nonsense")
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["embedding"])
    graph = helper.make_graph(
        [node],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    other = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), other)
    for source, named in (
        (f"onnx:{broken}", "broken.onnx cannot be loaded"),
        (f"onnx:{other}", "needed is one picture"),
        (f"onnx:{tmp_path / 'none.onnx'}", "none.onnx"),
        ("onnx", "begins with onnx:"),
        ("http://teacher", "begins with onnx:"),
    ):
        with pytest.raises(TeacherError, match=named):
            teacher(source, (SUMMARY,))
    with pytest.raises(TeacherError, match="no tensor 'nothing'"):
        teacher(f"onnx:{pack.path}", ("layer:nothing",))
    with pytest.raises(TeacherError, match="set side to that"):
        teacher(f"onnx:{pack.path}", (SUMMARY,), side=112)


def test_a_model_of_timm_brings_its_weights_from_a_file(tmp_path, faces):
    with pytest.raises(TeacherError, match="name the file of its weights"):
        teacher("timm:test_vit")
    torch.manual_seed(7)
    known = TimmBackbone("test_vit", 160, 1).model.eval()
    save_file({**known.state_dict(), "head.weight": torch.zeros(10, 64)}, tmp_path / "vit.safetensors")
    torch.save({"state_dict": known.state_dict()}, tmp_path / "vit.pth")
    for file in ("vit.safetensors", "vit.pth"):
        brought = teacher(
            "timm:test_vit", weights=str(tmp_path / file), side=160, mean=(0.0,) * 3, deviation=(1.0,) * 3
        )
        found = ask(brought, faces, 16)
        assert found["summary"].shape == (6, 64)
        with torch.no_grad():
            own = known.forward_features(at_side(faces, 160).float() / 255)
        assert torch.allclose(found["summary"], known.forward_head(own, pre_logits=True), atol=1e-5)
        assert found["map"].shape == (6, 64, 10, 10)
    random = teacher("timm:test_vit", weights="random", side=160)
    assert random.sha256 == teacher("timm:test_vit", weights="random", side=160).sha256 != brought.sha256
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(TeacherError, match="it is of another model"):
        teacher("timm:test_vit", weights=str(tmp_path / "other.safetensors"), side=160)


def test_an_inner_layer_of_a_module_is_heard(faces):
    found = ask(teacher("timm:test_resnet", ("layer:layer1",), weights="random", side=96), faces, 16)
    assert found["layer:layer1"].ndim == 4
    with pytest.raises(TeacherError, match="no layer 'layer9'"):
        teacher("timm:test_resnet", ("layer:layer9",), weights="random", side=96)


def test_a_repository_on_this_machine_is_a_teacher_as_radio_is(repository, faces):
    found = ask(
        teacher(f"torchhub:{repository}", entry="tiny_radio", arguments={"seed": 3}, side=64), faces, 16
    )
    assert found["summary"].shape == (6, 12)
    assert found["map"].shape == (6, 12, 4, 4)
    assert torch.allclose(found["map"].mean((2, 3)), found["summary"], atol=1e-5)
    with pytest.raises(TeacherError, match="nobody"):
        teacher(f"torchhub:{repository}", entry="nobody")


def test_a_repositorys_checkpoint_is_read_and_a_pickle_is_refused(repository, tmp_path, faces):
    import argparse

    settings = {"entry": "tiny_radio", "side": 64}
    plain = teacher(f"torchhub:{repository}", **settings)
    weights = {name: value + 1 for name, value in plain.module.state_dict().items()}
    torch.save(
        {"state_dict": weights, "args": argparse.Namespace(teachers=[{"name": "a"}])},
        tmp_path / "good.pth.tar",
    )
    other = teacher(
        f"torchhub:{repository}", arguments={"version": str(tmp_path / "good.pth.tar")}, **settings
    )
    assert not torch.allclose(plain(faces[..., :64, :64])["summary"], other(faces[..., :64, :64])["summary"])
    trap = tmp_path / "sprung"
    torch.save({"state_dict": weights, "args": Trap(trap)}, tmp_path / "bad.pth.tar")
    with pytest.raises(TeacherError, match="cannot be loaded"):
        teacher(f"torchhub:{repository}", arguments={"version": str(tmp_path / "bad.pth.tar")}, **settings)
    assert not trap.exists()


def test_weights_that_are_programs_are_refused(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"weight": Trap(trap)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Trap(trap)))
    (tmp_path / "c.safetensors").write_bytes(pickle.dumps(Trap(trap)))
    for file, named in (("a.pth", "pickle"), ("b.pth", "pickle"), ("c.safetensors", "cannot be read")):
        with pytest.raises(TeacherError, match=named):
            read_weights(tmp_path / file)
    torch.save([1, 2], tmp_path / "d.pth")
    with pytest.raises(TeacherError, match="no table of weights"):
        read_weights(tmp_path / "d.pth")
    assert not trap.exists()


def test_a_torchscript_file_is_a_teacher(tmp_path, faces):
    class Whole(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)), x

    file = tmp_path / "whole.pt"
    torch.jit.trace(Whole(), torch.zeros(1, 3, 64, 64)).save(str(file))
    found = ask(teacher(f"torchhub:{file}", side=64), faces, 8)
    assert found["map"].shape == (6, 3, 8, 8)
    assert torch.allclose(found["summary"], faces.float().mean((2, 3)) / 255, atol=0.01)
    with pytest.raises(TeacherError, match="output can be had"):
        teacher(f"torchhub:{file}", ("layer:x",), side=64)
    file.write_bytes(b"no archive")
    with pytest.raises(TeacherError, match="cannot be loaded"):
        teacher(f"torchhub:{file}", side=64)


def test_what_models_return_is_understood():
    maps, tokens, vector = torch.rand(2, 5, 3, 3), torch.rand(2, 9, 5), torch.rand(2, 4)
    assert read_hub("t", {"backbone": (vector, tokens), "clip": None})["map"].shape == (2, 5, 3, 3)
    assert read_hub("t", {"summary": vector, "features": maps}) == {"summary": vector, "map": maps}
    assert read_hub("t", vector) == {"summary": vector}
    assert torch.equal(read_hub("t", maps)["summary"], maps.mean((2, 3)))
    assert torch.equal(read_hub("t", (vector, tokens))["map"][:, :, 1, 2], tokens[:, 5])
    for nothing in (None, torch.rand(3), "text", (1, 2)):
        with pytest.raises(TeacherError, match="needed are"):
            read_hub("t", nothing)


def test_a_run_of_this_trainer_is_a_teacher(tmp_path, faces):
    torch.manual_seed(1)
    backbone = make("mobilefacenet", 48, 32, 0.25).eval()
    config = {"backbone": "mobilefacenet", "side": 48, "dim": 32, "width": 0.25}
    weights = {f"model/backbone.{name}": value for name, value in backbone.state_dict().items()}
    checkpoint.save(tmp_path / checkpoint.NAME, weights, {"config": config})
    found = ask(teacher(f"backbone:{tmp_path}"), faces[..., :48, :48], 16)
    with torch.no_grad():
        own = backbone(faces[..., :48, :48].float() / 127.5 - 1)
    assert torch.allclose(found["summary"], own.summary, atol=1e-5)
    assert torch.allclose(found["map"], own.map, atol=1e-5)
    checkpoint.save(tmp_path / checkpoint.NAME, weights, {"config": {"branch": 1}})
    with pytest.raises(TeacherError, match="no run that has trained a backbone"):
        teacher(f"backbone:{tmp_path}")
    with pytest.raises(checkpoint.CheckpointError):
        teacher(f"backbone:{tmp_path / 'nothing'}")


def test_what_a_teacher_does_not_say_is_named(tmp_path):
    torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "flat.pt"))
    flat = teacher(f"torchhub:{tmp_path / 'flat.pt'}", side=8)
    with pytest.raises(TeacherError, match="has no map"):
        flat(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
