"""From data sets to a bench: the faces of a task, and the clean ones that methods may know the source by."""

from pathlib import Path

import numpy as np
import onnx

from agent.perception.chain import FaceReader
from calibration.baselines.method import Source
from calibration.emotion import check_measurable
from calibration.fer2013 import read_split, to_chip
from calibration.lfw import check_photographs, photographs, read_pairs
from calibration.material import Progress
from calibration.streams.cells import ExpressionBench, PeopleBench
from calibration.streams.faces import Expressions, People, evenly, find_landmarks, some_pairs
from engines.errors import UserError
from engines.pack import Manifest

SOURCE_CHIPS = 256
"""Clean faces by which methods know the source: its statistics and what matters in it."""
FEWEST_PAIRS = 10
"""Pairs of one person, and pairs of strangers, without which nothing is measured."""
_FER_SPLITS = {"tune": "validation", "report": "test"}


class MaterialError(UserError):
    """Too little is left to measure anything by; the message says what and the remedy."""


def expressions(
    npz: Path,
    split: str,
    limit: int,
    model: onnx.ModelProto,
    manifest: Manifest,
    threads: int,
    batchwise: bool,
) -> tuple[Source, ExpressionBench]:
    """FER2013's public test to tune on, its private test to report on; its training split is the source.

    Raises:
        Fer2013Error: the file is missing or is not FER2013.
        PackError: the pack names other expressions, or reads chips of another size.
    """
    check_measurable(manifest)
    face = manifest.face
    faces = Expressions(npz, _FER_SPLITS[split], limit, face.labels)
    images, _ = read_split(npz, "train")
    known = np.stack([to_chip(image) for image in images[evenly(len(images), SOURCE_CHIPS)]])
    source = Source(model, known, threads=threads, batchwise=batchwise)
    return source, ExpressionBench(faces, source, face.labels.index("neutral"))


def people(
    root: Path,
    split: str,
    limit: int,
    model: onnx.ModelProto,
    reader: FaceReader,
    threads: int,
    batchwise: bool,
    show_done: Progress,
) -> tuple[Source, PeopleBench]:
    """LFW's pairs: the first half of the folds to tune on, the second to report on; what was enrolled is the source.

    Args:
        root: LFW's folder, with ``pairs.txt`` in it.
        split: ``tune`` or ``report``.
        limit: pairs at most, evenly drawn; 0: all.
        model: the face network.
        reader: finds the faces, and knows the pack.
        threads: of a run of the network.
        batchwise: see ``Source``.
        show_done: told of photographs.

    Raises:
        MaterialError: there are too few pairs.
        LfwError: the pairs cannot be read, or a photograph is missing.
        ImageError: a photograph cannot be read.
    """
    listed = read_pairs(root / "pairs.txt")
    folds = sorted({pair.fold for pair in listed})
    middle = (len(folds) + 1) // 2
    inside = folds[:middle] if split == "tune" else folds[middle:]
    pairs = some_pairs(listed, inside, limit)
    photos = photographs(pairs)
    check_photographs(root, photos)
    found = {}
    for index, (photo, landmarks) in enumerate(find_landmarks(reader, root, photos)):
        if landmarks is not None:
            found[photo] = landmarks
        show_done("photographs", index + 1, len(photos))
    face = reader.networks.manifest.face
    faces = People(root, pairs, np.array(face.template, np.float32), face.side, found)
    least = min(int(faces.genuine.sum()), int((~faces.genuine).sum()))
    if least < FEWEST_PAIRS:
        raise MaterialError(
            f"{least} pairs of one person or of strangers; at least {FEWEST_PAIRS} of each are needed: raise --limit"
        )
    known = np.stack([faces.enrolled(int(item)) for item in evenly(len(faces.pairs), SOURCE_CHIPS)])
    source = Source(model, known, identity=True, threads=threads, batchwise=batchwise)
    return source, PeopleBench(faces, source, show_done)
