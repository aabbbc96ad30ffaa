"""Canvases show faces where their boxes say, of many sizes and at many places, and some show none."""

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.canvas import FACE, MOST, NEITHER, Canvases, CanvasSettings, _Part, seen, show
from trainer.data.reading import TooMuchDamageError
from trainer.data.wider import Marked

SETTINGS = CanvasSettings(side=128)
FACE_BOX = (70, 60, 150, 170)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey photographs of 250 pixels with a red rectangle in the middle for a face, its left half brighter."""
    root = tmp_path_factory.mktemp("canvas")
    x1, y1, x2, y2 = FACE_BOX
    for number in range(4):
        image = np.full((250, 250, 3), 90 + 20 * number, np.uint8)
        image[y1:y2, x1:x2] = (0, 0, 200)
        image[y1:y2, x1 : (x1 + x2) // 2] = (0, 0, 255)
        cv2.imwrite(str(root / f"{number}.png"), image)
    return root


def marked(*rows, ignored=(False,)):
    boxes = np.array(rows or [FACE_BOX], np.float32)
    return [Marked(f"{number}.png", boxes, np.array(ignored)) for number in range(4)]


def canvases(folder, **changes):
    return Canvases(folder, marked(), msgspec.structs.replace(SETTINGS, **changes), 1)


def shown(item):
    image, boxes, kinds = (part.numpy() for part in item)
    return image.transpose(1, 2, 0), boxes[kinds == FACE], boxes[kinds == NEITHER]


def red(image):
    return (image[..., 0] > 150) & (image[..., 1:].max(axis=2) < 70)


def test_faces_are_where_the_boxes_say(folder):
    found = 0
    for index in range(40):
        image, faces, others = shown(canvases(folder, black=1.0)[index])
        inside = np.zeros(image.shape[:2], bool)
        for x1, y1, x2, y2 in np.concatenate([faces, others]).round().astype(int):
            patch = red(image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1])
            if patch.size:
                assert patch.mean() > 0.9
            inside[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
        # What shows less than a tenth of a face has no box.
        assert (red(image) & ~inside).sum() < 0.2 * max(1, red(image).sum()) or len(faces) + len(others) == 0
        found += len(faces)
    assert found > 40


def test_faces_have_many_sizes_and_places_and_look_both_ways(folder):
    sides, middles, brighter_left = [], [], []
    for index in range(60):
        image, faces, _ = shown(canvases(folder, cells=(1.0,), background=0.0)[index])
        for x1, y1, x2, y2 in faces:
            sides.append(np.sqrt((x2 - x1) * (y2 - y1)))
            middles.append(((x1 + x2) / 2, (y1 + y2) / 2))
            left, right = np.array_split(
                image[int(y1) : int(y2), int(x1) : int(x2), 0].astype(float), 2, axis=1
            )
            brighter_left.append(left.mean() > right.mean())
    assert min(sides) < 40
    assert max(sides) > 100
    assert np.ptp(middles, axis=0).min() > 64
    assert 0.2 < np.mean(brighter_left) < 0.8


def test_some_canvases_have_no_face_and_some_have_many(folder):
    none = [shown(canvases(folder, background=1.0, cells=(1.0,))[index]) for index in range(20)]
    assert (
        np.mean([len(faces) == 0 for _, faces, _ in none]) > 0.7
    )  # a part without a face is not always found
    assert (
        max(len(shown(canvases(folder, cells=(0, 0, 1.0), background=0)[index])[1]) for index in range(5))
        >= 6
    )


def test_an_item_is_the_same_each_time_and_another_when_it_comes_again(folder):
    one, again, next_time = (canvases(folder)[index] for index in (2, 2, 6))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one[0] != next_time[0]).any()
    other_seed = Canvases(folder, marked(), SETTINGS, 2)[2]
    assert (one[0] != other_seed[0]).any()


def test_faces_that_do_not_count_stay_so(folder):
    source = Canvases(folder, marked(ignored=(True,)), SETTINGS, 1)
    kinds = np.concatenate([source[index][2].numpy() for index in range(20)])
    assert not (kinds == FACE).any()
    assert (kinds == NEITHER).any()


def test_large_pictures_are_read_small(folder):
    source = canvases(folder, longest=125)
    image, boxes = source._picture(0)
    assert image.shape == (125, 125, 3)
    assert boxes.tolist() == [[35, 30, 75, 85]]


def test_a_missing_picture_is_named(folder):
    gone = [*marked(), Marked("gone.png", np.array([FACE_BOX], np.float32), np.array([False]))]
    with pytest.raises(TooMuchDamageError, match=r"gone\.png"):
        Canvases(folder, gone, SETTINGS, 1, limit=0)[4]


def test_a_cell_shows_a_part_scaled_and_one_colour_beyond_the_picture():
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:5] = 200
    cell = np.empty((20, 10, 3), np.uint8)
    show(picture, _Part(-5, 0, 10, 20), np.array([1, 2, 3], np.uint8), cell)
    assert (cell[:, :5] == [1, 2, 3]).all()
    assert (cell[10:] == [1, 2, 3]).all()
    assert (cell[:5, 5:] == 200).all()
    assert (cell[5:10, 5:] == 0).all()


def test_boxes_of_a_part_by_hand():
    boxes = np.array(
        [
            [10, 10, 30, 30],
            [40, 10, 60, 30],
            [45, 40, 65, 60],
            [49, 70, 69, 90],
            [0, 0, 4, 4],
            [80, 0, 90, 9],
        ],
        np.float32,
    )
    ignored = np.array([False, False, False, False, False, False])
    found, kinds = seen(boxes, ignored, _Part(0, 0, 52, 100), (104, 200), 10)
    assert found.tolist() == [
        [20, 20, 60, 60],
        [80, 20, 104, 60],
        [90, 80, 104, 120],
        [98, 140, 104, 180],
        [0, 0, 8, 8],
    ]
    # Whole; six tenths are seen; a third; a seventh; too small. The last is not seen at all.
    assert kinds.tolist() == [FACE, FACE, NEITHER, NEITHER, NEITHER]


@given(
    st.lists(st.tuples(*[st.floats(-20, 120, width=32)] * 4), max_size=60),
    st.integers(-50, 100),
    st.integers(-50, 100),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_whatever_is_marked_boxes_lie_in_the_cell_and_faces_have_a_size(rows, left, top, width, height):
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    found, kinds = seen(boxes, np.zeros(len(boxes), bool), _Part(left, top, width, height), (64, 48), 10)
    assert (found >= 0).all()
    assert (found <= [64, 48, 64, 48]).all()
    sides = found[:, 2:] - found[:, :2]
    assert (sides > 0).all()
    assert (np.sqrt(sides.prod(axis=1))[kinds == FACE] >= 9.99).all()


def test_of_too_many_faces_the_largest_stay(folder):
    rows = [(x, y, x + 12 + y / 50, y + 12) for x in range(0, 240, 13) for y in range(0, 240, 13)]
    source = Canvases(folder, marked(*rows, ignored=(False,) * len(rows)), SETTINGS, 1)
    _, boxes, _ = source[0]
    assert boxes.shape == (MOST, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert (areas.diff() <= 1e-3).all()


@pytest.mark.parametrize(
    "wrong",
    [{"cells": (0.0, 0.0)}, {"cells": ()}, {"side": 100}, {"smallest": 1.0, "largest": 0.5}, {"longest": 1}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, CanvasSettings)
