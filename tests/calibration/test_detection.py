"""What counts as a face found, as a false alarm and as neither."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.detection import FALSE, HIT, NEITHER, judge, sum_up


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def flags(*values):
    return np.array(values, bool)


def scores(*values):
    return np.array(values, np.float32)


FACE, OTHER = [0, 0, 10, 10], [20, 0, 30, 10]


def test_a_face_is_found_once_and_the_second_box_on_it_is_a_false_alarm():
    found = boxes([1, 0, 10, 10], FACE, [50, 50, 60, 60])
    judged = judge(boxes(FACE, OTHER), flags(0, 0), found, scores(0.6, 0.9, 0.7))
    assert judged.scores.tolist() == scores(0.9, 0.7, 0.6).tolist()
    assert judged.verdicts.tolist() == [HIT, FALSE, FALSE]
    assert judged.faces == 2


def test_half_the_union_is_just_enough():
    half, less = [0, 0, 10, 5], [0, 0, 10, 4.9]
    for found, verdict in ((half, HIT), (less, FALSE)):
        assert judge(boxes(FACE), flags(0), boxes(found), scores(1)).verdicts.tolist() == [verdict]


def test_two_faces_close_together_are_both_found():
    near = [3, 0, 13, 10]
    judged = judge(boxes(FACE, near), flags(0, 0), boxes(near, [1, 0, 11, 10]), scores(0.9, 0.8))
    assert judged.verdicts.tolist() == [HIT, HIT]


def test_a_face_that_does_not_count_is_neither_missed_nor_a_false_alarm():
    judged = judge(boxes(FACE, OTHER), flags(1, 0), boxes(FACE, FACE), scores(0.9, 0.8))
    assert judged.verdicts.tolist() == [NEITHER, NEITHER]
    assert judged.faces == 1


def test_curve_of_three_pictures_by_hand():
    none = judge(boxes(), flags(), boxes(), scores())
    one = judge(boxes(FACE, OTHER), flags(0, 0), boxes(FACE, [50, 50, 60, 60]), scores(0.9, 0.8))
    two = judge(boxes(FACE), flags(0), boxes(FACE), scores(0.4))
    found = sum_up([none, one, two])
    assert (found.pictures, found.faces) == (3, 3)
    assert found.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert found.alarms.tolist() == pytest.approx([0, 1 / 3, 1 / 3])
    assert found.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert found.average_precision == pytest.approx(1 / 3 + 2 / 3 / 3)
    assert found.at(0.5) == pytest.approx((1 / 3, 1 / 3))
    assert found.at(0.95) == (0.0, 0.0)
    assert found.threshold(0.0) == np.float32(0.9)
    assert found.threshold(0.5) == np.float32(0.4)


def test_nothing_to_find_and_nothing_found_are_no_error():
    found = sum_up([judge(boxes(), flags(), boxes(), scores())])
    assert found.average_precision == 0
    assert found.at(0.5) == (0.0, 0.0)
    assert found.threshold(0.1) == 1.0


places = hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4)), elements=st.floats(0, 64, width=16))


@given(places, places, st.data())
def test_no_more_is_found_than_there_is(marked, seen, data):
    marked, seen = (
        np.concatenate([np.minimum(each[:, :2], each[:, 2:]), np.maximum(each[:, :2], each[:, 2:]) + 1], 1)
        for each in (marked, seen)
    )
    ignored = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(marked), max_size=len(marked))), dtype=bool
    )
    judged = judge(marked, ignored, seen, np.linspace(1, 0.1, len(seen), dtype=np.float32))
    hits = int((judged.verdicts == HIT).sum())
    assert hits <= min(judged.faces, len(seen))
    found = sum_up([judged, judged])
    assert (np.diff(found.recall) >= 0).all()
    assert 0 <= found.average_precision <= 1
    assert judge(
        marked, ignored, marked[~ignored], np.ones(int((~ignored).sum()), np.float32)
    ).verdicts.tolist() == ([HIT] * judged.faces)
