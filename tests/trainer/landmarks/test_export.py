"""What is exported says what was trained, and a pack with it is whole."""

import numpy as np
import onnx
import pytest
import torch

from engines.pack import file_digest
from trainer.common.proof import TOLERANCE, ExportError
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
    assert export.prove(graph, network) < TOLERANCE
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
    with pytest.raises(ExportError, match=r"points differs from PyTorch's by 0\.001"):
        export.prove(other, network)


def test_the_file_is_described_for_a_manifest(graph, tmp_path):
    model = export.write_landmarks(
        tmp_path / "points.onnx", graph, margin=0.25, licence="MIT", source="a test"
    )
    assert (model.file, model.side, model.margin, model.licence) == ("points.onnx", 64, 0.25, "MIT")
    assert (tmp_path / "points.onnx").read_bytes() == graph.SerializeToString(deterministic=True)
    assert model.sha256 == file_digest(tmp_path / "points.onnx")
