"""What is exported says what was trained, and a pack with it is whole."""

import msgspec
import numpy as np
import onnx
import pytest
import torch

from engines.pack import verify
from trainer.landmarks import export
from trainer.landmarks.network import LandmarkNet

USUAL = np.array([[20, 20], [44, 20], [32, 32], [22, 44], [42, 44]], np.float32)


@pytest.fixture(scope="module")
def network():
    """A network of 64 pixels whose every weight and moment has been moved."""
    torch.manual_seed(0)
    net = LandmarkNet(64, 0.5, USUAL)
    net.train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        net(torch.randn(8, 3, 64, 64))
    return net.eval()


@pytest.fixture(scope="module")
def graph(network):
    return export.landmark_graph(network)


def test_an_untrained_network_says_where_points_usually_lie():
    found = LandmarkNet(64, 1.0, USUAL).eval()(torch.randn(3, 3, 64, 64))
    assert np.allclose(found.detach().numpy().reshape(3, 5, 2), USUAL, atol=1e-4)


def test_the_network_of_the_task_is_small():
    assert sum(each.numel() for each in LandmarkNet(96, 1.0, USUAL).parameters()) < 200_000


def test_the_graph_says_what_the_network_says_and_reads_bgr(network, graph):
    assert export.prove(graph, network) < export.TOLERANCE
    (read,), (made,) = graph.graph.input, graph.graph.output
    assert (read.name, made.name) == ("chip", "points")
    assert read.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    red = np.zeros((1, 64, 64, 3), np.uint8)
    red[..., 2] = 255  # BGR
    with torch.inference_mode():
        planes = torch.full((1, 3, 64, 64), -1.0)
        planes[:, 0] = 1
        expected = network(planes).numpy()
    assert np.abs(export.answers(graph, red) - expected).max() < 0.01
    assert np.abs(export.answers(graph, red[..., ::-1].copy()) - expected).max() > 0.05


def test_a_graph_that_says_something_else_is_refused(network, graph):
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    for tensor in other.graph.initializer:
        if list(tensor.dims) == [10]:
            bias = onnx.numpy_helper.to_array(tensor) + np.float32(0.001)
            tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
    with pytest.raises(export.ExportError, match=r"differ from PyTorch's by 0\.001 of the side"):
        export.prove(other, network)


def test_a_pack_gets_the_network_beside_the_models_of_another(pack, graph, tmp_path):
    export.write(tmp_path / "mine", graph, pack, "mine", margin=0.25, licence="MIT", source="a test")
    made = verify(tmp_path / "mine")
    model = made.manifest.landmarks
    assert (model.side, model.margin, model.licence) == (64, 0.25, "MIT")
    assert made.landmarks.read_bytes() == graph.SerializeToString(deterministic=True)
    assert made.manifest.digest != pack.manifest.digest
    plain = msgspec.structs.replace(
        made.manifest, name=pack.manifest.name, recipe=pack.manifest.recipe, landmarks=msgspec.UNSET
    )
    assert plain == pack.manifest
    export.write(
        tmp_path / "alone" / "points.onnx", graph, pack, "mine", margin=0.25, licence="MIT", source=""
    )
    assert (tmp_path / "alone" / "points.onnx").read_bytes() == made.landmarks.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(export.ExportError, match="make room or rights"):
        export.write(tmp_path / "file" / "x.onnx", graph, pack, "mine", margin=0, licence="", source="")
