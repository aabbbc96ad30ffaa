import csv
import warnings

import cv2
import numpy as np
import pytest

from calibration.faces import FaceFinder
from calibration.fer2013 import Fer2013Error, read_split, to_chip
from trainer.data.alignment import insightface
from trainer.data.fer import USAGES, FerPictures, read_csv
from trainer.data.reading import Pictures


def line(images, labels, usage):
    return [
        [str(label), " ".join(map(str, image.ravel().tolist())), usage]
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.fixture(scope="module")
def tables(fer2013, tmp_path_factory):
    """Kaggle's two tables of a few real faces of each split, and the faces."""
    faces = {split: tuple(array[:12] for array in read_split(fer2013, split)) for split in USAGES}
    rows = [row for split, usage in USAGES.items() for row in line(*faces[split], usage)]
    folder = tmp_path_factory.mktemp("fer")
    with (folder / "fer2013.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["emotion", "pixels", "Usage"], *rows])
    with (folder / "icml_face_data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["emotion", " Usage", " pixels"], *([a, c, b] for a, b, c in rows)])
    return folder, faces


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
@pytest.mark.parametrize("split", USAGES)
def test_kaggles_table_gives_what_the_npz_gives(tables, name, split):
    folder, faces = tables
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, labels = read_csv(folder / name, split)
    assert (images == faces[split][0]).all()
    assert (labels == faces[split][1]).all()
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64


def test_a_face_is_the_chip_that_the_evaluation_makes(fer2013):
    source = FerPictures(fer2013, "test", 150)
    images, labels = read_split(fer2013, "test")
    for item in (0, 7, 3000):
        assert (source.read(item) == to_chip(images[item])).all()
    image, label = Pictures(source)[7]
    assert image.shape == (3, 150, 150)
    assert label == labels[7]
    assert "test image 7" in source.name(7)


def test_faces_are_brought_to_another_template_if_the_agent_is_to_do_so(tables, pack):
    folder, _ = tables
    table, template = folder / "fer2013.csv", insightface(112)
    usual, other = FerPictures(table, "train", 112), FerPictures(table, "train", 112, template)
    assert other.digest() != usual.digest()
    finder = FaceFinder(pack.path)
    assert FerPictures(table, "train", 112, finder.template(112)).digest() == usual.digest()
    found = []
    for item in range(len(other.labels)):
        framed = cv2.copyMakeBorder(other.read(item), 56, 56, 56, 56, cv2.BORDER_REPLICATE)
        face = finder.subject(framed)
        if face is not None:
            found.append(face.landmarks - 56)
    finder.close()
    assert len(found) > 5
    assert (
        np.abs(np.median(found, axis=0) - template).mean() < 5
    )  # by the pack's template eyes are 18 pixels higher


def test_a_smaller_chip_shows_the_same_part_of_the_face(tables):
    folder, faces = tables
    small = FerPictures(folder / "fer2013.csv", "train", 75)
    for item, image in enumerate(faces["train"][0]):
        large = to_chip(image).reshape(75, 2, 75, 2, 3).mean(axis=(1, 3))
        assert np.abs(small.read(item) - large).mean() < 6


def test_the_digest_is_of_the_faces_not_of_the_file(tables):
    folder, _ = tables
    one, other = (FerPictures(folder / name, "train", 48) for name in ("fer2013.csv", "icml_face_data.csv"))
    assert one.digest() == other.digest() != FerPictures(folder / "fer2013.csv", "test", 48).digest()


PIXELS = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (f"9,{PIXELS},Training", "emotion '9'"),
        (f"happy,{PIXELS},Training", "emotion 'happy'"),
        (f"1,{PIXELS} 7,Training", "expected 2304 numbers"),
        (f"1,{PIXELS[2:]},Training", "expected 2304 numbers"),
        (f"1,{PIXELS[:-1]}x,Training", "expected 2304 numbers"),
        (f"1,{PIXELS[:-1]}256,Training", "a pixel is 256"),
        (f"1,{PIXELS},Trainin", "Usage 'Trainin'"),
        (f"1,{PIXELS}", "2 fields"),
        ("1," + "7" * 200_000 + ",Training", "not a table"),
    ],
)
def test_a_line_of_another_kind_is_told(tmp_path, bad, told):
    file = tmp_path / "a.csv"
    file.write_text(f"emotion,pixels,Usage\n1,{PIXELS},Training\n{bad}\n")
    with pytest.raises(Fer2013Error, match=told) as error:
        read_csv(file, "train")
    assert "line 3" in str(error.value) or "not a table" in told


def test_another_table_no_table_and_an_empty_split_are_told(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(Fer2013Error, match="expected emotion, pixels and Usage"):
        read_csv(file, "train")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Fer2013Error, match="not a table"):
        read_csv(file, "train")
    file.write_text(f"emotion,pixels,Usage\n1,{PIXELS},Training\n")
    with pytest.raises(Fer2013Error, match="no line has the Usage PrivateTest"):
        read_csv(file, "test")
    with pytest.raises(Fer2013Error, match="No such file"):
        read_csv(tmp_path / "b.csv", "test")
    with pytest.raises(Fer2013Error, match="no split"):
        read_csv(file, "private")
