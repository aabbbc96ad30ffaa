"""Cameras on the CSI connectors of a Jetson."""

import re
from fractions import Fraction

SCHEME = "csi://"
_WIDTH, _HEIGHT, _FPS = 1280, 720, 30.0  # a mode of nearly every sensor; the image processor scales from it


def sensor(source: str) -> int | None:
    """The number of the sensor in ``csi://NUMBER``; None if it is not that."""
    found = re.fullmatch(r"csi://([0-9]{1,2})", source)
    return int(found[1]) if found else None


def pipeline(sensor: int, width: int, height: int, fps: float) -> str:
    """The GStreamer pipeline that reads a sensor through NVIDIA's image processor.

    The elements are those of NVIDIA's Jetson Linux Developer Guide, "Accelerated GStreamer": ``nvarguscamerasrc`` gives
    frames in the processor's own memory, ``nvvidconv`` brings them into ours, but knows no BGR; that is made by
    ``videoconvert``. The sink keeps the newest frame alone, as a camera's mailbox does.

    Args:
        sensor: its number, from 0, in the order of the device tree.
        width: of the frames, pixels; 0: 1280.
        height: likewise; 0: 720.
        fps: frames a second; 0: 30.
    """
    rate = Fraction(fps or _FPS).limit_denominator(100)
    return " ! ".join(
        (
            f"nvarguscamerasrc sensor-id={sensor}",
            f"video/x-raw(memory:NVMM), width=(int){width or _WIDTH}, height=(int){height or _HEIGHT}, "
            f"framerate=(fraction){rate.numerator}/{rate.denominator}",
            "nvvidconv",
            "video/x-raw, format=(string)BGRx",
            "videoconvert",
            "video/x-raw, format=(string)BGR",
            "appsink drop=true max-buffers=1 sync=false",
        )
    )
