"""A camera that cannot see anybody must not be taken for a camera that sees nobody."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.images import read_image
from agent.perception.scene import SceneWatch, Sight, sight

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cabin(samples) -> np.ndarray:
    """A man before a background, as a camera in a car might see him."""
    return cv2.resize(read_image(samples / "obama.jpg"), (320, 240))


def lit(image: np.ndarray, light: float, noise: float = 2.0) -> np.ndarray:
    """The picture with so much of its light, and the noise of a sensor."""
    return np.clip(image * light + RNG.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def flat(level: float, noise: float = 2.0) -> np.ndarray:
    return lit(np.full((240, 320, 3), level), 1.0, noise)


def watched(*pictures: tuple[np.ndarray, float], frozen_s: float = 5.0) -> list[str]:
    """The views of a camera that shows each picture for so many seconds, ten a second, with a little noise."""
    watch, views, now = SceneWatch(frozen_s), [], 0.0
    for picture, seconds in pictures:
        for _ in range(round(10 * seconds)):
            views.append(watch.look(lit(picture, 1.0), now).view)
            now += 0.1
    return views


def look(image: np.ndarray) -> Sight:
    return sight(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def test_an_ordinary_picture_is_clear_and_well_exposed(cabin):
    assert look(lit(cabin, 1.0)) == Sight("clear", None)


@pytest.mark.parametrize(
    "picture",
    [flat(0, 0), flat(3, 1), flat(8, 8), flat(25, 20), flat(120), flat(180, 10)],
    ids=["black", "nearly black", "noise", "amplified noise", "a sticker", "a bright sticker"],
)
def test_where_nothing_is_to_be_seen_the_lens_is_covered(picture):
    assert look(picture).view == "covered"


def test_night_is_dark_and_not_a_covered_lens(cabin):
    assert look(lit(cabin, 0.12)) == Sight("dark", "raise")


def test_a_picture_full_of_light_is_glare(cabin):
    assert look(lit(cabin, 12.0)) == Sight("glare", "lower")
    assert look(flat(250)) == Sight("glare", "lower")


def test_before_faces_are_missed_the_camera_may_be_told_to_expose_otherwise(cabin):
    assert look(lit(cabin, 0.3)) == Sight("clear", "raise")
    assert look(lit(cabin, 4.5)) == Sight("clear", "lower")


def test_a_hand_before_the_lens_is_passed_over_but_a_cover_is_told_after_a_second(cabin):
    black = flat(5)
    assert set(watched((cabin, 1), (black, 0.8), (cabin, 2))) == {"clear"}
    views = watched((cabin, 1), (black, 2), (cabin, 2))
    assert views == ["clear"] * 20 + ["covered"] * 20 + ["clear"] * 10


def test_a_picture_that_wavers_between_two_troubles_is_not_clear(cabin):
    views = watched((cabin, 1), *[(flat(5), 0.3), (lit(cabin, 0.12), 0.3)] * 8)
    assert "clear" not in views[25:]


def frozen(pictures: list[np.ndarray], period: float = 0.5, frozen_s: float = 5.0) -> list[str]:
    watch = SceneWatch(frozen_s)
    return [watch.look(picture, i * period).view for i, picture in enumerate(pictures)]


def test_the_same_picture_for_seconds_is_frozen_until_something_moves(cabin):
    assert frozen([cabin.copy() for _ in range(20)]) == ["clear"] * 10 + ["frozen"] * 10
    assert frozen([cabin] * 15 + [lit(cabin, 1.0)]) == ["clear"] * 10 + ["frozen"] * 5 + ["clear"]


def test_a_codec_that_rounds_does_not_hide_that_a_picture_is_frozen(cabin):
    low = np.clip(cabin, 0, 254)
    rounded = [low + RNG.integers(0, 2, low.shape, np.uint8) for _ in range(20)]
    assert frozen([low, *rounded])[-1] == "frozen"


def test_the_noise_of_a_sensor_is_life_enough(cabin):
    assert set(frozen([lit(cabin, 1.0) for _ in range(20)])) == {"clear"}


def test_one_eye_that_blinks_is_life_enough(cabin):
    blinked = cabin.copy()
    blinked[116:118, 151:154] = 255 - blinked[116:118, 151:154]
    assert set(frozen([cabin, blinked] * 10)) == {"clear"}


def test_a_slow_drift_is_not_frozen_although_no_two_neighbours_differ(cabin):
    dim = cabin // 2
    assert set(frozen([dim + np.uint8(i // 2) for i in range(40)])) == {"clear"}


def test_a_camera_whose_picture_changes_its_size_is_not_frozen(cabin):
    assert set(frozen([cabin, cabin[:200]] * 10)) == {"clear"}


def test_a_lens_that_is_covered_is_not_also_frozen():
    views = frozen([flat(0, 0)] * 30)
    assert set(views[3:]) == {"covered"}


def test_frozen_can_be_switched_off(cabin):
    assert set(frozen([cabin] * 100, frozen_s=0)) == {"clear"}


@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 300), st.integers(1, 300), st.just(3)),
        elements=st.integers(0, 255),
    ),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=5),
)
def test_no_picture_whatever_its_shape_upsets_the_watch(picture, times):
    watch = SceneWatch(1.0)
    for now in sorted(times):
        assert watch.look(picture, now).view in {"clear", "covered", "dark", "glare", "frozen"}
