import numpy as np
import pytest

from calibration.fer2013 import CHIP_FROM_IMAGE, Fer2013Error, read_split, to_chip

IMAGES = np.zeros((3, 48, 48), np.uint8)
LABELS = np.int64([0, 3, 6])


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_a_split_is_read_as_images_and_labels(tmp_path):
    images, labels = read_split(
        write(tmp_path / "f.npz", test_x=IMAGES, test_y=LABELS.astype(np.uint8)), "test"
    )
    assert images.shape == (3, 48, 48)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 3, 6]


def test_the_real_set_has_the_published_sizes(fer2013):
    assert [len(read_split(fer2013, split)[1]) for split in ("train", "validation", "test")] == [
        28709,
        3589,
        3589,
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_x": IMAGES}, "no array test_x; it holds train_x"),
        ({"test_x": IMAGES}, "no array test_y"),
        ({"test_x": IMAGES.astype(np.float32), "test_y": LABELS}, "float32 .*expected uint8"),
        ({"test_x": IMAGES[:, :40], "test_y": LABELS}, r"\[3, 40, 48\].*expected uint8 \[N, 48, 48\]"),
        ({"test_x": IMAGES, "test_y": LABELS[:2]}, r"int64 \[2\]; expected integers \[3\]"),
        ({"test_x": IMAGES, "test_y": LABELS / 2}, "float64"),
        ({"test_x": IMAGES, "test_y": LABELS + 1}, "from 1 to 7; expected 0 to 6"),
        ({"test_x": IMAGES[:0], "test_y": LABELS[:0]}, "no image"),
        ({"test_x": np.array([None], object), "test_y": LABELS}, "plain arrays"),
    ],
)
def test_a_wrong_array_is_named(tmp_path, arrays, message):
    with pytest.raises(Fer2013Error, match=message):
        read_split(write(tmp_path / "f.npz", **arrays), "test")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(Fer2013Error, match=r"broken\.npz") as refused:
        read_split(path, "test")
    assert "unsafe" not in str(refused.value)  # numpy's advice


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(Fer2013Error, match="single array"):
        read_split(tmp_path / "one.npy", "test")


def test_a_missing_file_and_an_unknown_split_are_named(tmp_path):
    with pytest.raises(Fer2013Error, match=r"nowhere\.npz does not exist"):
        read_split(tmp_path / "nowhere.npz", "test")
    with pytest.raises(Fer2013Error, match="is no file"):
        read_split(tmp_path, "test")
    with pytest.raises(Fer2013Error, match="no split 'private'"):
        read_split(tmp_path / "nowhere.npz", "private")


def test_the_typical_face_lands_on_the_template():
    landmarks = np.array([[14.94, 19.48], [32.14, 18.96], [23.67, 28.49], [17.15, 35.75], [31.05, 35.37]])
    template = np.array([[47.5, 46.6], [100.5, 46.6], [74.0, 76.6], [50.4, 103.0], [97.6, 103.0]])
    mapped = landmarks @ CHIP_FROM_IMAGE[:, :2].T + CHIP_FROM_IMAGE[:, 2]
    assert np.abs(mapped - template).max() < 3


def test_a_dot_in_the_image_is_where_the_map_says_in_the_chip():
    image = np.zeros((48, 48), np.uint8)
    image[28, 23] = 255
    chip = to_chip(image)
    assert chip.shape == (150, 150, 3)
    assert chip.dtype == np.uint8
    assert (chip[:, :, 0] == chip[:, :, 2]).all()
    row, column = np.unravel_index(chip[:, :, 0].argmax(), (150, 150))
    x, y = CHIP_FROM_IMAGE @ (23, 28, 1)
    assert abs(column - x) <= 1
    assert abs(row - y) <= 1


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\[50, 48\]"):
        to_chip(np.zeros((50, 48), np.uint8))
