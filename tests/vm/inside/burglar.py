"""Inside the guest, in the service's sandbox: try what somebody would who has taken the process over.

Prints JSON: for each attempt ``done``, or the name of the error that stopped it.
"""

import ctypes
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_ELSEWHERE = (
    "198.51.100.7",
    9,
)  # the test gives this address to the loopback: what is sent there would arrive


def device(path: str) -> Callable[[], None]:
    return lambda: os.close(os.open(path, os.O_RDWR))


def read(pattern: str) -> Callable[[], None]:
    def attempt() -> None:
        found = next(Path("/").glob(pattern), None)
        if found is None:
            raise OSError(errno.ENOENT, pattern)
        found.read_bytes()

    return attempt


def write(path: str) -> Callable[[], None]:
    return lambda: Path(path).write_text("was here")


def send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.sendto(b"a face", _ELSEWHERE)


def raw_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def own_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")


def real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def setuid_file() -> None:
    path = Path(os.environ["STATE_DIRECTORY"]) / "suid"
    path.touch()
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "camera": device("/dev/cabin-camera"),
    "gpio": device("/dev/gpiochip0"),
    "own state": write("/var/lib/cabinsense/.trace"),
    "disk": device("/dev/vda"),
    "kernel log": device("/dev/kmsg"),
    "program": write("/opt/cabinsense/venv/bin/cabinsense"),
    "unit": write("/etc/systemd/system/more.service"),
    "configuration": write("/etc/cabinsense/config.toml"),
    "journal": read("var/log/journal/*/*.journal"),
    "home": read("root/.*rc"),
    "other process": read("proc/1/environ"),
    "kernel setting": write("/proc/sys/kernel/core_pattern"),
    "message elsewhere": send,
    "raw socket": raw_socket,
    "own namespace": own_namespace,
    "real time": real_time,
    "setuid file": setuid_file,
}


def result(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def main() -> None:
    print(json.dumps({name: result(attempt) for name, attempt in ATTEMPTS.items()}))


if __name__ == "__main__":
    main()
