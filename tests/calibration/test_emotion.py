import dataclasses

import msgspec
import numpy as np
import pytest

from agent.config import Config
from agent.networks import load
from calibration.emotion import predict, report
from calibration.fer2013 import LABELS, to_chip
from engines.pack import PackError


@pytest.fixture
def networks(pack):
    loaded = load(pack, Config())
    yield loaded
    loaded.close()


def test_an_image_is_named_as_the_face_network_names_its_chip(networks):
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)
    labels = networks.manifest.face.labels
    for image, number in zip(images, predict(networks, images), strict=True):
        logits = networks.face.run({"chip": to_chip(image)[None]})["emotion"][0]
        assert LABELS[number] == labels[int(logits.argmax())]


def test_a_pack_may_list_the_expressions_in_another_order(networks):
    images = np.random.default_rng(1).integers(0, 256, (2, 48, 48), np.uint8)
    turned = with_face(networks, labels=networks.manifest.face.labels[::-1])
    as_shipped, as_turned = list(predict(networks, images)), list(predict(turned, images))
    shipped = networks.manifest.face.labels
    assert [LABELS[n] for n in as_turned] == [shipped[6 - shipped.index(LABELS[n])] for n in as_shipped]


@pytest.mark.parametrize("other", [{"labels": ("calm", "angry")}, {"side": 112}])
def test_a_pack_that_fer2013_cannot_measure_is_refused(networks, other):
    with pytest.raises(PackError, match="FER2013 can measure only"):
        next(predict(with_face(networks, **other), np.zeros((1, 48, 48), np.uint8)))


def with_face(networks, **changes):
    """The same networks under a manifest with another face model."""
    manifest = networks.manifest
    changed = msgspec.structs.replace(manifest, face=msgspec.structs.replace(manifest.face, **changes))
    return dataclasses.replace(networks, manifest=changed)


def test_the_report_of_three_answers():
    figures = msgspec.json.decode(msgspec.json.encode(report(np.array([0, 3, 3]), np.array([0, 3, 6]))))
    assert figures["samples"] == 3
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["balanced_accuracy"] == pytest.approx(0.75)
    assert figures["per_class"]["happy"] == {"recall": 0.5, "precision": 1.0, "samples": 2}
    assert figures["confusion"][3] == [0, 0, 0, 1, 0, 0, 1]
    assert figures["labels"] == list(LABELS)
