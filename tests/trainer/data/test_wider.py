import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.reading import DataError, load
from trainer.data.wider import MarkedPictures, read_boxes, together

LIST = """\
0--Parade/0_Parade_1.jpg
2
10 20 40 60 2 0 0 0 1 0
100 30 20 20 0 0 0 1 0 0
0--Parade/0_Parade_2.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/1_Handshaking_3.jpg
1
5 5 0 10 0 0 0 0 0 0
"""


@pytest.fixture
def wider(tmp_path):
    (tmp_path / "list.txt").write_text(LIST)
    for name in (
        "0--Parade/0_Parade_1.jpg",
        "0--Parade/0_Parade_2.jpg",
        "1--Handshaking/1_Handshaking_3.jpg",
    ):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((100, 200, 3), 255, np.uint8)
        image[20:80, 10:50] = (0, 0, 255)
        cv2.imwrite(str(file), image)
    return tmp_path


def test_pictures_with_faces_without_and_with_faces_that_do_not_count(wider):
    first, second, third = read_boxes(wider / "list.txt")
    assert first.path == "0--Parade/0_Parade_1.jpg"
    assert first.boxes.tolist() == [[10, 20, 50, 80], [100, 30, 120, 50]]
    assert first.ignored.tolist() == [False, True]
    assert second.boxes.shape == (0, 4)
    assert third.ignored.tolist() == [True]  # a box without width


def test_a_picture_without_faces_may_lack_the_line_of_zeros(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\n0\nb.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n\n")
    assert [len(marked.boxes) for marked in read_boxes(tmp_path / "list.txt")] == [0, 1]


def test_boxes_stay_on_their_faces_when_the_picture_is_scaled(wider):
    pictures = MarkedPictures(wider / "images", read_boxes(wider / "list.txt"), (160, 128))
    item = pictures[0]
    assert item.image.shape == (3, 128, 160)
    x1, y1, x2, y2 = item.boxes[0].tolist()
    assert (x1, y1, x2, y2) == (8, 16, 40, 64)
    inside = item.image[:, 17:63, 9:39].float().mean(dim=(1, 2))
    assert inside[0] > 240  # red
    assert inside[2] < 15
    assert item.image[:, 80:].max() == 0  # what the picture does not fill
    assert item.ignored.tolist() == [False, True]


def test_what_lies_outside_the_picture_does_not_count(wider):
    (wider / "list.txt").write_text(
        "0--Parade/0_Parade_1.jpg\n2\n190 90 40 60 0 0 0 0 0 0\n300 300 9 9 0 0 0 0 0 0\n"
    )
    item = MarkedPictures(wider / "images", read_boxes(wider / "list.txt"), (200, 100))[0]
    assert item.boxes.tolist()[0] == [190, 90, 200, 100]
    assert item.ignored.tolist() == [False, True]


def test_a_batch_keeps_each_picture_s_boxes(wider):
    pictures = MarkedPictures(wider / "images", read_boxes(wider / "list.txt"), (64, 64))
    (batch,) = load(pictures, [[0, 1, 2]], workers=1, collate=together)
    assert batch.images.shape == (3, 3, 64, 64)
    assert [len(boxes) for boxes in batch.boxes] == [2, 0, 1]
    assert batch.boxes[0].dtype == torch.float32
    assert [flags.dtype for flags in batch.ignored] == [torch.bool] * 3


def test_a_missing_picture_is_passed_over_and_named(wider):
    (wider / "images/0--Parade/0_Parade_1.jpg").unlink()
    pictures = MarkedPictures(wider / "images", read_boxes(wider / "list.txt"), (64, 64))
    assert len(pictures[0].boxes) == 0
    assert "0_Parade_1.jpg" in pictures.report()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.jpg\n", 2),
        ("a.jpg\nmany\n", 2),
        ("a.jpg\n99999999\n", 2),
        ("a.jpg\n-1\n", 2),
        ("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", 4),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0\n", 3),
        ("a.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", 3),
        ("a.jpg\n1\n1 2 nan 4 0 0 0 0 0 0\n", 3),
        ("a.jpg\n1\n1 2 1e9 4 0 0 0 0 0 0\n", 3),
        ("../a.jpg\n0\n", 1),
        ("/a.jpg\n0\n", 1),
    ],
)
def test_a_line_of_another_kind_is_told(tmp_path, text, line):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=rf"list\.txt, line {line}:"):
        read_boxes(tmp_path / "list.txt")


def test_no_list_and_an_empty_one_are_told(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_boxes(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(DataError, match="empty"):
        read_boxes(tmp_path / "list.txt")


@given(st.text(st.sampled_from("a./0123 \n-"), max_size=60))
def test_any_text_gives_boxes_or_an_error(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("wider") / "list.txt"
    file.write_text(text)
    try:
        found = read_boxes(file)
    except DataError:
        return
    assert all(marked.boxes.shape == (len(marked.ignored), 4) for marked in found)
