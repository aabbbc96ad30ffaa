"""Inside the guest, as root: enrol people, write plans and reload the configuration, without end.

Each time the daemon or the disk has said that something is done, a line goes to the host over a virtio port: ``enrolled
NAME``, ``plan NUMBER``, ``reloaded``. So the host knows what must be there when the power is back.
"""

import itertools
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from enrol import enrol

from agent.config import default_path
from engines.plans import Plan, PlanKey, write_plan
from engines.sources.storage import write_file

PLAN = Path("/var/lib/cabinsense/packs/default/plans/tensorrt-fp16/face.plan")
_PORT = Path("/dev/virtio-ports/done")
_LARGEST = 4 << 20  # bytes of a plan; a real one has tens of megabytes


def plan(number: int) -> Plan:
    """A plan as TensorRT would have built it, but for its content, by which it is known again."""
    content = random.Random(number)  # noqa: S311 - to be made again by who checks it
    key = PlanKey(
        onnx=f"{number:064x}",
        library="tensorrt",
        version="10.3.0",
        device="Orin",
        capability="8.7",
        precision="fp16",
        dims={"N": 1},
    )
    return Plan(key, content.randbytes(content.randrange(1, _LARGEST)))


def main(boot: int) -> None:
    with _PORT.open("wb", buffering=0) as port:

        def done(words: str) -> None:
            port.write(f"{words}\n".encode())

        jobs = [
            threading.Thread(target=job, args=(boot, done))
            for job in (enrol_for_ever, write_plans_for_ever, reload_for_ever)
        ]
        for each in jobs:
            each.start()
        for each in jobs:
            each.join()


def enrol_for_ever(boot: int, done: Callable[[str], None]) -> None:
    for number in itertools.count():
        done(f"enrolled {enrol(f'Person {boot}-{number}')}")


def write_plans_for_ever(boot: int, done: Callable[[str], None]) -> None:
    for number in itertools.count(boot * 1000):
        write_plan(PLAN, plan(number))
        done(f"plan {number}")


def reload_for_ever(boot: int, done: Callable[[str], None]) -> None:
    file = default_path()
    for number in itertools.count(boot):
        text = re.sub(r"health_s = .*", f"health_s = {0.5 + number % 7 / 10:.1f}", file.read_text())
        mode, owner = file.stat().st_mode, file.stat()
        write_file(file, text.encode())
        os.chown(file, owner.st_uid, owner.st_gid)
        file.chmod(mode)
        subprocess.run(["systemctl", "reload", "cabinsense"], check=True)
        done("reloaded")


if __name__ == "__main__":
    main(int(sys.argv[1]))
