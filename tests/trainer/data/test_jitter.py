"""A chip that was turned, scaled, shifted or mirrored has its points where the face is."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.faces import square
from trainer.data.jitter import MIRRORED, Chips, Jitter, composed, draw_jitter, moved
from trainer.data.landmarks import Marked

POINTS = np.array([[60, 50], [100, 48], [82, 70], [64, 92], [98, 90]], np.float32)
BOX = (40.0, 20.0, 120.0, 130.0)
ONLY_FLIPPED = Jitter(rotation=0, scale=0, shift=0, flip=1)
FREE = st.floats(0, 0.5)


@pytest.fixture
def marked(tmp_path):
    """A face made of five dots, each of a grey of its own, red on the left and blue on the right of the picture."""
    image = np.zeros((150, 160, 3), np.uint8)
    image[:, :80, 2] = 60
    image[:, 80:, 0] = 60
    for number, (x, y) in enumerate(POINTS.astype(int)):
        cv2.circle(image, (int(x), int(y)), 3, (0, 105 + 30 * number, 0), -1)
    (tmp_path / "dots").mkdir()
    cv2.imwrite(str(tmp_path / "dots" / "1.png"), image)
    return Marked(tmp_path, ("dots/1.png",), np.array([BOX], np.float32), POINTS[None])


def chips(marked, jitter, side=96, seed=1):
    return Chips(marked, side, 0.2, jitter=jitter, seed=seed, limit=0)


def greens(image, points):
    """The green under each point of a chip uint8 [3, side, side]."""
    return [int(image[1, round(float(y)), round(float(x))]) for x, y in points]


def test_a_chip_shows_the_square_about_the_box(marked):
    image, points = chips(marked, None)[0]
    assert image.shape == (3, 96, 96)
    # The longer side of the box, 110 pixels, with a fifth of it on either side, comes to 96 pixels, middle to middle.
    expected = (POINTS - (80, 75)) * (96 / (110 * 1.4)) + 47.5
    assert np.allclose(points, expected, atol=1e-4)
    assert greens(image, points) == pytest.approx([105, 135, 165, 195, 225], abs=12)
    assert image[0, 10, 40] > 40 > image[2, 10, 40]  # RGB: the left of the picture is red


def test_a_mirror_image_swaps_left_and_right(marked):
    (plain, points), (mirrored, swapped) = (chips(marked, each)[0] for each in (None, ONLY_FLIPPED))
    x, y = points.T
    by_hand = [
        [95 - x[1], y[1]],
        [95 - x[0], y[0]],
        [95 - x[2], y[2]],
        [95 - x[4], y[4]],
        [95 - x[3], y[3]],
    ]
    assert np.allclose(swapped, by_hand, atol=1e-3)
    assert np.abs(mirrored.numpy()[:, :, ::-1].astype(int) - plain.numpy()).max() <= 2
    assert greens(mirrored, swapped) == pytest.approx([135, 105, 165, 225, 195], abs=12)
    assert swapped[0, 0] < swapped[1, 0]  # the left eye is still the one on the left
    assert [MIRRORED[place] for place in MIRRORED] == list(range(5))


@given(rotation=st.floats(0, 180), scale=FREE, shift=FREE, flip=st.booleans(), seed=st.integers(0, 10**6))
def test_points_come_back_by_the_inverse(rotation, scale, shift, flip, seed):
    jitter = Jitter(rotation=rotation, scale=scale, shift=shift, flip=float(flip))
    matrix, mirrored = draw_jitter(jitter, 96, np.random.default_rng(seed))
    assert mirrored == flip
    assert (np.linalg.det(matrix[:, :2]) < 0) == flip
    there = moved(POINTS, matrix)
    assert np.allclose(moved(there, cv2.invertAffineTransform(matrix)), POINTS, atol=1e-6)
    # A similarity: all distances grow alike, within what was allowed.
    grown = np.linalg.norm(there[1:] - there[0], axis=1) / np.linalg.norm(POINTS[1:] - POINTS[0], axis=1)
    assert np.allclose(grown, grown[0])
    assert abs(grown[0] - 1) <= scale + 1e-6
    middle = moved(np.full((1, 2), 47.5), matrix)[0]
    assert np.abs(middle - 47.5).max() <= shift * 96 + 1e-6
    both = composed(matrix, square(BOX, 0.2, 96))
    assert np.allclose(moved(POINTS, both), moved(moved(POINTS, square(BOX, 0.2, 96)), matrix), atol=1e-4)


def test_every_jittered_chip_has_its_points_on_the_dots(marked):
    jittered = chips(marked, Jitter())
    seen = []
    for index in range(30):
        image, points = jittered[index]
        mirrored = greens(image, points)[0] > greens(image, points)[1]
        seen.append((mirrored, tuple(points.flatten().tolist())))
        expected = np.array([105, 135, 165, 195, 225])[list(MIRRORED) if mirrored else slice(None)]
        assert greens(image, points) == pytest.approx(expected.tolist(), abs=25)
    assert len({points for _, points in seen}) == 30
    assert 5 < sum(mirrored for mirrored, _ in seen) < 25


def test_an_item_follows_from_seed_and_index(marked):
    one, same, other = (chips(marked, Jitter(), seed=seed) for seed in (1, 1, 2))
    assert (one[7][0] == same[7][0]).all()
    assert (one[7][1] == same[7][1]).all()
    assert not (one[7][1] == other[7][1]).all()
