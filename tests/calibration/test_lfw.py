import time

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import Config
from agent.images import read_image
from agent.networks import load
from agent.perception.chain import FaceReader
from agent.perception.types import Detection
from calibration.lfw import (
    LfwError,
    Pair,
    all_photographs,
    calibrates,
    central,
    check_photographs,
    labelled_looks,
    looks,
    photographs,
    read_pairs,
)

TWO_FOLDS = """2\t1
Ada_Lovelace\t1\t2
Ada_Lovelace\t1\tAlan_Turing\t12
Grace_Hopper\t3\t4
Grace_Hopper\t3\tAda_Lovelace\t2
"""


@pytest.fixture
def pairs_file(tmp_path):
    def write(text: str):
        path = tmp_path / "pairs.txt"
        path.write_text(text, "utf-8")
        return path

    return write


def test_the_pairs_of_two_folds_are_read_in_order(pairs_file):
    assert read_pairs(pairs_file(TWO_FOLDS)) == [
        Pair("Ada_Lovelace/Ada_Lovelace_0001.jpg", "Ada_Lovelace/Ada_Lovelace_0002.jpg", True, 0),
        Pair("Ada_Lovelace/Ada_Lovelace_0001.jpg", "Alan_Turing/Alan_Turing_0012.jpg", False, 0),
        Pair("Grace_Hopper/Grace_Hopper_0003.jpg", "Grace_Hopper/Grace_Hopper_0004.jpg", True, 1),
        Pair("Grace_Hopper/Grace_Hopper_0003.jpg", "Ada_Lovelace/Ada_Lovelace_0002.jpg", False, 1),
    ]


def test_line_ends_of_windows_and_blank_lines_at_the_end_do_not_matter(pairs_file):
    unix = read_pairs(pairs_file(TWO_FOLDS))
    assert read_pairs(pairs_file(TWO_FOLDS.replace("\n", "\r\n") + "\r\n\r\n")) == unix


def test_each_photograph_is_looked_at_once(pairs_file):
    photos = photographs(read_pairs(pairs_file(TWO_FOLDS)))
    assert len(photos) == len(set(photos)) == 5


