"""A single-shot detector's maps become boxes where its anchors say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.perception.detector import letterbox, suppress, to_frame
from agent.perception.ssd import POINTS, Ssd, maps
from engines.pack import Anchors

ANCHORS = (Anchors(stride=8, sizes=((10.0, 20.0), (16.0, 16.0))), Anchors(stride=32, sizes=((64.0, 80.0),)))
SHAPES = maps(ANCHORS, 96, 64)


def empty():
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def test_the_maps_are_as_many_and_as_large_as_the_anchors_say():
    assert SHAPES == {
        "scores_8": (1, 2, 8, 12),
        "boxes_8": (1, 8, 8, 12),
        "scores_32": (1, 1, 2, 3),
        "boxes_32": (1, 4, 2, 3),
    }


def test_without_offsets_a_face_is_its_anchor():
    m = empty()
    m["scores_8"][0, 0, 3, 5] = 0.7
    m["scores_32"][0, 0, 1, 2] = 0.9
    found = Ssd(ANCHORS)(m, 0.5)
    assert found[:, :5].tolist() == [
        [80 - 32, 48 - 40, 80 + 32, 48 + 40, np.float32(0.9)],
        [44 - 5, 28 - 10, 44 + 5, 28 + 10, np.float32(0.7)],
    ]


def test_offsets_move_and_stretch_by_the_anchor_they_belong_to():
    m = empty()
    m["scores_8"][0, 1, 0, 2] = 0.6
    m["boxes_8"][0, :4] = 9.0  # the first anchor's: not asked for
    m["boxes_8"][0, 4:, 0, 2] = 2.5, -5.0, 5 * np.log(2), 5 * np.log(0.5)
    (found,) = Ssd(ANCHORS)(m, 0.5)
    middle = (20 + 0.25 * 16, 4 - 0.5 * 16)
    assert np.allclose(found[:4], [middle[0] - 16, middle[1] - 4, middle[0] + 16, middle[1] + 4], atol=1e-4)
    assert np.allclose(found[5:].reshape(5, 2), found[:2] + POINTS * [32, 8], atol=1e-4)


def test_the_stand_ins_for_landmarks_are_those_of_an_upright_face():
    left_eye, right_eye, nose, left_mouth, right_mouth = POINTS
    assert left_eye[1] == right_eye[1] < nose[1] < left_mouth[1] == right_mouth[1]
    assert left_eye[0] < left_mouth[0] < nose[0] < right_mouth[0] < right_eye[0]


@given(
    hnp.arrays(np.float32, SHAPES["scores_8"], elements=st.floats(0, 1, width=32) | st.just(np.nan)),
    hnp.arrays(np.float32, SHAPES["boxes_8"], elements=st.floats(width=32)),
)
def test_whatever_a_network_says_what_is_read_is_finite_and_best_first(scores, boxes):
    with np.errstate(all="ignore"):
        found = Ssd(ANCHORS)(empty() | {"scores_8": scores, "boxes_8": boxes}, 0.5)
        faces = to_frame(suppress(found, 0.3), letterbox((96, 64), (96, 64)), (96, 64))
    assert np.isfinite(found).all()
    assert (np.diff(found[:, 4]) <= 0).all()
    assert (found[:, 4] >= 0.5).all()
    for face in faces:
        x1, y1, x2, y2 = face.box
        assert 0 <= x1 < x2 <= 96
        assert 0 <= y1 < y2 <= 64
