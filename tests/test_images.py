"""A still image is read as it is meant to be seen, or refused with its name and what is wrong with it."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images import MAX_PIXELS, SUFFIXES, ImageError, declared_size, read_image

WRITABLE = (".png", ".jpg", ".bmp", ".webp", ".tiff")


def encoded(image, suffix: str) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF segment that says how the camera was held."""
    directory = struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + directory
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises much and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        (1, "top left"),
        (2, "top right"),
        (3, "bottom right"),
        (4, "bottom left"),
        (5, "top left"),
        (6, "top right"),
        (7, "bottom right"),
        (8, "bottom left"),
    ],
)
def test_a_photograph_is_turned_upright_as_its_camera_noted(tmp_path, orientation, corner):
    stored = np.zeros((40, 80, 3), np.uint8)
    stored[:10, :10] = 255
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_orientation(encoded(stored, ".jpg"), orientation))
    image = read_image(path)
    assert image.shape == ((40, 80, 3) if orientation < 5 else (80, 40, 3))
    rows = slice(0, 8) if "top" in corner else slice(-8, None)
    columns = slice(0, 8) if "left" in corner else slice(-8, None)
    assert image[rows, columns].mean() > 240
    assert image.mean() < 40


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 30), (40, 30, 4), (3, 500, 3)])
def test_whatever_the_format_holds_it_becomes_three_channels_of_a_byte(tmp_path, suffix, shape):
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(np.full(shape, 200, np.uint8), suffix))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (*shape[:2], 3)
    assert np.abs(image.astype(int) - 200).max() <= 4


def test_sixteen_bits_become_eight(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(encoded(np.full((5, 5, 3), 0x8000, np.uint16), ".png"))
    assert np.unique(read_image(path)) == [0x80]


def test_an_image_ten_thousand_pixels_wide_is_read(tmp_path):
    path = tmp_path / "wide.png"
    path.write_bytes(encoded(np.zeros((50, 10_000), np.uint8), ".png"))
    assert read_image(path).shape == (50, 10_000, 3)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.jpg", None, "No such file"),
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"this is a letter", "not an image"),
        (
            "cut.png",
            encoded(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8), ".png")[:999],
            "cut off",
        ),
        ("huge.png", png_header(10_000, 10_001), "10000 × 10001 pixels are too many"),
        ("vast.png", png_header(100_000, 100_000), "100 megapixels"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_reason(tmp_path, name, content, told):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=name) as caught:
        read_image(path)
    assert told in str(caught.value)


def test_neither_a_folder_nor_a_pipe_nor_a_device_without_end_is_read(tmp_path):
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", type(tmp_path)("/dev/zero")):
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(path)


@given(
    suffix=st.sampled_from((*WRITABLE, ".gif")),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    depth=st.sampled_from((3, 4)),
)
def test_the_header_tells_the_size_before_anything_is_decoded(suffix, width, height, depth):
    data = encoded(np.zeros((height, width, depth), np.uint8), suffix)
    assert declared_size(data) == (width, height)
    assert declared_size(data[:4096]) in ((width, height), None)


@given(
    start=st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"MM\0*"]
    )
    | st.sampled_from([b"RIFF\0\0\0\0WEBP" + kind for kind in (b"VP8 ", b"VP8L", b"VP8X", b"ABCD")]),
    rest=st.binary(max_size=300),
)
def test_no_bytes_crash_the_reading_of_headers(start, rest):
    size = declared_size(start + rest)
    assert size is None or len(size) == 2


def test_a_bitmap_that_starts_at_the_top_has_its_size_all_the_same():
    data = bytearray(encoded(np.zeros((20, 30, 3), np.uint8), ".bmp"))
    data[22:26] = struct.pack("<i", -20)
    assert declared_size(bytes(data)) == (30, 20)


def test_the_suffixes_are_of_formats_that_can_be_read(tmp_path):
    assert set(WRITABLE) <= SUFFIXES
    assert MAX_PIXELS >= 10_000 * 10_000
