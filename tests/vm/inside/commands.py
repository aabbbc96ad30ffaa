"""Inside the guest: runs the commands that the host sends over a virtio port, one after another.

A request is a line of JSON, ``{"command": "…"}``; the reply is one too, ``{"status": 0, "output": "…"}``.
"""

import json
import subprocess
from pathlib import Path

PORT = Path("/dev/virtio-ports/cabinsense")


def main() -> None:
    with PORT.open("r+b", buffering=0) as port:
        for line in iter(port.readline, b""):
            request = json.loads(line)
            done = subprocess.run(
                ["/bin/bash", "-c", request["command"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            reply = {"status": done.returncode, "output": done.stdout.decode(errors="replace")}
            port.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
