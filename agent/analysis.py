"""What a single image shows, as the JSON of ``cabinsense analyze``."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import UNSET, Struct, UnsetType

from agent.events import Pose, QualityReport
from agent.images import SUFFIXES, ImageError, read_image
from agent.perception.chain import FaceReader, Look
from agent.perception.types import Detection, Float32
from agent.perception.vote import softmax
from agent.publishing import pose_report, quality_report


class EmotionReport(Struct, frozen=True):
    """The most probable expression, and the probability of each."""

    label: str
    probabilities: dict[str, float]


class FaceReport(Struct, frozen=True, kw_only=True):
    """One face, in pixels of the upright image.

    Attributes:
        box: x1, y1, x2, y2.
        score: the detector's confidence, 0 to 1.
        landmarks: left eye, right eye, nose tip, left and right corner of the mouth, as seen.
        quality: how fit the face is for recognition.
        emotion: the expression.
        pose: head pose, degrees.
        embedding: of length 1, each number in the fewest digits that give back the float32; only where asked for.
    """

    box: tuple[float, ...]
    score: float
    landmarks: tuple[tuple[float, ...], ...]
    quality: QualityReport
    emotion: EmotionReport
    pose: Pose
    embedding: tuple[float, ...] | UnsetType = UNSET


class ImageReport(Struct, frozen=True):
    """An image with its faces, largest first."""

    path: str
    faces: tuple[FaceReport, ...]


class Failure(Struct, frozen=True):
    """An image that could not be read, and why."""

    path: str
    error: str


def analyze(reader: FaceReader, paths: Iterable[Path], *, embedding: bool) -> Iterator[ImageReport | Failure]:
    """What each image shows; an unreadable one does not stop the others.

    Args:
        reader: finds and looks at faces.
        paths: image files; of a folder, the images right inside it are taken, sorted by name.
        embedding: report embeddings too. They are biometric data.
    """
    for path in paths:
        try:
            files = _images(path) if path.is_dir() else [path]
        except OSError as error:
            yield _failure(path, f"{path}: {error.strerror}")
            continue
        if not files:
            yield _failure(path, f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
        for file in files:
            yield _image(reader, file, embedding=embedding)


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def _failure(path: Path, message: str) -> Failure:
    return Failure(_text(path), _text(message))


def _image(reader: FaceReader, file: Path, *, embedding: bool) -> ImageReport | Failure:
    try:
        image = read_image(file)
    except ImageError as error:
        return _failure(file, str(error))
    labels = reader.networks.manifest.face.labels
    faces = [(detection, reader.look(image, detection)) for detection in reader.find(image)]
    return ImageReport(
        _text(file),
        tuple(_face(detection, look, labels, embedding=embedding) for detection, look in faces),
    )


def _face(detection: Detection, look: Look, labels: tuple[str, ...], *, embedding: bool) -> FaceReport:
    probabilities = softmax(look.logits)
    return FaceReport(
        box=tuple(round(edge, 2) for edge in detection.box),
        score=round(detection.score, 4),
        landmarks=tuple((round(x, 2), round(y, 2)) for x, y in detection.landmarks.tolist()),
        quality=quality_report(look.quality),
        emotion=EmotionReport(
            labels[int(probabilities.argmax())],
            {label: round(p, 4) for label, p in zip(labels, probabilities.tolist(), strict=True)},
        ),
        pose=pose_report(look.quality),
        embedding=_shortest(look.embedding) if embedding else UNSET,
    )


def _shortest(values: Float32) -> tuple[float, ...]:
    """Each value in the fewest digits that give back the same float32: half as long as in float64's."""
    return tuple(float(str(value)) for value in values)


def _text(name: Path | str) -> str:
    """A path, or words that hold one, as valid Unicode: a file's name may be any bytes, JSON's text may not."""
    return os.fsencode(name).decode("utf-8", "replace")
