"""The default pack's network, and faces to show to it."""

import numpy as np
import onnx
import pytest

from calibration.fer2013 import read_split, to_chip


@pytest.fixture(scope="session")
def model(pack) -> onnx.ModelProto:
    return onnx.load(pack.face)


@pytest.fixture(scope="session")
def faces(shared_data) -> list[np.ndarray]:
    """Chips that the bank was not trained on."""
    if not (shared_data / "fer2013.npz").is_file():
        pytest.skip("../shared/data/fer2013.npz is absent")
    images, _ = read_split(shared_data / "fer2013.npz", "validation")
    return [to_chip(image) for image in images[::60]]
