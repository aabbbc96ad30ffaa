"""Inside the guest: runs the commands that the host sends over a virtio port, one after another.

A request is a line of JSON, ``{"command": "…"}``; the reply is one too, ``{"status": 0, "output": "…"}``.
"""

import json
import os
import subprocess
from pathlib import Path

PORT = Path("/dev/virtio-ports/cabinsense")


def main() -> None:
    descriptor = os.open(PORT, os.O_RDWR)
    with os.fdopen(descriptor, "rb", closefd=False) as requests, os.fdopen(descriptor, "wb") as replies:
        for line in requests:
            request = json.loads(line)
            done = subprocess.run(
                ["/bin/bash", "-c", request["command"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            reply = {"status": done.returncode, "output": done.stdout.decode(errors="replace")}
            replies.write(
                json.dumps(reply).encode() + b"\n"
            )  # all of it, where the port takes 32 KiB at a time
            replies.flush()


if __name__ == "__main__":
    main()
