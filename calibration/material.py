"""Faces to calibrate on and faces to judge by, of different people: from photographs, or from FER2013.

A photograph goes the way that it goes in the car: find, align. Of several faces the one nearest the centre is taken.
Who is used to calibrate is never used to judge; both commands, ``int8`` and ``gate``, draw the same line:

- with a list of pairs, between the people of its first folds and those of the others;
- in a folder, by a digest of the name of each person's folder (of each file, where there are no folders);
- in FER2013, between its training split and its private test.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.config import Config
from agent.images import SUFFIXES, read_image
from agent.perception.align import align
from agent.perception.chain import FaceReader, Networks
from agent.perception.detector import fill, letterbox
from agent.perception.quality import QualityGate
from agent.perception.types import Image, Quality
from calibration.fer2013 import CHIP_SIDE, read_split, to_chip
from calibration.lfw import Pair, calibrates, central, check_photographs, person, photographs
from calibration.representative import choose
from engines.errors import UserError

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of it are done, and how many there are."""

_LEAST = 16  # faces; fewer say nothing about a network
_POOL = 10  # candidates looked at for each image chosen
_JUDGES = 1000  # photographs that judge where no pairs name them


class MaterialError(UserError):
    """There are no usable faces; the message names the folder or file and the remedy."""


@dataclass(frozen=True)
class Division:
    """Photographs on either side of the line, as paths below the root; and the pairs among those that judge."""

    root: Path
    calibrating: list[str]
    judging: list[str]
    pairs: list[Pair]


@dataclass(frozen=True)
class Faces:
    """Aligned faces.

    Attributes:
        chips: uint8 BGR [n, side, side, 3].
        traits: of each chip, as ``representative.choose`` wants them.
        photos: the photograph of each chip, as a path below the root; empty where they come from FER2013.
        without_face: photographs in which no face was found.
    """

    chips: NDArray[np.uint8]
    traits: dict[str, NDArray[np.float64]]
    photos: list[str]
    without_face: int = 0


def divide(root: Path, pairs: Sequence[Pair]) -> Division:
    """Draw the line through a folder of photographs.

    Raises:
        MaterialError: the folder does not exist or holds no photograph.
        LfwError: the pairs name a photograph that is not there.
    """
    if not root.is_dir():
        raise MaterialError(f"{root}: no such folder; name a folder of photographs, or fer2013.npz")
    if pairs:
        check_photographs(root, photographs(pairs))
        middle = (max(pair.fold for pair in pairs) + 1) // 2
        judging = [pair for pair in pairs if pair.fold >= middle]
        others = photographs(pair for pair in pairs if pair.fold < middle)
        return Division(root, others, photographs(judging), judging)
    files = sorted(
        file.relative_to(root).as_posix() for file in root.rglob("*") if file.suffix.lower() in SUFFIXES
    )
    if not files:
        raise MaterialError(
            f"{root}: holds no photograph ({', '.join(sorted(SUFFIXES))}); name another folder"
        )
    sides = [calibrates(person(file)) for file in files]
    first = [file for file, side in zip(files, sides, strict=True) if side]
    second = [file for file, side in zip(files, sides, strict=True) if not side]
    return Division(root, first, second, [])


def calibrating_faces(
    division: Division, config: Config, networks: Networks, count: int, seed: int, progress: Progress
) -> Faces:
    """Faces to choose ``count`` from.

    Raises:
        MaterialError: there are too few.
        ImageError: a photograph cannot be read.
    """
    files = some(division.calibrating, count * _POOL, seed)
    return _faces(division.root, files, config, networks, "faces to choose from", progress)


def judging_faces(division: Division, config: Config, networks: Networks, progress: Progress) -> Faces:
    """Faces to judge by: all that the pairs name, else a fixed sample.

    Raises:
        MaterialError: there are too few.
        ImageError: a photograph cannot be read.
    """
    files = division.judging if division.pairs else some(division.judging, _JUDGES, 0)
    return _faces(division.root, files, config, networks, "faces to judge by", progress)


def fer_faces(file: Path, split: str, most: int, seed: int) -> tuple[Faces, NDArray[np.int64]]:
    """At most so many faces of FER2013 with their labels, int64 [n].

    Their pose and size are not known: they are balanced over brightness and sharpness alone.

    Raises:
        Fer2013Error: the file is missing or is not FER2013.
    """
    images, labels = read_split(file, split)
    taken = np.sort(np.random.default_rng(seed).permutation(len(images))[:most])
    chips = np.stack([to_chip(image) for image in images[taken]])
    # No landmarks: the gate reads size and pose off a frontal face, and both are left out.
    gate = QualityGate(Config().quality, CHIP_SIDE)
    frontal = np.array([[47, 46], [101, 46], [74, 77], [50, 104], [98, 104]], np.float32)
    found = [gate.measure(chip, frontal, CHIP_SIDE) for chip in chips]
    traits = {
        "brightness": np.array([quality.brightness for quality in found]),
        "sharpness": np.array([quality.sharpness for quality in found]),
    }
    return Faces(chips, traits, []), labels[taken]


def scenes(
    division: Division, faces: Faces, chosen: NDArray[np.int64], size: tuple[int, int], most: int
) -> list[Image]:
    """The whole photographs behind some of the chosen faces, in the detector's input (width, height)."""
    few = choose({name: values[chosen] for name, values in faces.traits.items()}, most, 0)
    inputs = []
    for index in chosen[few]:
        image = read_image(division.root / faces.photos[index])
        target = np.empty((size[1], size[0], 3), np.uint8)
        fill(image, letterbox((image.shape[1], image.shape[0]), size), target)
        inputs.append(target)
    return inputs


def some(files: list[str], most: int, seed: int) -> list[str]:
    """At most so many of the files, the same ones for the same seed."""
    order = np.random.default_rng(seed).permutation(len(files))[:most]
    return [files[index] for index in sorted(order.tolist())]


def _faces(
    root: Path, files: list[str], config: Config, networks: Networks, what: str, progress: Progress
) -> Faces:
    reader = FaceReader(networks, config, time.perf_counter)
    face = networks.manifest.face
    template, gate = np.array(face.template, np.float32), QualityGate(config.quality, face.side)
    chips = np.empty((len(files), face.side, face.side, 3), np.uint8)
    found: list[Quality] = []
    photos: list[str] = []
    for index, file in enumerate(files):
        image = read_image(root / file)
        faces = reader.find(image)
        if faces:
            landmarks = central(image, faces).landmarks
            align(image, landmarks, template, chips[len(found)])
            found.append(gate.measure(chips[len(found)], landmarks, max(image.shape[:2])))
            photos.append(file)
        progress(what, index + 1, len(files))
    if len(found) < _LEAST:
        raise MaterialError(
            f"{root}: {len(found)} {what} in {len(files)} photographs; at least {_LEAST} are needed on either side, of "
            "different people. Name a folder with more photographs, a folder for each person"
        )
    traits = {
        "brightness": np.array([quality.brightness for quality in found]),
        "sharpness": np.array([quality.sharpness for quality in found]),
        "yaw": np.array([quality.pose.yaw for quality in found]),
        "size": np.array([quality.size for quality in found]),
    }
    return Faces(chips[: len(found)], traits, photos, len(files) - len(found))
