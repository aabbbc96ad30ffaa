"""The detector computes what the published file computes in OpenCV's own runtime."""

import cv2
import numpy as np
import onnx
import pytest

from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.sources import centerface
from engines.sources.archives import CENTERFACE

PUBLISHED_OUTPUTS = {"heatmap": "537", "scale": "538", "offset": "539", "landmarks": "540"}


@pytest.mark.parametrize(("width", "height"), [(320, 256), (96, 160), (32, 32)])
def test_maps_are_those_of_the_published_file(sources, samples, width, height):
    published = onnx.load(str(sources[CENTERFACE]))
    engine = OnnxRuntimeEngine(
        centerface.detector(published), SessionSettings(threads=1, dims={"H": height, "W": width})
    )
    image = cv2.resize(cv2.imread(str(samples / "biden.jpg")), (width, height), interpolation=cv2.INTER_AREA)
    ours = engine.run({"image": image[None]})

    opencv = cv2.dnn.readNetFromONNX(str(sources[CENTERFACE]))
    opencv.setInput(cv2.dnn.blobFromImage(image, swapRB=True))
    theirs = opencv.forward(list(PUBLISHED_OUTPUTS.values()))
    for name, expected in zip(PUBLISHED_OUTPUTS, theirs, strict=True):
        assert ours[name].shape == expected.shape == (1, expected.shape[1], height // 4, width // 4)
        assert np.abs(ours[name] - expected).max() < 1e-4, name


def test_another_model_is_refused(sources):
    published = onnx.load(str(sources[CENTERFACE]))
    published.graph.output[0].name = "boxes"
    with pytest.raises(ValueError, match="not the published CenterFace"):
        centerface.detector(published)
