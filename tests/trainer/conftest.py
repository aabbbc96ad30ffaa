from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.sources.onnx_graph import GraphWriter, image_input, norm

FER2013 = Path(__file__).parents[2].parent / "shared" / "data" / "fer2013.npz"
HUBCONF = """
import torch
from torch import nn


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 16, 16)

    def forward(self, x):
        found = self.patches(x)
        return found.mean((2, 3)), found.flatten(2).transpose(1, 2)


def tiny_radio(version="", seed=0):
    torch.manual_seed(seed)
    model = Tokens()
    if version:
        model.load_state_dict(torch.load(version)["state_dict"])
    return model
"""


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """The real data set."""
    if not FER2013.is_file():
        pytest.skip("../shared/data/fer2013.npz is absent")
    return FER2013


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """A repository with a hubconf.py whose model answers as RADIO does: a summary, and tokens."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


@pytest.fixture(scope="session")
def trunk_file(tmp_path_factory) -> Path:
    """A small network with the face network's input and outputs: one layer of random filters."""
    rng = np.random.default_rng(0)
    writer = GraphWriter()
    x = image_input(writer, "chip")
    x = norm(writer, x, "input", np.full(3, 1 / 64, np.float32), np.full(3, -2, np.float32))
    weight = writer.constant("stem.weight", rng.normal(0, 0.1, (64, 3, 16, 16)).astype(np.float32))
    x = writer.node("Conv", [x, weight], "stem.conv", kernel_shape=[16, 16], strides=[8, 8])
    writer.node("Relu", [x], "features")
    writer.node("ReduceMean", ["features"], "embedding", axes=[2, 3], keepdims=0)
    model = writer.model(
        "small_face_network",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", 150, 150, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 64]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 64, 17, 17]),
        ],
    )
    path = tmp_path_factory.mktemp("trunk") / "face.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """A small set in FER2013's form: seven patterns, told apart by where the bright patch lies, in noise."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 160), ("validation", 40), ("test", 40)):
        labels = rng.integers(0, 7, count)
        images = rng.normal(90, 25, (count, 48, 48))
        for image, label in zip(images, labels, strict=True):
            image[10:36, 8 + 4 * label : 14 + 4 * label] += 90
        arrays |= {f"{split}_x": images.clip(0, 255).astype(np.uint8), f"{split}_y": labels}
    path = tmp_path_factory.mktemp("faces") / "faces.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def settings(faces, trunk_file, tmp_path):
    return [
        f"data={faces}",
        f"trunk={trunk_file}",
        f"cache={tmp_path / 'cache'}",
        "branch.stages=[[16, 2], [16, 2]]",
        "versions=2",
        "batch=32",
        "threads=1",
        "epochs=4",
        "bfloat16=false",
    ]
