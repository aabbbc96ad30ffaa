"""Read still images: any format that OpenCV knows, turned upright, refused when there is something wrong with them."""

import os
import stat
import struct
from pathlib import Path

import cv2
import numpy as np

from agent.perception.types import Image
from engines.errors import UserError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm", ".pgm"}
)
"""What the names of image files end in, lower case."""

MAX_PIXELS = 100_000_000
_MAX_BYTES = 8 * MAX_PIXELS  # 16 bits, four channels, nothing compressed

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Whatever OpenCV has to say is also in an exception or a return value, which we put into words of our own.
    # OpenCV 4, which JetPack brings, has the switch in another place than OpenCV 5; 0 is silence in both.
    (cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)


class ImageError(UserError):
    """An image cannot be used; the message names the file and says what is wrong with it."""


def read_image(path: Path) -> Image:
    """The image in a file as uint8 BGR [height, width, 3], turned as its EXIF orientation says.

    Grey becomes three equal channels, 16 bits become 8, transparency is left out. Of an animation the first image
    is read.

    Raises:
        ImageError: the file is missing, cannot be read, is empty, is no image, or has more than ``MAX_PIXELS``.
    """
    return decode_image(_content(path), path)


def decode_image(data: bytes, name: Path | str) -> Image:
    """The image in the bytes of a file, as ``read_image`` gives it.

    Args:
        data: the whole file.
        name: what a message calls it.

    Raises:
        ImageError: it is no image, is damaged, or has more than ``MAX_PIXELS``.
    """
    size = declared_size(data)
    if size is not None:
        _check_size(name, *size)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{name}: OpenCV cannot read this image: {error.err}") from error
    if image is None:
        what = "damaged or cut off; copy it again" if size else "not an image that OpenCV can read"
        raise ImageError(f"{name}: {what}")
    _check_size(name, image.shape[1], image.shape[0])
    return np.asarray(image, np.uint8)


def _content(path: Path) -> bytes:
    """All bytes of a regular file that is not empty."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{path}: is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: is not a regular file")
        if status.st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        if status.st_size > _MAX_BYTES:
            raise ImageError(f"{path}: {status.st_size / 1e6:.0f} MB are too many for an image")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error


def _check_size(name: Path | str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} × {height} pixels are too many; at most {MAX_PIXELS // 10**6} megapixels are read: "
            "scale the image down"
        )


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a PNG, JPEG, GIF, BMP, WebP or TIFF; None for anything else.

    It costs nothing to learn from the header that an image is too large; to decode it first can take all memory.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _pair(">II", data, 16)
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _pair("<HH", data, 6)
        if data.startswith(b"BM"):
            width, height = _pair("<ii", data, 18)
            return abs(width), abs(height)  # a negative height says that the top row comes first
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff_size(data)
    except struct.error:  # cut off within its header
        return None
    return None


def _pair(layout: str, data: bytes, offset: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, data, offset)
    return first, second


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the frame header, the first segment of the kinds 0xC0 to 0xCF that is no table (ITU-T T.81, B.1.1.3)."""
    position = 2
    while data[position : position + 1] == b"\xff":
        marker, length = struct.unpack_from(">xBH", data, position)
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = _pair(">HH", data, position + 5)
            return width, height
        position += 2 + length
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """From the first chunk: plain, lossless or extended (RFC 9649, section 2)."""
    match data[12:16]:
        case b"VP8 ":
            width, height = _pair("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
            return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """From the tags 256 and 257 of the first directory (TIFF 6.0, section 2)."""
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    found: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in {256, 257}:
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return (found[256], found[257]) if len(found) == 2 else None
