"""Inside the guest: unplug the camera and plug it in again, many times, while the service runs.

Prints JSON: for each time how it was done, how long the camera was away, how long after its return the first frame was
seen (seconds of the guest), and what the service's process held before and after.
"""

import fcntl
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import zmq

from agent.config import load

_CAMERA = Path("/dev/cabin-camera")
_DRIVER = Path("/sys/bus/platform/drivers/vivid")
_DISCONNECT = 0x00F0F000 + 65  # VIVID_CID_DISCONNECT in the kernel's vivid-ctrls.c
_VIDIOC_S_CTRL = 0xC008561C  # _IOWR('V', 28, struct v4l2_control)
_WARM_UP = 5
_LOST_S = 60.0  # who has no frame by then will get none


def main(times: int) -> None:
    process = Path("/proc") / shown("MainPID")
    with zmq.Context() as context, context.socket(zmq.SUB) as door:
        door.subscribe("face")
        door.connect(load().events_endpoint)
        wait_for_frame(door, time.monotonic())
        for i in range(_WARM_UP):
            unplug(door, i)
        before = held(process)
        rounds = [unplug(door, i) | held(process) for i in range(times)]
    print(json.dumps({"before": before, "rounds": rounds}))


def unplug(door: "zmq.Socket[bytes]", i: int) -> dict[str, object]:
    """One round. Every other time the device's node goes, too, and comes back under the number that is free by then."""
    away = (0.1, 0.5, 2.0, 5.0, 12.0)[i // 2 % 5] if i % 2 else 0.0
    if i % 2:
        (_DRIVER / "unbind").write_text("vivid.0")
        time.sleep(away)
        (_DRIVER / "bind").write_text("vivid.0")
        subprocess.run(["udevadm", "settle"], check=True)
    else:
        # vivid's own: what has it open loses it, and whoever opens it next gets it.
        camera = os.open(_CAMERA, os.O_RDWR)
        fcntl.ioctl(camera, _VIDIOC_S_CTRL, struct.pack("=Ii", _DISCONNECT, 1))
        os.close(camera)
    back = time.monotonic()
    seen = wait_for_frame(door, back)
    return {"how": "unbind" if i % 2 else "disconnect", "away": away, "after": seen - back}


def wait_for_frame(door: "zmq.Socket[bytes]", since: float) -> float:
    """When the first frame came that was captured after ``since``."""
    deadline = time.monotonic() + _LOST_S
    while (left := deadline - time.monotonic()) > 0:
        if door.poll(left * 1e3):
            _, body = door.recv_multipart()
            event = json.loads(body)
            if event["frame"] >= 0 and event["monotonic"] > since:
                return time.monotonic()
    raise SystemExit(f"no frame within {_LOST_S:.0f} s")


def held(process: Path) -> dict[str, float]:
    """Threads, open files and memory of a process."""
    pages = int((process / "statm").read_text().split()[1])
    return {
        "threads": len(list((process / "task").iterdir())),
        "files": len(list((process / "fd").iterdir())),
        "mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    }


def shown(name: str) -> str:
    command = ["systemctl", "show", "cabinsense", "--property", name, "--value"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(int(sys.argv[1]))
