"""A pack whose models cost next to nothing: it finds one face in the middle of any picture that is not black.

The guest computes too slowly for the real models to see more than a frame in some seconds. What the tests in it are
about (starting, dying, losing cameras and power) does not depend on who is in the picture.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.pack import MANIFEST, SCHEMA, DetectorModel, FaceModel, Manifest, encode_manifest
from engines.sources.onnx_graph import GraphWriter, image_input

SIDE = 64
"""Width and height of the detector's input; the configuration must name them."""

_CELLS = SIDE // 4
_BLACK = 8.0  # mean of a picture's channels below which there is nothing to see
_BOX = 32.0  # sides of the face, pixels of the input
# Eyes, nose tip, corners of the mouth, x and y as shares of the box: a head that looks straight ahead.
_LANDMARKS = ((0.32, 0.38), (0.68, 0.38), (0.50, 0.595), (0.34, 0.765), (0.66, 0.765))
_CHIP = 32
_DIM = 16
_LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def make(folder: Path) -> None:
    """Write the pack into ``folder``, which is made."""
    folder.mkdir(parents=True)
    onnx.save(_detector(), folder / "detector.onnx")
    onnx.save(_face(), folder / "face.onnx")
    about = {"licence": "Apache-2.0", "source": "tests/vm/standin.py"}
    manifest = Manifest(
        schema=SCHEMA,
        name="stand-in",
        detector=DetectorModel(
            file="detector.onnx", sha256=_digest(folder / "detector.onnx"), decoder="centerface", **about
        ),
        face=FaceModel(
            file="face.onnx",
            sha256=_digest(folder / "face.onnx"),
            side=_CHIP,
            template=tuple((x * _CHIP, y * _CHIP) for x, y in _LANDMARKS),
            dim=_DIM,
            labels=_LABELS,
            threshold=0.5,
            threshold_basis="none: every picture is one person",
            **about,
        ),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))


def _detector() -> onnx.ModelProto:
    """The heat of the middle cell rises with the picture's mean; all other maps are fixed."""
    writer = GraphWriter()
    middle = np.zeros((1, 1, _CELLS, _CELLS), np.float32)
    middle[0, 0, _CELLS // 4, _CELLS // 2] = 1.0
    x = image_input(writer, "image")
    mean = writer.node("ReduceMean", [x], "mean", keepdims=1)
    seen = writer.node("Greater", [mean, writer.constant("black", np.float32([_BLACK]))], "seen")
    lit = writer.node("Cast", [seen], "lit", to=TensorProto.FLOAT)
    writer.node("Mul", [lit, writer.constant("middle", middle)], "heatmap")
    fixed = {
        "scale": np.full(2, np.log(_BOX / 4)),
        "offset": np.zeros(2),
        "landmarks": np.array([value for x, y in _LANDMARKS for value in (y, x)]),
    }
    outputs = [helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, [1, 1, _CELLS, _CELLS])]
    for name, values in fixed.items():
        shape = (1, len(values), _CELLS, _CELLS)
        maps = np.broadcast_to(values.astype(np.float32).reshape(1, -1, 1, 1), shape)
        writer.node("Identity", [writer.constant(f"{name}.value", maps)], name)
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])
    return writer.model("stand-in detector", [image], outputs)


def _face() -> onnx.ModelProto:
    """An embedding that colours move by some 30 degrees: always one person, and a new look when the picture moves."""
    rng = np.random.default_rng(0)
    writer = GraphWriter()
    x = image_input(writer, "chip")
    half = writer.constant("half", np.full((1, 1, 1, 1), 128, np.float32))
    x = writer.node("Sub", [x, half], "centred")
    quarters = writer.node(
        "AveragePool", [x], "quarters", kernel_shape=[_CHIP // 2] * 2, strides=[_CHIP // 2] * 2
    )
    colours = writer.node("Flatten", [quarters], "colours")
    weights = {
        "raw": (rng.normal(0, 0.4 / 128, (12, _DIM)), rng.normal(0, 1, _DIM)),
        "emotion": (rng.normal(0, 1 / 128, (12, len(_LABELS))), np.zeros(len(_LABELS))),
    }
    for name, (factor, summand) in weights.items():
        inputs = [
            colours,
            writer.constant(f"{name}.factor", factor.astype(np.float32)),
            writer.constant(f"{name}.summand", summand.astype(np.float32)),
        ]
        writer.node("Gemm", inputs, name)
    length = writer.node("ReduceL2", ["raw"], "length", axes=[1], keepdims=1)
    writer.node("Div", ["raw", length], "embedding")
    return writer.model(
        "stand-in face network",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", _CHIP, _CHIP, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", _DIM]),
            helper.make_tensor_value_info("emotion", TensorProto.FLOAT, ["N", len(_LABELS)]),
        ],
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
