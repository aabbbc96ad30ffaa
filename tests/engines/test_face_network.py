"""The face network computes what its author's own program computes."""

import cv2
import numpy as np
import pytest

from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.sources.archives import FACE_RESNET
from engines.sources.dlib_format import read_layers
from engines.sources.dlib_resnet import face_network

# What dlib 20.0.1's own `face_recognition_model_v1` makes of `drawing()`, scaled to length 1 (it was 1.3309523).
# fmt: off
FROM_DLIB = np.array([
    -0.030185, 0.084549, 0.054156, -0.023946, -0.076374, -0.025825, -0.029598, 0.016072,
    0.090100, -0.015880, 0.157463, -0.001025, -0.184659, 0.000721, 0.001723, 0.074436,
    -0.091313, -0.055715, -0.122232, -0.077177, 0.000452, 0.030292, -0.004240, 0.007021,
    -0.085086, -0.183794, -0.044689, -0.088630, 0.073946, -0.128483, 0.012556, 0.004695,
    -0.090318, -0.010664, 0.017976, 0.026001, -0.032581, -0.077446, 0.132431, -0.011491,
    -0.109942, -0.024914, 0.014271, 0.195657, 0.151199, 0.033071, 0.011966, -0.049907,
    0.074180, -0.228928, 0.036599, 0.107202, 0.023118, 0.095633, 0.096544, -0.148254,
    0.042768, 0.086435, -0.112762, 0.039360, 0.033037, -0.063813, -0.046290, -0.097682,
    0.141414, 0.040882, -0.072471, -0.082782, 0.108999, -0.124085, -0.014259, 0.087849,
    -0.058124, -0.119861, -0.161834, 0.070816, 0.284600, 0.173976, -0.110034, 0.022992,
    -0.043809, -0.009234, 0.020800, -0.004585, -0.081777, -0.029492, -0.068893, 0.042859,
    0.131369, -0.056824, 0.051006, 0.132373, -0.016048, 0.002090, -0.003350, -0.001571,
    -0.071873, 0.016265, -0.038924, 0.024689, 0.093654, -0.135378, 0.026003, 0.049045,
    -0.133551, 0.081313, -0.004001, -0.033441, 0.019960, 0.018839, -0.060135, -0.013133,
    0.174621, -0.200685, 0.190581, 0.161342, 0.011270, 0.090029, 0.032518, 0.114994,
    -0.034556, -0.030192, -0.090943, -0.055409, 0.000588, -0.012323, -0.033158, 0.014915,
])
# fmt: on


def drawing():
    """A picture that every machine draws alike, float arithmetic or not: uint8 BGR [150, 150, 3]."""
    y, x = np.mgrid[:150, :150]
    red, green, blue = (5 * x) ^ (3 * y), 255 * x // 149, (x * x + y * y) // 176
    return np.stack([blue, green, red], axis=-1).astype(np.uint8)


def forward(layers, chip):
    """The network once more, in plain NumPy and double precision, after dlib's documentation.

    Takes a chip uint8 BGR [150, 150, 3]; returns the feature map [64, 17, 17] and the embedding [128].
    """
    remaining = iter(layers)

    def convolve(x):
        convolution, affine = next(remaining), next(remaining)
        p = convolution.padding
        x = np.pad(x, ((0, 0), (p, p), (p, p)))
        side = convolution.weight.shape[-1]
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
        windows = windows[:, :: convolution.stride, :: convolution.stride]
        y = np.tensordot(convolution.weight.astype(np.float64), windows, ([1, 2, 3], [0, 3, 4]))
        y += convolution.bias[:, None, None]
        return y * affine.scale[:, None, None] + affine.shift[:, None, None]

    def pool(x, side, reduce):
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::2, ::2]
        return reduce(windows, axis=(3, 4))

    def add(a, b):
        total = np.zeros(np.maximum(a.shape, b.shape))
        for part in (a, b):
            total[: part.shape[0], : part.shape[1], : part.shape[2]] += part
        return total

    x = chip[:, :, ::-1].transpose(2, 0, 1).astype(np.float64)
    x = (x - np.array([122.782, 117.001, 104.298])[:, None, None]) / 256
    x = pool(np.maximum(convolve(x), 0), 3, np.max)
    features = None
    for count, halved in ((3, False), (4, True), (3, True), (3, True), (1, True)):
        for index in range(count):
            skip = pool(x, 2, np.mean) if halved and index == 0 else x
            x = np.maximum(add(convolve(np.maximum(convolve(x), 0)), skip), 0)
        if count == 4:
            features = x
    embedding = x.mean(axis=(1, 2)) @ next(remaining).weight.astype(np.float64)
    assert next(remaining, None) is None
    return features, embedding / np.linalg.norm(embedding)


@pytest.fixture(scope="module")
def layers(sources):
    return read_layers(sources[FACE_RESNET].read_bytes())


@pytest.fixture(scope="module")
def network(layers):
    return OnnxRuntimeEngine(face_network(layers), SessionSettings(threads=1, dims={"N": 1}))


@pytest.fixture(scope="module")
def face(samples):
    """A real face, about as a chip shows it."""
    photograph = cv2.imread(str(samples / "obama.jpg"))
    return cv2.resize(photograph[150:410, 360:620], (150, 150), interpolation=cv2.INTER_AREA)


def test_it_gives_dlibs_own_numbers(network):
    ours = network.run({"chip": drawing()[None]})["embedding"][0]
    assert np.abs(ours - FROM_DLIB).max() < 1e-5


@pytest.mark.parametrize("picture", ["drawing", "face"])
def test_it_agrees_with_a_plain_computation_of_the_same_layers(network, layers, picture, request):
    chip = drawing() if picture == "drawing" else request.getfixturevalue("face")
    features, embedding = forward(layers, chip)
    ours = network.run({"chip": chip[None]})
    assert np.abs(ours["embedding"][0] - embedding).max() < 1e-5
    assert np.abs(ours["features"][0] - features).max() < 1e-4 * np.abs(features).max()


def test_the_plain_computation_gives_dlibs_own_numbers_too(layers):
    assert np.abs(forward(layers, drawing())[1] - FROM_DLIB).max() < 1e-5


def test_an_embedding_has_length_one(network, face):
    for chip in (face, np.zeros_like(face), np.full_like(face, 255)):
        assert np.linalg.norm(network.run({"chip": chip[None]})["embedding"]) == pytest.approx(1, abs=1e-5)
