"""The gate before enrolment, on photographs of Labeled Faces in the Wild: bad ones are refused for the right reason.

The whole chain is run on each degraded photograph: the face is found anew, and then looked at. Three kinds of damage
are done to the photograph. For profiles there are too few in LFW, whose faces an upright frontal detector has found; so
frontal faces are laid over a model of a head and turned by 50 to 65 degrees to either side. What the gate knows of a
turn it must read off the landmarks that the detector finds in that picture.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent import networks
from agent.config import Config, Engine
from agent.images import read_image
from agent.perception.chain import FaceReader
from agent.perception.types import Detection, Float32, Image, Quality
from calibration.lfw import central

EACH = 50
Damage = Callable[[Image, Float32, random.Random], Image]


@pytest.fixture(scope="module")
def reader(pack) -> Iterator[FaceReader]:
    config = Config(engine=Engine(threads=1))
    loaded = networks.load(pack, config)
    yield FaceReader(loaded, config, time.perf_counter)
    loaded.close()


@pytest.fixture(scope="module")
def photographs(lfw: Path) -> list[Path]:
    files = sorted(lfw.rglob("*.jpg"))
    random.Random(2025).shuffle(files)  # noqa: S311 - the same ones each time
    return files


def look(reader: FaceReader, image: Image) -> tuple[Detection, Quality] | None:
    faces = reader.find(image)
    if not faces:
        return None
    face = central(image, faces)
    return face, reader.look(image, face).quality


def blurred(image: Image, _: Float32, chance: random.Random) -> Image:
    """As through a dirty lens: at 3 pixels the embedding's cosine to that of the photograph is 0.965 (median)."""
    return cv2.GaussianBlur(image, (0, 0), chance.uniform(2.5, 4.0))


def dark(image: Image, _: Float32, chance: random.Random) -> Image:
    """2 to 4 % of the light, and the noise of a sensor that has 0.4 % of its range as noise."""
    light = (image / 255.0) ** 2.2 * chance.uniform(0.02, 0.04)
    noisy = light + np.random.default_rng(chance.randrange(2**32)).normal(0, 0.004, image.shape)
    return (np.clip(noisy, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def tiny(image: Image, landmarks: Float32, chance: random.Random) -> Image:
    """Too few pixels between the eyes (8 to 14), or too small a share of a large picture (1.8 to 2.3 %)."""
    eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
    if chance.random() < 0.5:
        scale = chance.uniform(8, 14) / eyes
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    side = round(eyes / chance.uniform(0.018, 0.023))
    room = np.full((side * 3 // 4, side, 3), 110, np.uint8)
    top, left = (room.shape[0] - image.shape[0]) // 2, (side - image.shape[1]) // 2
    room[top : top + image.shape[0], left : left + image.shape[1]] = image
    return room


def profile(image: Image, landmarks: Float32, chance: random.Random) -> Image:
    """The face laid over an ellipsoid with a nose, and turned."""
    yaw = np.radians(chance.uniform(50, 65) * chance.choice([-1, 1]))
    scale = 2
    big = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    eyes = landmarks[:2] * scale
    pixels = float(np.hypot(*(eyes[1] - eyes[0]))) / 63  # a millimetre
    (cx, cy), (height, width) = eyes.mean(axis=0), big.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    across, down = (x - cx) / pixels, (y - cy) / pixels  # from between the eyes, millimetres
    inside = 1 - (across / 78) ** 2 - ((down - 25) / 125) ** 2
    slope = np.clip(down / 38, 0, 1) * np.clip((55 - down) / 15, 0, 1)
    towards = 95 * np.sqrt(np.clip(inside, 0, None)) + 22 * np.exp(-((across / 12) ** 2)) * slope
    head = inside > 0.02
    to = (across * np.cos(yaw) + (towards - 40) * np.sin(yaw))[head] * pixels + cx
    near = (towards * np.cos(yaw) - across * np.sin(yaw))[head]
    order = np.argsort(near, kind="stable")  # what is nearer is painted over what is farther
    column, row, colour = np.rint(to).astype(int)[order], y[head].astype(int)[order], big[head][order]
    kept = (column >= 0) & (column < width)
    painted, seen = np.zeros_like(big), np.zeros((height, width), np.uint8)
    painted[row[kept], column[kept]], seen[row[kept], column[kept]] = colour[kept], 1
    whole = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    painted = cv2.inpaint(painted, whole & (1 - seen), 3, cv2.INPAINT_TELEA)
    turned = np.where(whole[..., None] > 0, painted, cv2.GaussianBlur(big, (0, 0), 25))
    return cv2.resize(turned, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)


DAMAGES: dict[str, Damage] = {
    "blurred": blurred,
    "too_dark": dark,
    "too_small": tiny,
    "turned_away": profile,
}
"""By the code that is right for them."""


def told(reader: FaceReader, image: Image) -> tuple[str, ...]:
    found = look(reader, image)
    return ("no_face",) if found is None else found[1].reasons


def test_of_200_degraded_faces_at_most_one_in_twenty_is_not_refused_for_the_right_reason(reader, photographs):
    """Only photographs that pass themselves are damaged, and frontal ones turned.

    That no face was found is the right reason for a profile alone: what helps is the same, to look at the camera.
    """
    chance = random.Random(7)  # noqa: S311 - the same damage each time
    codes: dict[str, Counter[tuple[str, ...]]] = {code: Counter() for code in DAMAGES}
    for file in photographs[1000:]:
        image = read_image(file)
        sound = look(reader, image)
        for code, damage in DAMAGES.items():
            if codes[code].total() == EACH or sound is None or not sound[1].good:
                continue
            if damage is not profile or abs(sound[1].pose.yaw) < 12:
                codes[code][told(reader, damage(image, sound[0].landmarks, chance))] += 1
        if all(each.total() == EACH for each in codes.values()):
            break
    missed = sum(each[("no_face",)] for each in codes.values())
    wrong = sum(n for code, each in codes.items() for reasons, n in each.items() if code not in reasons)
    assert wrong - codes["turned_away"][("no_face",)] <= 10, codes
    assert missed <= 10, codes  # else this would be about the detector
    assert sum(each[()] for each in codes.values()) <= 4, codes  # let through as good


def test_of_photographs_as_they_come_at_most_one_in_twenty_is_refused(reader, photographs):
    """The first 200 of a shuffled list: nobody has picked out the good ones."""
    reasons = Counter(told(reader, read_image(file)) for file in photographs[:200])
    assert 200 - reasons[()] <= 10, reasons
