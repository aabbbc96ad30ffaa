"""What calibration is tested on without a data set: frames of the sample clip and photographs."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.gallery.types import Sample
from agent.perception.types import Pose, Quality
from calibration.openset import Looks, labelled


@pytest.fixture(scope="session")
def photographs(samples, tmp_path_factory) -> Path:
    """A folder for each of three people: on either side of the line that divides calibrating from judging."""
    folder = tmp_path_factory.mktemp("photographs")
    clip = cv2.VideoCapture(str(samples / "carphone_pristine.mp4"))
    frames = [clip.read()[1] for _ in range(60)]
    clip.release()
    people = {
        "driver": frames[::2],
        "barack": _varied(samples / "obama.jpg", 14) + _varied(samples / "obama2.jpg", 14),
        "joe": _varied(samples / "biden.jpg", 14),
    }
    for person, images in people.items():
        (folder / person).mkdir()
        for index, image in enumerate(images):
            cv2.imwrite(str(folder / person / f"{index:02d}.png"), image)
    return folder


def _varied(file: Path, count: int) -> list[np.ndarray]:
    """One photograph in several sizes and lights."""
    image = cv2.imread(str(file))
    scale = 400 / image.shape[1]
    return [
        np.clip(cv2.resize(image, None, fx=scale * size, fy=scale * size) * light, 0, 255).astype(np.uint8)
        for size, light in zip(np.linspace(0.5, 1, count), np.linspace(1.2, 0.5, count), strict=True)
    ]


@pytest.fixture(scope="session")
def crowd():
    """Makes looks at made-up people; ``images`` says how many there are of each."""

    def make(
        people: int, images: Callable[[int], int], spread: float = 0.5, seed: int = 0, dim: int = 24
    ) -> Looks:
        rng = np.random.default_rng(seed)
        fair = Quality(50, 50, 120, 50, Pose(0, 0, 0))
        found = []
        for who in range(people):
            centre = rng.normal(size=dim)
            for _ in range(images(who)):
                row = centre + rng.normal(0, spread, dim)
                found.append((f"{who:03d}", Sample((row / np.linalg.norm(row)).astype(np.float32), fair)))
        return labelled(found)

    return make
