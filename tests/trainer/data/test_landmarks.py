"""Points are found once, kept as numbers, and never those of another face or another data set."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.faces import FaceFinder, read_image
from trainer.data.landmarks import find_faces
from trainer.data.reading import DataError, TooMuchDamageError

PEOPLE = ("Aaron_Eckhart", "Abdullah_Gul")


@pytest.fixture
def root(lfw, tmp_path):
    """Photographs of two people, and one with nobody on it."""
    for name in PEOPLE:
        (tmp_path / "people" / name).mkdir(parents=True)
        for photo in sorted((lfw / name).iterdir())[:2]:
            shutil.copyfile(photo, tmp_path / "people" / name / photo.name)
    cv2.imwrite(str(tmp_path / "people" / PEOPLE[0] / "0000.png"), np.full((90, 90, 3), 128, np.uint8))
    return tmp_path / "people"


def find(root, pack, keep=None, points=None, limit=1):
    done = []
    found = find_faces(
        root, points, pack.path, keep, workers=0, limit=limit, advance=lambda count, _: done.append(count)
    )
    return found, sum(done)


def listed(path, rows):
    columns = [f"{p}_{a}" for p in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for a in "xy"]
    lines = [f"{name} {' '.join(f'{value:g}' for value in points.ravel())}" for name, points in rows.items()]
    path.write_text("\n".join([str(len(rows)), " ".join(columns), *lines]))
    return path


def test_the_detectors_points_are_taken_and_kept_as_numbers(root, pack, tmp_path):
    keep = tmp_path / "keep"
    found, done = find(root, pack, keep)
    assert done == len(found.photos) + 1
    assert "0000.png: no face is found" in found.left_out
    finder = FaceFinder(pack.path)
    for photo, box, points in zip(found.photos, found.boxes, found.points, strict=True):
        face = finder.subject(read_image(root / photo))
        assert np.allclose(box, face.box, atol=1e-3)
        assert np.allclose(points, face.landmarks, atol=1e-3)
    finder.close()
    (file,) = keep.iterdir()
    assert file.suffix == ".json"
    assert file.stat().st_size < 200 * (len(found.photos) + 1) + 500  # numbers, no pictures
    before = file.stat().st_mtime_ns
    again, _ = find(root, pack, keep)
    assert file.stat().st_mtime_ns == before
    assert again.photos == found.photos
    assert (again.points == found.points).all()
    assert again.digest() == found.digest()


def test_other_photographs_are_not_taken_for_those_that_were_kept(root, pack, tmp_path):
    keep = tmp_path / "keep"
    first, _ = find(root, pack, keep)
    (root / PEOPLE[1] / "more.png").write_bytes((root / first.photos[-1]).read_bytes())
    second, _ = find(root, pack, keep)
    assert len(second.photos) == len(first.photos) + 1
    assert len(list(keep.iterdir())) == 2
    assert first.digest() != second.digest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"items":[0]}',
        b'{"items":[99],"boxes":[[0,0,1,1]],"points":[[0,0,1,1,2,2,3,3,4,4]],"left_out":""}',
    ],
)
def test_a_spoilt_file_is_made_anew(root, pack, tmp_path, content):
    keep = tmp_path / "keep"
    found, _ = find(root, pack, keep)
    (file,) = keep.iterdir()
    good = file.read_bytes()
    file.write_bytes(content)
    again, _ = find(root, pack, keep)
    assert (again.points == found.points).all()
    assert file.read_bytes() == good


def test_points_of_a_list_go_with_the_box_that_holds_them(root, pack, tmp_path):
    found, _ = find(root, pack)
    rows = {photo: np.round(points + 1) for photo, points in zip(found.photos, found.points, strict=True)}
    other = dict(rows)
    other[found.photos[0]] = other[found.photos[0]] * 0 + [[1, 1], [4, 1], [2, 3], [1, 5], [4, 5]]
    told, _ = find(root, pack, points=listed(tmp_path / "points.txt", rows), limit=0)
    assert told.photos == found.photos
    assert (told.points == np.stack(list(rows.values()))).all()
    assert np.allclose(told.boxes, found.boxes, atol=1e-3)
    without, _ = find(root, pack, points=listed(tmp_path / "points.txt", other))
    assert without.photos == found.photos[1:]
    assert f"{Path(found.photos[0]).name}: no face is found in it about these points" in without.left_out


def test_too_much_damage_and_what_is_missing_are_named(root, pack, tmp_path):
    with pytest.raises(TooMuchDamageError, match=r"0000\.png"):
        find(root, pack, limit=0)
    gone = listed(
        tmp_path / "points.txt", {"Nobody/1.jpg": np.array([[1, 1], [4, 1], [2, 3], [1, 5], [4, 5]])}
    )
    with pytest.raises(DataError, match="Nobody"):
        find(root, pack, points=gone)
    (tmp_path / "blocked").write_text("")
    with pytest.raises(DataError, match="name another folder to keep in"):
        find(root, pack, tmp_path / "blocked" / "keep")
