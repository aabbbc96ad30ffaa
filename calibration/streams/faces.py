"""The faces of a stream as chips, clean or spoiled.

An expression comes from FER2013: its image enlarged to the chip is what the camera saw, eyes 53 pixels apart, and is
spoiled as such. (On the 48 pixels themselves no corruption could be told from another by its size.) The image is grey,
the camera is not: its noise has colours.

A person comes from LFW: the photograph is spoiled, then aligned by the landmarks that were found in it clean. Finding
faces in bad light is the detector's business, and no norm layer of the face network can help it. The same chips, so the
same network, answer for every method.

Nothing is kept on disk.
"""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.images import read_image
from agent.perception.align import align
from agent.perception.chain import FaceReader
from agent.perception.types import Float32, Image
from calibration.corruptions import corrupt
from calibration.fer2013 import LABELS, read_split, to_chip
from calibration.lfw import Pair, central, person
from calibration.metrics import Labels, Mask
from calibration.streams.orders import CLEAN, Frame

_FER_LANDMARKS = np.array(
    [[47.5, 46.6], [100.5, 46.6], [74.0, 76.6], [50.4, 103.0], [97.6, 103.0]], np.float32
)  # where ``fer2013.CHIP_FROM_IMAGE`` brings the typical face

Chips = NDArray[np.uint8]


class Faces(Protocol):
    """Material for streams.

    Attributes:
        labels: int64 [n]: by what sorted streams are sorted.
    """

    labels: Labels

    def chip(self, item: int, shift: str, severity: int, seed: int, key: str) -> Image:
        """A face as uint8 BGR [side, side, 3], spoiled where there is a severity."""
        ...


def rendered(faces: Faces, frames: Sequence[Frame], shift: str, seed: int) -> Chips:
    """The chips of some frames, uint8 [n, side, side, 3]; the same for the same seed."""
    chips = []
    for frame in frames:
        key = f"{frame.item}:{frame.version}:{frame.part}"
        chip = faces.chip(frame.item, shift, frame.severity, seed, key)
        chips.append(moved(chip, seed, key) if frame.version else chip)
    return np.stack(chips)


def moved(chip: Image, seed: int, key: str) -> Image:
    """The chip a moment later: landmarks jitter by a pixel or two, the exposure breathes, the sensor makes noise."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    side = chip.shape[0]
    angle, scale = float(rng.normal(0, 1.0)), float(rng.normal(1, 0.01))
    turn = np.array(cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale), np.float64)
    turn[:, 2:] += rng.normal(0, 1.0, (2, 1))
    shown = cv2.warpAffine(chip, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    noisy = shown * rng.normal(1, 0.03) + rng.normal(0, 2.0, chip.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of ``count`` things, spread evenly; 0 is all."""
    if not most or most >= count:
        return np.arange(count)
    return np.asarray(np.linspace(0, count - 1, most).round(), np.int64)


class Expressions:
    """FER2013.

    Attributes:
        labels: int64 [n], in the pack's order of expressions.
    """

    def __init__(self, npz: Path, split: str, limit: int, order: Sequence[str]) -> None:
        """Read a split.

        Args:
            npz: FER2013.
            split: of it.
            limit: faces at most, evenly drawn; 0: all.
            order: the pack's expressions.

        Raises:
            Fer2013Error: the file is missing or is not FER2013.
        """
        images, labels = read_split(npz, split)
        taken = evenly(len(images), limit)
        self._images = images[taken]
        self.labels = np.array([order.index(name) for name in LABELS], np.int64)[labels[taken]]

    def chip(self, item: int, shift: str, severity: int, seed: int, key: str) -> Image:
        """See ``Faces.chip``."""
        chip = to_chip(self._images[item])
        return corrupt(chip, shift, severity, seed, key, _FER_LANDMARKS) if severity else chip

    def clean(self) -> Chips:
        """All faces, clean: uint8 [n, side, side, 3]."""
        return np.stack([to_chip(image) for image in self._images])


class People:
    """Pairs of LFW. The first photograph of each is what was enrolled, the second is what the stream shows.

    Attributes:
        pairs: those whose photographs both show a face; the stream's item is a number of them.
        labels: int64 [n]: who is on the second photograph.
        genuine: bool [n].
        undetected: pairs left out, because no face was found in one of their photographs.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[Pair],
        template: Float32,
        side: int,
        landmarks: dict[str, Float32],
    ) -> None:
        """Take in pairs.

        Args:
            root: folder of the people's folders.
            pairs: to be measured.
            template: float32 [5, 2] of the pack.
            side: of a chip.
            landmarks: of every photograph in which a face was found.
        """
        self.pairs = [pair for pair in pairs if {pair.first, pair.second} <= landmarks.keys()]
        self.undetected = len(pairs) - len(self.pairs)
        names = sorted({person(pair.second) for pair in self.pairs})
        number = {name: index for index, name in enumerate(names)}
        self.labels = np.array([number[person(pair.second)] for pair in self.pairs], np.int64)
        self.genuine: Mask = np.array([pair.genuine for pair in self.pairs])
        self._root, self._template, self._side = root, template, side
        self._landmarks = landmarks

    def chip(self, item: int, shift: str, severity: int, seed: int, key: str) -> Image:
        """See ``Faces.chip``."""
        return self._chip(self.pairs[item].second, shift, severity, seed, key)

    def enrolled(self, item: int) -> Image:
        """The clean chip of the first photograph of a pair."""
        return self._chip(self.pairs[item].first, CLEAN, 0, 0, "")

    def _chip(self, photo: str, shift: str, severity: int, seed: int, key: str) -> Image:
        image, landmarks = read_image(self._root / photo), self._landmarks[photo]
        if severity:
            image = corrupt(image, shift, severity, seed, key, landmarks)
        chip = np.empty((self._side, self._side, 3), np.uint8)
        align(image, landmarks, self._template, chip)
        return chip


def some_pairs(pairs: Iterable[Pair], folds: Sequence[int], limit: int) -> list[Pair]:
    """At most so many pairs of these folds, evenly drawn from genuine ones and from impostors; 0: all."""
    inside = [pair for pair in pairs if pair.fold in folds]
    kinds = [[pair for pair in inside if pair.genuine == genuine] for genuine in (True, False)]
    half = (limit + 1) // 2
    return [kind[index] for kind in kinds for index in evenly(len(kind), half)]


def find_landmarks(
    reader: FaceReader, root: Path, photos: Iterable[str]
) -> Iterable[tuple[str, Float32 | None]]:
    """Each photograph with the landmarks of its subject, float32 [5, 2]; None where no face is found."""
    for photo in photos:
        image = read_image(root / photo)
        faces = reader.find(image)
        yield photo, central(image, faces).landmarks if faces else None
