"""A list of points is understood as CelebA writes it, and whatever else it is, is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.point_list import read_points
from trainer.data.reading import DataError

COLUMNS = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
# Two lines in the form of list_landmarks_celeba.txt, in columns padded with spaces.
FIRST = "000001.jpg   165  184  244  176  196  249  194  271  266  260"
SECOND = "000002.jpg   140  204  220  204  168  254  146  289  226  289"


@pytest.fixture
def write(tmp_path):
    def written(*lines):
        file = tmp_path / "points.txt"
        file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
        return file

    return written


def test_celebas_form_is_read(write):
    found = read_points(write("2", f"{COLUMNS} ", FIRST, SECOND, ""))
    assert list(found) == ["000001.jpg", "000002.jpg"]
    assert found["000001.jpg"].dtype == np.float32
    assert found["000001.jpg"].tolist() == [[165, 184], [244, 176], [196, 249], [194, 271], [266, 260]]


def test_a_path_may_have_folders_and_spaces(write):
    assert list(read_points(write("1", COLUMNS, f"Ada L/{FIRST}"))) == ["Ada L/000001.jpg"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ((""), "line 1"),
        (("3", COLUMNS, FIRST, SECOND), "line 1: '3'; expected the number of pictures, and 2 lines"),
        (("0", COLUMNS), "lists no picture"),
        (("-1", COLUMNS), "line 1"),
        (("1", "x y", FIRST), "line 2"),
        (("1", COLUMNS, "000001.jpg 1 2 3"), "line 3: .*10 numbers"),
        (("1", COLUMNS, FIRST.replace("165", "left")), "line 3: .*10 numbers"),
        (("1", COLUMNS, FIRST.replace("165", "nan")), "line 3: .*10 numbers"),
        (("1", COLUMNS, FIRST.replace("165", "1e9")), "line 3: .*10 numbers"),
        (("2", COLUMNS, FIRST, FIRST), "line 4: 000001.jpg has been listed before"),
        (("1", COLUMNS, f"/etc/{FIRST}"), "below the folder"),
        (("1", COLUMNS, f"a/../../{FIRST}"), "below the folder"),
        (("1", COLUMNS, f"a\0{FIRST}"), "below the folder"),
        (("1", COLUMNS, "a.jpg 5 5 5 5 1 2 3 4 5 6"), "both eyes are on one spot"),
        (("1", COLUMNS, "a.jpg 9 5 5 5 1 2 3 4 5 6"), "most left eyes lie to the right"),
        (("1", COLUMNS, ""), "line 1"),
        (("1", COLUMNS, "\udcff" + FIRST), "not a text file"),
    ],
)
def test_whatever_else_it_is_is_named(write, lines, complaint):
    with pytest.raises(DataError, match=complaint):
        read_points(write(*lines))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: No such file.*list_landmarks_celeba\.txt"):
        read_points(tmp_path / "none.txt")


@given(st.binary(max_size=300))
def test_no_content_is_taken_for_more_than_it_is(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(f"1\n{COLUMNS}\n".encode() + content)
    try:
        found = read_points(file)
    except DataError:
        return
    assert all(np.isfinite(points).all() and points.shape == (5, 2) for points in found.values())
