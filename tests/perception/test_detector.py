"""Reading the detector's maps and putting boxes back where the frame has them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.perception.detector import centerface, fill, iou, letterbox, suppress, to_frame


def maps(height=8, width=10):
    return {
        "heatmap": np.zeros((1, 1, height, width), np.float32),
        "scale": np.zeros((1, 2, height, width), np.float32),
        "offset": np.zeros((1, 2, height, width), np.float32),
        "landmarks": np.zeros((1, 10, height, width), np.float32),
    }


def test_one_peak_becomes_one_face_where_the_paper_says():
    m = maps()
    m["heatmap"][0, 0, 3, 5] = 0.9
    m["scale"][0, :, 3, 5] = np.log([6.0, 5.0])  # 24 pixels high, 20 wide
    m["offset"][0, :, 3, 5] = 0.25, -0.5  # y, x in cells
    m["landmarks"][0, :, 3, 5] = [
        0.3,
        0.2,
        0.3,
        0.8,
        0.5,
        0.5,
        0.8,
        0.3,
        0.8,
        0.7,
    ]  # y, x as fractions of the box
    (found,) = centerface(m, 0.5)
    centre_x, centre_y = (5 - 0.5 + 0.5) * 4, (3 + 0.25 + 0.5) * 4
    assert np.allclose(found[:4], [centre_x - 10, centre_y - 12, centre_x + 10, centre_y + 12], atol=1e-4)
    assert np.isclose(found[4], 0.9)
    assert np.allclose(found[5:7], [found[0] + 0.2 * 20, found[1] + 0.3 * 24], atol=1e-4)
    assert np.allclose(found[13:15], [found[0] + 0.7 * 20, found[1] + 0.8 * 24], atol=1e-4)


def test_nothing_above_the_threshold_is_no_face():
    assert centerface(maps(), 0.5).shape == (0, 15)
    assert suppress(centerface(maps(), 0.5), 0.3).shape == (0, 15)


def test_candidates_come_best_first():
    m = maps()
    m["heatmap"][0, 0, [1, 4, 6], [1, 4, 6]] = 0.6, 0.9, 0.7
    assert centerface(m, 0.5)[:, 4].tolist() == np.float32([0.9, 0.7, 0.6]).tolist()


boxes = hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(4)), elements=st.floats(0, 64, width=16))


@given(boxes, st.floats(0, 1))
def test_no_two_survivors_overlap_more_than_allowed_and_every_victim_had_a_reason(corners, overlap):
    found = np.zeros((len(corners), 15), np.float32)
    found[:, :2] = np.minimum(corners[:, :2], corners[:, 2:])
    found[:, 2:4] = np.maximum(corners[:, :2], corners[:, 2:]) + 1
    found[:, 4] = np.linspace(1, 0.5, len(corners))
    kept = suppress(found, overlap)
    for i, box in enumerate(kept):
        assert (iou(box, kept[i + 1 :]) <= overlap).all()
    for box in found:
        assert (box == kept).all(axis=1).any() or (iou(box, kept) > overlap).any()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_every_frame_fits_the_input_and_its_boxes_come_back(width, height):
    box = letterbox((width, height), (320, 256))
    assert 1 <= box.width <= 320
    assert 1 <= box.height <= 256
    target = np.full((256, 320, 3), 9, np.uint8)
    fill(np.full((min(height, 500), min(width, 500), 3), 255, np.uint8), box, target)
    assert target[box.height :].max(initial=0) == 0
    assert target[: box.height, : box.width].min() == 255
    row = np.zeros((1, 15), np.float32)
    row[0, :4] = [0, 0, width * box.scale, height * box.scale]
    row[0, 4], row[0, 5:15] = 1, np.arange(10) * max(box.scale, 1)
    (detection,) = to_frame(row, box, (width, height))
    assert np.allclose(detection.box, [0, 0, width, height], rtol=1e-3, atol=0.01)


def test_what_is_not_finite_outside_or_without_landmarks_is_dropped():
    box = letterbox((320, 256), (320, 256))
    rows = np.zeros((4, 15), np.float32)
    rows[:, :5] = [10, 10, 60, 60, 0.9]
    rows[:, 5:] = np.arange(10) * 5
    rows[0, 2] = np.nan
    rows[1, :4] = [400, 400, 500, 500]
    rows[2, 5:] = 30
    assert len(to_frame(rows, box, (320, 256))) == 1
