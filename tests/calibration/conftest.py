"""What calibration is tested on without a data set: frames of the sample clip, and a network of milliseconds."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.sources.onnx_graph import GraphWriter, image_input, norm


@pytest.fixture(scope="session")
def photographs(samples, tmp_path_factory) -> Path:
    """A folder for each of three people: on either side of the line that divides calibrating from judging."""
    folder = tmp_path_factory.mktemp("photographs")
    clip = cv2.VideoCapture(str(samples / "carphone_pristine.mp4"))
    frames = [clip.read()[1] for _ in range(60)]
    clip.release()
    people = {
        "driver": frames[::2],
        "barack": _varied(samples / "obama.jpg", 14) + _varied(samples / "obama2.jpg", 14),
        "joe": _varied(samples / "biden.jpg", 14),
    }
    for person, images in people.items():
        (folder / person).mkdir()
        for index, image in enumerate(images):
            cv2.imwrite(str(folder / person / f"{index:02d}.png"), image)
    return folder


def _varied(file: Path, count: int) -> list[np.ndarray]:
    """One photograph in several sizes and lights."""
    image = cv2.imread(str(file))
    scale = 400 / image.shape[1]
    return [
        np.clip(cv2.resize(image, None, fx=scale * size, fy=scale * size) * light, 0, 255).astype(np.uint8)
        for size, light in zip(np.linspace(0.5, 1, count), np.linspace(1.2, 0.5, count), strict=True)
    ]


@pytest.fixture(scope="session")
def small() -> onnx.ModelProto:
    """A face network of three products, built as the real one is."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    writer = GraphWriter()
    x = image_input(writer, "chip")
    x = norm(writer, x, "input", np.full(3, 1 / 256, np.float32), np.full(3, -0.5, np.float32))
    for layer, (channels, out) in enumerate([(3, 16), (16, 32)]):
        weight = writer.constant(f"{layer}.weight", some(out, channels, 3, 3))
        x = writer.node(
            "Conv", [x, weight], f"{layer}.conv", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        )
        x = norm(writer, x, f"layer{layer}", 1 + some(out), some(out))
        x = writer.node("Relu", [x], f"{layer}.relu")
    x = writer.node("ReduceMean", [x], "pool", axes=[2, 3], keepdims=0)
    raw = writer.node("MatMul", [x, writer.constant("embed", some(32, 16))], "raw")
    length = writer.node("ReduceL2", [raw], "length", axes=[1], keepdims=1)
    writer.node("Div", [raw, length], "embedding")
    return writer.model(
        "small",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", 24, 24, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 16])],
    )
