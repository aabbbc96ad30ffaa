"""A pack may bring a network for landmarks: it is asked about every face, and nothing else changes."""

import time

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agent import networks
from agent.config import Config
from agent.perception.chain import FaceReader
from agent.perception.landmarks import LandmarkReader, square
from agent.perception.types import Detection
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import LandmarkModel, Pack, file_digest
from engines.sources.onnx_graph import GraphWriter, image_input

SIDE, MARGIN = 96, 0.2
# About a middle, in pixels of the chip: eyes, nose and mouth.
ABOUT = np.array([[-16, -12], [16, -12], [0, 4], [-12, 20], [12, 20]], np.float32)


def quiet(step):
    pass


def graph(about, side=SIDE, points=10):
    """A network that looks for the brightest place's middle and puts the points about it.

    The middle is the mean place of all pixels, weighted by their brightness to the eighth power.
    """
    writer = GraphWriter()
    x = image_input(writer, "chip")
    for number in range(3):
        x = writer.node(
            "Mul", [x, x] if number else [x, writer.constant("unit", np.float32([1 / 255]))], f"power{number}"
        )
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(np.float32)
    flat = writer.node("ReduceMean", [x], "grey", axes=[1], keepdims=0)
    flat = writer.node("Flatten", [flat], "flat", axis=1)
    total = writer.node("ReduceSum", [flat, writer.constant("axes", np.array([1]))], "total", keepdims=1)
    middle = writer.node("MatMul", [flat, writer.constant("places", places)], "sum")
    middle = writer.node("Div", [middle, total], "middle")
    spread = writer.node(
        "MatMul",
        [middle, writer.constant("tile", np.tile(np.eye(2, dtype=np.float32), points // 2))],
        "tiled",
    )
    writer.node(
        "Add", [spread, writer.constant("about", np.resize(about, points).astype(np.float32))], "points"
    )
    return writer.model(
        "landmarks",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, ["N", points])],
    )


def reader(about=ABOUT):
    engine = OnnxRuntimeEngine(graph(about), SessionSettings(1, dims={"N": 1}))
    model = LandmarkModel(file="l.onnx", sha256="0" * 64, licence="", source="", side=SIDE, margin=MARGIN)
    return LandmarkReader(engine, model)


@pytest.fixture
def with_landmarks(pack, tmp_path):
    """The default pack with such a network, in a folder of its own."""

    def made(content, **changes):
        for file in (pack.detector, pack.face, pack.bank):
            (tmp_path / file.name).symlink_to(file)
        file = tmp_path / "landmarks.onnx"
        onnx.save(content, file)
        told = {"side": SIDE, "margin": MARGIN, **changes}
        model = LandmarkModel(file=file.name, sha256=file_digest(file), licence="", source="", **told)
        return Pack(tmp_path, msgspec.structs.replace(pack.manifest, landmarks=model))

    return made


@pytest.fixture
def photograph(samples):
    return cv2.imread(str(samples / "obama.jpg"))


@pytest.mark.parametrize(
    "box", [(100.0, 60.0, 180.0, 160.0), (8.5, 10.25, 60.0, 40.0), (-20.0, 30.0, 380.0, 290.0)]
)
def test_points_are_where_the_network_sees_them(box):
    """A bright spot in a dark frame is found through chip and back, for boxes of every size and at the edge."""
    frame = np.zeros((320, 400, 3), np.uint8)
    longer = max(box[2] - box[0], box[3] - box[1])
    spot = np.array([box[0] + 0.6 * (box[2] - box[0]), box[1] + 0.45 * (box[3] - box[1])])
    cv2.circle(
        frame, tuple(int(each) for each in np.round(spot)), max(2, int(longer / 20)), (255, 255, 255), -1
    )
    (face,) = reader().mark(frame, [Detection(box, 0.9, np.zeros((5, 2), np.float32))], quiet)
    found = face.landmarks
    pixel = longer * (1 + 2 * MARGIN) / SIDE  # of the chip, in the frame
    assert found.dtype == np.float32
    assert np.abs(found - (np.round(spot) + ABOUT * pixel)).max() < 0.35 * max(1, pixel)


def test_the_square_by_hand():
    matrix = square((10, 20, 50, 100), 0.1, 48)  # 80 pixels and 8 on either side come to 48
    assert matrix == pytest.approx(np.array([[0.5, 0, 23.5 - 15], [0, 0.5, 23.5 - 30]]))


def test_a_face_whose_points_cannot_be_aligned_by_is_dropped():
    detections = [Detection((10.0, 10.0, 60.0, 60.0), 0.9, np.zeros((5, 2), np.float32))]
    grey = np.full((80, 80, 3), 90, np.uint8)
    assert len(reader().mark(grey, detections, quiet)) == 1
    assert reader(np.zeros(10)).mark(grey, detections, quiet) == []
    assert reader(np.full(10, np.nan)).mark(grey, detections, quiet) == []


def test_the_chain_takes_its_points_for_the_detectors(pack, with_landmarks, photograph):
    seen = {}
    for name, each in (("plain", pack), ("own", with_landmarks(graph(ABOUT)))):
        loaded = networks.load(each, Config())
        chain = FaceReader(loaded, Config(), time.perf_counter)
        chain.timer.start()
        (face,) = chain.find(photograph)
        seen[name] = face, dict(chain.timer.stage_ms), chain.look(photograph, face)
        if name == "own":
            (again,) = LandmarkReader(loaded.landmarks, each.manifest.landmarks).mark(
                photograph, [face], quiet
            )
            assert (face.landmarks == again.landmarks).all()
        loaded.close()
    (plain, times, look), (own, own_times, own_look) = seen["plain"], seen["own"]
    assert own.box == plain.box
    assert own.score == plain.score
    assert np.abs(own.landmarks - plain.landmarks).max() > 2
    assert not np.allclose(look.embedding, own_look.embedding, atol=0.01)
    assert set(own_times) - set(times) == {"crop", "landmarks"}


def test_a_perfect_network_gives_the_detectors_own_embedding(pack, with_landmarks, photograph):
    """Points put exactly where the detector has them: the face is aligned, and read, just as without the network."""
    plain = networks.load(pack, Config())
    chain = FaceReader(plain, Config(), time.perf_counter)
    (face,) = chain.find(photograph)
    look = chain.look(photograph, face)
    plain.close()
    matrix = square(face.box, MARGIN, SIDE)
    points = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
    chip = np.empty((SIDE, SIDE, 3), np.uint8)
    cv2.warpAffine(photograph, matrix, (SIDE, SIDE), dst=chip)
    writer = GraphWriter()
    x = writer.node("ReduceMean", [image_input(writer, "chip")], "mean", axes=[1, 2, 3], keepdims=0)
    x = writer.node("Mul", [x, writer.constant("none", np.float32([0]))], "nothing")
    x = writer.node("Unsqueeze", [x, writer.constant("axis", np.array([1]))], "column")
    writer.node("Add", [x, writer.constant("fixed", points.reshape(1, 10).astype(np.float32))], "points")
    content = writer.model(
        "landmarks",
        [helper.make_tensor_value_info("chip", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, ["N", 10])],
    )
    loaded = networks.load(with_landmarks(content), Config())
    own = FaceReader(loaded, Config(), time.perf_counter)
    (found,) = own.find(photograph)
    assert np.abs(found.landmarks - face.landmarks).max() < 1e-3
    assert own.look(photograph, found).embedding @ look.embedding > 0.9999
    loaded.close()


@pytest.mark.parametrize(
    ("content", "changes"),
    [((ABOUT,), {"side": 64}), ((ABOUT, SIDE, 12), {})],
    ids=["another side", "another number of points"],
)
def test_a_network_that_is_not_what_the_manifest_says_is_refused(with_landmarks, content, changes):
    with pytest.raises(EngineError, match=r"landmarks\.onnx: its tensors are"):
        networks.load(with_landmarks(graph(*content), **changes), Config())
