"""What the configuration asks for runs the models, or is refused with a reason, or is replaced and says so."""

import logging
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import onnxruntime
import pytest

from agent import networks
from agent.config import Config, ConfigError, parse
from agent.perception.chain import FaceReader
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine

PACKAGES = {"openvino": "openvino", "litert": "ai_edge_litert"}


def configured(text: str = "") -> Config:
    return parse(f"[engine]\n{text}".encode(), "test.toml")


@pytest.fixture
def without_cuda():
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows CUDA")


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_backend_finds_the_same_face_and_sees_the_same_in_it(backend, pack, samples):
    if find_spec(PACKAGES[backend]) is None:
        pytest.skip(f"the extra {backend} is not installed")
    image = cv2.imread(str(samples / "obama.jpg"))
    looks = []
    for text in ("", f'backend = "{backend}"'):
        config = configured(text)
        loaded = networks.load(pack, config, gated=False)
        reader = FaceReader(loaded, config, lambda: 0.0)
        (detection,) = reader.find(image)
        looks.append((detection, reader.look(image, detection), type(loaded.face)))
        assert loaded.notes == ()
        loaded.close()
    (plain, look, kind), (detection, other, other_kind) = looks
    assert kind is OnnxRuntimeEngine
    assert other_kind is not kind
    assert np.allclose(detection.box, plain.box, atol=0.05)
    assert np.allclose(detection.landmarks, plain.landmarks, atol=0.05)
    assert float(look.embedding @ other.embedding) > 1 - 1e-5
    assert np.allclose(look.logits, other.logits, atol=0.01)


def test_a_provider_that_is_not_there_is_refused_with_what_is(pack, without_cuda):
    with pytest.raises(EngineError, match="has no provider cuda, only cpu; install onnxruntime-gpu"):
        networks.load(pack, configured('providers = ["cuda"]'))
    with pytest.raises(EngineError, match="no provider cuda"):  # asked for first, so it must be there
        networks.load(pack, configured('providers = ["cuda", "cpu"]'))


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_backend_that_is_not_installed_is_refused_with_what_to_install(backend, pack, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == PACKAGES[backend] or name.startswith(f"engines.{backend}"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(
        sys.modules, PACKAGES[backend], None
    )  # what an import meets where the package is absent
    with pytest.raises(EngineError, match=rf"pip install 'cabinsense\[{backend}\]'"):
        networks.load(pack, configured(f'backend = "{backend}"'))


def test_where_it_may_the_processor_takes_over_and_says_so(pack, without_cuda, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = networks.load(pack, configured('providers = ["cuda"]\nfallback = true'))
    (note,) = loaded.notes
    assert "run on ONNX Runtime and the processor" in note
    assert "no provider cuda" in note
    assert note in caplog.text
    assert np.isfinite(loaded.face.run()["embedding"]).all()


def test_a_damaged_model_is_no_reason_to_fall_back(pack, tmp_path):
    for name in ("detector.onnx", "face.onnx", "pack.toml"):
        (tmp_path / name).write_bytes((pack.path / name).read_bytes()[:-100])
    broken = type(pack)(tmp_path, pack.manifest)
    with pytest.raises(EngineError):
        networks.load(broken, configured('providers = ["cuda"]\nfallback = true'))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('backend = "caffe"', "caffe"),
        ('providers = ["gpu"]', "gpu"),
        ("providers = []", "engine.providers"),
        ('providers = "cuda"', "engine.providers"),
    ],
)
def test_what_no_engine_could_mean_is_refused_in_the_configuration(text, told):
    with pytest.raises(ConfigError, match=told):
        configured(text)