@pytest.mark.parametrize(
    ("wrong", "line", "what"),
    [
        ("", 1, "number of folds"),
        ("ten\t300", 1, "number of folds"),
        ("1\t300", 1, "at least 2 folds"),
        (TWO_FOLDS.replace("\t1\t2\n", "\t1\n", 1), 2, "`NAME i j`"),
        (TWO_FOLDS.replace("\t1\t2\n", "\tone\t2\n", 1), 2, "'one'"),
        (TWO_FOLDS.replace("\t1\t2\n", "\t2\t2\n", 1), 2, "two different photographs"),
        (TWO_FOLDS.replace("Ada_Lovelace\t1\t2", "Ada_Lovelace 1 2", 1), 2, "separated by tabs"),
        (TWO_FOLDS.replace("Alan_Turing\t12", "Ada_Lovelace\t12"), 3, "for two people"),
        (TWO_FOLDS.replace("Grace_Hopper\t3\t4", "Grace_Hopper\t3\tAda_Lovelace\t2"), 4, "for one person"),
        (TWO_FOLDS.replace("Ada_Lovelace\t1\t2\n", "\t1\t2\n", 1), 2, "names no photograph"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(pairs_file, wrong, line, what):
    with pytest.raises(LfwError, match=rf"pairs.txt, line {line}: ") as error:
        read_pairs(pairs_file(wrong))
    assert what in str(error.value)


def test_a_list_that_was_cut_off_is_noticed(pairs_file):
    with pytest.raises(LfwError, match="4 lines; 2 folds of 1"):
        read_pairs(pairs_file("\n".join(TWO_FOLDS.split("\n")[:4])))


def test_a_missing_list_and_one_that_is_no_text_are_told_apart(tmp_path):
    with pytest.raises(LfwError, match="No such file"):
        read_pairs(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LfwError, match="not a text file"):
        read_pairs(tmp_path / "binary.txt")


def test_missing_photographs_are_noticed_before_the_long_work_and_counted(tmp_path, pairs_file):
    photos = photographs(read_pairs(pairs_file(TWO_FOLDS)))
    (tmp_path / "Ada_Lovelace").mkdir()
    (tmp_path / photos[0]).write_bytes(b"")
    with pytest.raises(LfwError, match=r"Ada_Lovelace_0002\.jpg does not exist.* 3 more"):
        check_photographs(tmp_path, photos)


NAME = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
NUMBERS = st.lists(st.integers(1, 9999), min_size=2, max_size=2, unique=True)


@given(st.data())
def test_every_well_formed_list_is_read(tmp_path_factory, data):
    folds, count = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 3))
    lines, expected = [f"{folds}\t{count}"], []
    for index in range(folds * 2 * count):
        i, j = data.draw(NUMBERS)
        genuine = index % (2 * count) < count
        first, second = data.draw(st.lists(NAME, min_size=2, max_size=2, unique=True))
        if genuine:
            second = first
        lines.append(f"{first}\t{i}\t{j}" if genuine else f"{first}\t{i}\t{second}\t{j}")
        a, b = f"{first}/{first}_{i:04d}.jpg", f"{second}/{second}_{j:04d}.jpg"
        expected.append(Pair(a, b, genuine, index // (2 * count)))
    path = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    path.write_text("\n".join(lines), "utf-8")
    assert read_pairs(path) == expected


@given(st.text(max_size=80))
@example("2\t1\n\t\t\n\t\t\t\n\t\t\n\t\t\t")
def test_any_other_text_is_refused_in_words(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(LfwError, match=r"pairs\.txt"):
        read_pairs(path)


def face(x1: float, y1: float, x2: float, y2: float) -> Detection:
    return Detection((x1, y1, x2, y2), 0.9, np.zeros((5, 2), np.float32))


def test_the_face_nearest_the_centre_is_the_one_that_the_photograph_is_about():
    image = np.zeros((250, 250, 3), np.uint8)
    passer_by, subject = face(0, 0, 160, 160), face(90, 85, 170, 175)
    assert central(image, [passer_by, subject]) is subject


def test_every_photograph_below_the_root_is_found_and_nothing_else(tmp_path):
    for name in ("Bob/b_2.JPG", "Ada/a_1.png", "Ada/notes.txt", "Cleo/.keep", "pairs.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert all_photographs(tmp_path) == ["Ada/a_1.png", "Bob/b_2.JPG"]
    with pytest.raises(LfwError, match=r"Cleo: no photographs here; name a folder"):
        all_photographs(tmp_path / "Cleo")
    with pytest.raises(LfwError, match="nowhere: no photographs"):
        all_photographs(tmp_path / "nowhere")


def test_people_stand_on_the_same_side_for_ever_and_half_on_either():
    sides = [calibrates(f"Person_{number}") for number in range(1000)]
    assert 430 < sum(sides) < 570
    assert sides[:4] == [True, True, False, True]


def test_the_subject_is_looked_at_and_a_photograph_without_a_face_gives_no_look(pack, samples, tmp_path):
    portrait = read_image(samples / "obama.jpg")
    beside = cv2.resize(read_image(samples / "biden.jpg"), None, fx=1.2, fy=1.2)
    height = max(portrait.shape[0], beside.shape[0])
    scene = np.zeros((height, 2 * beside.shape[1] + portrait.shape[1], 3), np.uint8)
    scene[: beside.shape[0], : beside.shape[1]] = beside
    scene[: portrait.shape[0], beside.shape[1] : beside.shape[1] + portrait.shape[1]] = portrait
    pictures = {"scene.png": scene, "alone.png": portrait, "nobody.png": np.zeros_like(portrait)}
    for name, image in pictures.items():
        cv2.imwrite(str(tmp_path / name), image)
    config = Config()
    networks = load(pack, config)
    reader = FaceReader(networks, config, time.perf_counter)
    found = dict(looks(reader, tmp_path, pictures))
    darker = dict(looks(reader, tmp_path, ["alone.png"], lambda image, photo: image // len(photo[:2])))
    networks.close()
    assert found["nobody.png"] is None
    assert found["scene.png"].embedding @ found["alone.png"].embedding > pack.manifest.face.threshold
    before, after = found["alone.png"].quality.brightness, darker["alone.png"].quality.brightness
    assert after == pytest.approx(before / 2, abs=2)
    named = labelled_looks((f"{photo[0]}/{photo}", look) for photo, look in found.items())
    assert named.names == ("a", "n", "s")
    assert [named.names[who] for who in named.person] == ["s", "a", "n"]
    assert named.undetected == 1
    assert (named.samples[1].embedding == found["alone.png"].embedding).all()
