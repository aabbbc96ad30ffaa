import pickle
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.faces import FaceFinder
from trainer.data.faces import Cut, CutFaces, KeptFaces, cut_faces, square_about
from trainer.data.identities import IdentityFolders
from trainer.data.reading import DataError, Pictures, TooMuchDamageError

PEOPLE = ("Aaron_Eckhart", "Abdullah_Gul", "Tony_Blair")


@pytest.fixture
def people(lfw, tmp_path):
    """Photographs of a few people, of one of them with no face on it."""
    root = tmp_path / "people"
    for name in PEOPLE:
        (root / name).mkdir(parents=True)
        for photo in sorted((lfw / name).iterdir())[:3]:
            shutil.copyfile(photo, root / name / photo.name)
    cv2.imwrite(str(root / PEOPLE[1] / "0000.png"), np.full((90, 90, 3), 128, np.uint8))
    return root


@pytest.fixture
def cut(pack, tmp_path):
    return Cut(pack=str(pack.path), keep=str(tmp_path / "kept"))


def keep(root, cut, side=64, workers=0, limit=1):
    done = []
    faces = cut_faces(
        IdentityFolders(root, side), cut, side, workers=workers, limit=limit, advance=done.append
    )
    return faces, sum(done)


def test_faces_are_where_the_agent_puts_them(pack, lfw, cut):
    photographs = IdentityFolders(lfw, 150, people=PEOPLE)
    source = CutFaces(photographs, cut, 150)
    finder = FaceFinder(pack.path)
    template = np.array(pack.manifest.face.template, np.float32)
    assert np.allclose(finder.template(150), template)
    image = photographs.photograph(0)
    face = finder.subject(image)
    assert (source.read(0)[:, :, ::-1] == finder.aligned(image, face, 150)).all()
    # The detector, asked again, finds eyes, nose and mouth of the chip near the template.
    framed = cv2.copyMakeBorder(source.read(0)[:, :, ::-1], 75, 75, 75, 75, cv2.BORDER_REPLICATE)
    found = finder.subject(framed).landmarks - 75
    assert np.abs(found - template).mean() < 6


def test_a_smaller_chip_shows_the_same_part(lfw, cut):
    photographs = IdentityFolders(lfw, 150, people=PEOPLE[:1])
    large, small = (CutFaces(photographs, cut, side).read(0) for side in (150, 75))
    assert np.abs(large.reshape(75, 2, 75, 2, 3).mean(axis=(1, 3)) - small).mean() < 4


def test_kept_faces_are_the_cut_ones_and_cut_only_once(people, cut, tmp_path):
    kept, done = keep(people, cut, workers=1)
    assert isinstance(kept, KeptFaces)
    assert done == len(IdentityFolders(people, 64).photos)
    fresh = CutFaces(IdentityFolders(people, 64), cut, 64)
    blank = fresh.photographs.photos.index(f"{PEOPLE[1]}/0000.png")
    assert "0000.png: no face" in kept.left_out
    assert len(kept.labels) == len(fresh.labels) - 1
    others = [item for item in range(len(fresh.labels)) if item != blank]
    for row, item in enumerate(others):
        assert (kept.read(row) == fresh.read(item)).all()
        assert kept.labels[row] == fresh.labels[item]
        assert kept.name(row) == fresh.name(item)
    file = tmp_path / "kept" / "faces.npy"
    before = file.stat().st_mtime_ns
    again, _ = keep(people, cut)
    assert file.stat().st_mtime_ns == before
    assert again.left_out == kept.left_out


def test_other_photographs_another_cut_or_a_run_that_broke_off_cut_anew(people, cut, tmp_path):
    kept, _ = keep(people, cut)
    file = tmp_path / "kept" / "faces.npy"

    def anew(**changed):
        before = file.stat().st_mtime_ns
        settings = Cut(
            **({"pack": cut.pack, "keep": cut.keep} | {k: v for k, v in changed.items() if k != "side"})
        )
        found, _ = keep(people, settings, changed.get("side", 64))
        return file.stat().st_mtime_ns != before, found

    assert not anew()[0]
    assert anew(way="box")[0]
    assert anew(way="box", margin=0.5)[0]
    assert anew(side=32)[0]
    assert anew()[0]
    (people / PEOPLE[2] / "Tony_Blair_0018.jpg").unlink()
    written, fewer = anew()
    assert written
    assert len(fewer.labels) == len(kept.labels) - 1
    (tmp_path / "kept" / "cut.json").unlink()
    assert anew()[0]
    (tmp_path / "kept" / "cut.json").write_text("{")
    assert anew()[0]
    assert not anew()[0]


