"""Inside the guest: give the loopback a second address, which is not localhost's (``ip`` is not installed)."""

import fcntl
import socket
import struct
import sys

_SIOCSIFADDR = 0x8916


def main(address: str) -> None:
    packed = struct.pack("16sHH4s8s", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address), b"")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, _SIOCSIFADDR, packed)


if __name__ == "__main__":
    main(sys.argv[1])
