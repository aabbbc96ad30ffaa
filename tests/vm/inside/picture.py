"""Inside the guest: let the picture of the camera move to the right, or stand still."""

import fcntl
import struct
import sys
from pathlib import Path

_HOR_MOVEMENT = 0x00F0F000 + 2  # VIVID_CID_HOR_MOVEMENT in the kernel's vivid-ctrls.c
_MODES = {"still": 3, "moving": 6}  # its menu: No Movement, Move Right Fast
_VIDIOC_S_CTRL = 0xC008561C  # _IOWR('V', 28, struct v4l2_control)


def main(mode: str) -> None:
    with Path("/dev/cabin-camera").open("r+b", buffering=0) as camera:
        fcntl.ioctl(camera, _VIDIOC_S_CTRL, struct.pack("=Ii", _HOR_MOVEMENT, _MODES[mode]))


if __name__ == "__main__":
    main(sys.argv[1])
