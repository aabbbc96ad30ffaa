"""What the evaluation is there to show: on faces of one expression alone, a naive method ruins the network."""

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
from calibration.baselines.catalogue import Catalogue
from calibration.baselines.method import BLOCK, Source
from calibration.fer2013 import read_split, to_chip
from calibration.streams.faces import evenly


def test_tent_collapses_where_one_label_stays_and_the_frozen_source_does_not(shared_data, pack):
    images, labels = read_split(shared_data / "fer2013.npz", "validation")
    angry = images[labels == 0][:96]
    stream = np.stack([to_chip(image) for image in angry])
    known = np.stack([to_chip(image) for image in images[evenly(len(images), 48)]])
    catalogue = Catalogue(Source(onnx.load(str(pack.face)), known), 7)

    def right(name: str) -> np.ndarray:
        method = catalogue.make(name, seed=0)
        blocks = [stream[start : start + BLOCK] for start in range(0, len(stream), BLOCK)]
        nowhere = np.zeros(BLOCK, np.int64), np.zeros(BLOCK)
        return np.concatenate([method.step(block, *nowhere)[0].argmax(1) for block in blocks]) == 0

    frozen, tent = right("frozen"), right("tent")
    assert (tent[:32] == frozen[:32]).all()  # nothing has been learnt yet
    assert frozen[32:].mean() > 0.5
    assert tent[32:].mean() < frozen[32:].mean() - 0.3
