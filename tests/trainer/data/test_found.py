"""The pack's detector marks a folder of photographs once; what it found is kept by the pictures' content."""

import shutil

import cv2
import numpy as np
import pytest

from trainer.data.found import DOUBTFUL, find_faces, pictures_below
from trainer.data.reading import DataError, TooMuchDamageError


@pytest.fixture
def folder(lfw, tmp_path):
    root = tmp_path / "pictures"
    photos = sorted(lfw.glob("*/*.jpg"))[:3]
    for photo in photos:
        (root / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, root / photo.parent.name / photo.name)
    cv2.imwrite(str(root / "wall.png"), np.full((120, 90, 3), 140, np.uint8))
    return root


@pytest.fixture
def find(pack, tmp_path):
    def run(root, sure=0.5, limit=1):
        looked = []
        marked, left_out = find_faces(
            root,
            pictures_below(root),
            pack.path,
            sure,
            keep=tmp_path / "kept",
            limit=limit,
            advance=lambda _, count, total: looked.append((count, total)),
        )
        assert looked == [(1, total) for _, total in looked]
        return {each.path: each for each in marked}, left_out

    return run


def test_faces_are_marked_and_what_is_suspected_does_not_count(folder, find):
    marked, left_out = find(folder)
    assert left_out == ""
    assert list(marked) == pictures_below(folder)
    assert marked["wall.png"].boxes.shape == (0, 4)
    for path, each in marked.items():
        if path != "wall.png":
            x1, y1, x2, y2 = each.boxes[~each.ignored][0]
            assert x1 < 125 < x2
            assert y1 < 125 < y2
    unsure, _ = find(folder, sure=1.0)
    assert all(each.ignored.all() for each in unsure.values())
    assert DOUBTFUL < 0.5


def test_a_picture_is_looked_at_once_wherever_it_lies(folder, find, tmp_path):
    before, _ = find(folder)
    (kept,) = (tmp_path / "kept").iterdir()
    content = kept.read_bytes()
    assert content.count(b"\n") == 4
    (folder / "wall.png").rename(folder / "elsewhere.png")
    shutil.copy(folder / "elsewhere.png", folder / "twice.png")
    after, _ = find(folder)
    assert kept.read_bytes() == content
    assert len(after) == len(before) + 1
    for path in before.keys() & after.keys():
        assert (before[path].boxes == after[path].boxes).all()


def test_a_killed_run_goes_on_behind_the_last_whole_line(folder, find, tmp_path):
    find(folder)
    (kept,) = (tmp_path / "kept").iterdir()
    content = kept.read_bytes()
    lines = content.splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    find(folder)
    assert sorted(kept.read_bytes().splitlines()) == sorted(content.splitlines())


@pytest.mark.parametrize(
    "line",
    ["no json", "{}", '{"sha256": "x", "faces": []}', '{"sha256": "%s", "faces": [[1, 2, 3]]}' % ("0" * 64)],
)
def test_what_is_kept_and_not_understood_is_told(folder, find, tmp_path, line):
    find(folder)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(line + "\n")
    with pytest.raises(DataError, match=r"cannot be used .*delete it"):
        find(folder)


def test_damaged_pictures_are_named_and_passed_over_up_to_a_limit(folder, find):
    (folder / "broken.jpg").write_bytes(b"no picture")
    marked, left_out = find(folder)
    assert "broken.jpg" not in marked
    assert "broken.jpg" in left_out
    with pytest.raises(TooMuchDamageError, match=r"1 of 5 pictures .*at most 0[^$]*broken\.jpg"):
        find(folder, limit=0)


def test_a_folder_without_pictures_is_told(tmp_path):
    (tmp_path / "text.txt").write_text("no picture")
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="no pictures here"):
            pictures_below(root)
