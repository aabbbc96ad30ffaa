"""A face is brought to the template whatever its place, size and tilt."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.perception.align import align, similarity

TEMPLATE = np.array([[46, 45], [102, 45], [74, 77], [49, 104], [99, 104]], np.float32)


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.05, 20),
    dx=st.floats(-500, 500),
    dy=st.floats(-500, 500),
)
def test_a_similarity_is_found_again_from_the_points_that_it_moved(angle, scale, dx, dy):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (TEMPLATE.astype(np.float64) @ turn.T + (dx, dy)).astype(np.float32)
    back = similarity(moved, TEMPLATE)
    assert np.allclose(moved @ back[:, :2].T + back[:, 2], TEMPLATE, atol=0.05)


def test_it_agrees_with_opencvs_estimate_on_noisy_points():
    rng = np.random.default_rng(1)
    points = TEMPLATE * 2.3 + rng.normal(0, 0.3, TEMPLATE.shape).astype(np.float32)
    expected, _ = cv2.estimateAffinePartial2D(points, TEMPLATE, method=cv2.LMEDS, refineIters=50)
    ours = similarity(points, TEMPLATE)
    assert np.allclose(ours, expected, atol=0.5)


def test_points_on_one_spot_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2), np.float32), TEMPLATE)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.1, 3.7, 9.0])
def test_the_chip_shows_the_same_face_at_every_size(scale):
    """A picture with marks at the template's points, scaled up, gives a chip with the marks at those points."""
    side = int(150 * scale)
    grid = np.zeros((side, side, 3), np.uint8)
    for x, y in TEMPLATE * scale:
        cv2.circle(grid, (int(x), int(y)), max(2, int(4 * scale)), (255, 255, 255), -1)
    chip = np.empty((150, 150, 3), np.uint8)
    align(grid, TEMPLATE * np.float32(scale), TEMPLATE, chip)
    for x, y in TEMPLATE.astype(int):
        assert chip[y, x].min() > 200
    marks = chip[:, :, 0] > 127
    count, _, _, centres = cv2.connectedComponentsWithStats(marks.astype(np.uint8))
    assert count == 6
    nearest = np.linalg.norm(centres[1:, None] - TEMPLATE[None], axis=2).min(axis=1)
    assert nearest.max() < 1.5


def test_a_face_that_hangs_over_the_edge_is_black_beyond_it():
    chip = np.full((150, 150, 3), 7, np.uint8)
    image = np.full((100, 100, 3), 200, np.uint8)
    align(image, TEMPLATE - np.float32([74, 0]), TEMPLATE, chip)
    assert chip[50, 30].max() == 0
    assert chip[50, 100].min() == 200
