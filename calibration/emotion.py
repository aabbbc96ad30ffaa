"""Expressions measured on FER2013, through the face network of a pack.

FER2013's images are crops of 48×48 pixels already, most of them too tight for a detector. So no face is looked for:
each is enlarged to the chip as ``calibration.fer2013`` says and given to the network.
"""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.perception.chain import Networks
from calibration.fer2013 import CHIP_SIDE, LABELS, to_chip
from calibration.metrics import Labels, classify
from engines.pack import Manifest, PackError


class ClassReport(Struct, frozen=True):
    """One expression: the share of its images that was found, the share of right ones among those so named, images."""

    recall: float
    precision: float
    samples: int


class EmotionReport(Struct, frozen=True, kw_only=True):
    """The report, as JSON shows it. Rates are shares, 0 to 1.

    Attributes:
        accuracy: share of images whose expression was named rightly.
        balanced_accuracy: mean recall of the expressions.
        per_class: each expression.
        labels: the expressions, in the order of ``confusion``.
        confusion: how often the row's expression was taken for the column's.
        samples: number of images.
    """

    accuracy: float
    balanced_accuracy: float
    per_class: dict[str, ClassReport]
    labels: tuple[str, ...]
    confusion: list[list[int]]
    samples: int


def predict(networks: Networks, images: NDArray[np.uint8]) -> Iterator[int]:
    """The expression of each image, as a number of FER2013.

    Args:
        networks: of the pack to measure.
        images: uint8 [n, 48, 48].

    Raises:
        PackError: the pack names other expressions than FER2013, or reads chips of another size.
    """
    check_measurable(networks.manifest)
    face = networks.manifest.face
    number = [LABELS.index(label) for label in face.labels]
    chip = networks.face.buffer("chip")[0]
    for image in images:
        chip[...] = to_chip(image)
        yield number[int(networks.face.run()["emotion"][0].argmax())]


def check_measurable(manifest: Manifest) -> None:
    """Raise PackError if the pack names other expressions than FER2013, or reads chips of another size."""
    face = manifest.face
    if set(face.labels) != set(LABELS) or face.side != CHIP_SIDE:
        raise PackError(
            f"pack {manifest.name} names {', '.join(face.labels)} on chips of {face.side} pixels; FER2013 can "
            f"measure only a pack that names {', '.join(LABELS)} on chips of {CHIP_SIDE}. Give another with --pack"
        )


def report(true: Labels, predicted: Labels) -> EmotionReport:
    """The figures of predicted labels, int64 [n], against the true ones."""
    result = classify(true, predicted, len(LABELS))
    rows = zip(
        result.recall.tolist(), result.precision.tolist(), result.confusion.sum(axis=1).tolist(), strict=True
    )
    return EmotionReport(
        accuracy=result.accuracy,
        balanced_accuracy=result.balanced_accuracy,
        per_class={label: ClassReport(*row) for label, row in zip(LABELS, rows, strict=True)},
        labels=LABELS,
        confusion=result.confusion.tolist(),
        samples=len(true),
    )
