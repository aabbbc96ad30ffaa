"""The trunk is found in the network that the agent runs, not only in a file made for training."""

import numpy as np
import onnx
import onnxruntime as ort

from trainer.features import cut


def test_the_features_can_be_cut_out_of_the_packs_network(pack, sources):
    from engines.sources import archives
    from engines.sources.dlib_format import read_layers
    from engines.sources.dlib_resnet import face_network

    chip = np.random.default_rng(0).integers(0, 256, (1, 150, 150, 3), dtype=np.uint8)
    trunk = face_network(read_layers(sources[archives.FACE_RESNET].read_bytes()))
    expected, found = (
        ort.InferenceSession(cut(model, "features").SerializeToString()).run(["features"], {"chip": chip})[0]
        for model in (trunk, onnx.load(pack.face))
    )
    assert found.shape == (1, 64, 17, 17)
    assert np.array_equal(found, expected)