def test_a_folder_with_other_things_in_it_is_left_alone(people, cut, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"thesis\.txt"):
        keep(people, cut)
    assert (tmp_path / "kept" / "thesis.txt").read_text() == "years of work"


def test_damaged_kept_faces_are_told(people, cut, tmp_path):
    keep(people, cut)
    file = tmp_path / "kept" / "faces.npy"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"faces\.npy cannot be read"):
        keep(people, cut)
    np.save(file, np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"faces\.npy is float64 \[3, 2\]"):
        keep(people, cut)


def test_too_many_photographs_without_a_face_are_an_error(people, cut):
    cv2.imwrite(str(people / PEOPLE[0] / "0000.png"), np.zeros((90, 90, 3), np.uint8))
    with pytest.raises(TooMuchDamageError, match="no face is found"):
        keep(people, cut)
    assert len(keep(people, cut, limit=2)[0].labels) > 0


def test_without_a_folder_faces_are_cut_when_they_are_asked_for(people, cut):
    source, done = keep(people, Cut(pack=cut.pack))
    assert isinstance(source, CutFaces)
    assert done == 0
    image, label = Pictures(source)[0]
    assert image.shape == (3, 64, 64)
    assert label == 0


def test_a_source_of_faces_is_small_when_pickled(people, cut):
    kept, _ = keep(people, cut)
    data = pickle.dumps(kept)
    assert len(data) < 10_000
    assert (pickle.loads(data).read(1) == kept.read(1)).all()  # noqa: S301 - its own bytes
    fresh = CutFaces(IdentityFolders(people, 64), cut, 64)
    fresh.read(0)
    assert (pickle.loads(pickle.dumps(fresh)).read(0) == fresh.read(0)).all()  # noqa: S301 - its own bytes


def ramp(width=40, height=30):
    """A picture whose blue is the column and whose green is the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.arange(width)
    image[:, :, 1] = np.arange(height)[:, None]
    return image


def test_a_square_box_of_the_right_size_is_cut_out_exactly():
    image = ramp()
    assert (square_about(image, (5, 6, 21, 22), 0.0, 16) == image[6:22, 5:21]).all()


def test_the_margin_is_on_every_side_and_the_square_about_the_middle():
    image = ramp()
    assert (square_about(image, (10, 8, 20, 18), 0.5, 20) == image[3:23, 5:25]).all()
    assert (square_about(image, (13, 8, 17, 18), 0.5, 20) == image[3:23, 5:25]).all()


def test_what_lies_outside_is_black():
    found = square_about(ramp() + 100, (-10, -10, 10, 10), 0.0, 20)
    assert not found[:10].any()
    assert not found[:, :10].any()
    assert (found[10:, 10:, 0] == np.arange(100, 110)).all()


@given(st.floats(-20, 60), st.floats(-20, 60), st.floats(0.5, 60), st.floats(0, 0.5), st.integers(8, 40))
def test_a_square_shows_the_place_it_is_about(x, y, size, margin, side):
    image = ramp(256, 256)
    found = square_about(image, (100 + x, 100 + y, 100 + x + size, 100 + y + size), margin, side)
    middle = found[..., :2].reshape(-1, 2).mean(axis=0)
    assert np.abs(middle - [99.5 + x + size / 2, 99.5 + y + size / 2]).max() < 1.6


def test_a_face_far_too_large_is_averaged_not_picked():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    assert square_about(noise, (0, 0, 400, 400), 0.0, 20).std() < noise.std() / 8


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 5), (9, 9, 3, 3), (0, 0, float("inf"), 3), (0, 0, 3, float("nan"))]
)
def test_a_box_of_no_size_is_refused(box):
    with pytest.raises(ValueError, match="no size"):
        square_about(ramp(), box, 0.0, 8)
