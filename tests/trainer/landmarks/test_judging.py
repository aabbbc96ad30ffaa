"""Errors are counted as papers count them."""

import numpy as np
import pytest

from trainer.landmarks import judging

TRUE = np.array([[[0, 0], [40, 0], [20, 20], [5, 40], [35, 40]]] * 2, np.float32)


def test_errors_by_hand():
    found = TRUE.copy()
    found[0, 0] += (3, 4)  # 5 pixels of 40
    found[1, :] += (0, 8)  # a fifth of the distance between the eyes, all of them
    errors = judging.errors(found, TRUE)
    assert errors.each == pytest.approx(np.array([[0.125, 0, 0, 0, 0], [0.2] * 5]))
    assert errors.mean == pytest.approx((0.125 / 5 + 0.2) / 2)
    assert errors.by_point["left_eye"] == pytest.approx((0.125 + 0.2) / 2)
    assert errors.by_point["nose"] == pytest.approx(0.1)
    assert errors.failures == 0.5
    assert "mean error 11.25 % of the distance between the eyes" in errors.told()
    assert "above 10 % on 50.00 % of 2 faces" in errors.told()


def test_size_and_place_of_the_face_do_not_matter():
    rng = np.random.default_rng(0)
    found = TRUE + rng.normal(0, 2, TRUE.shape)
    one, other = judging.errors(found, TRUE), judging.errors(found * 3 + 50, TRUE * 3 + 50)
    assert other.each == pytest.approx(one.each)


def test_the_pictures_are_drawn(tmp_path):
    errors = judging.errors(TRUE + 1, TRUE)
    judging.cumulative({"some": errors}, tmp_path / "errors.png")
    judging.overview(np.zeros((2, 48, 48, 3), np.uint8), TRUE + 1, TRUE, tmp_path / "points.png")
    for name in ("errors.png", "points.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
