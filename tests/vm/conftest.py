"""A car for the tests: a machine with a camera, in which the agent is installed as a service and runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.vm import standin
from tests.vm.machine import Machine

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

_CONFIG = f"""
[[cameras]]
name = "cabin"
source = "/dev/cabin-camera"
width = 320
height = 180
fps = 5

[detector]
width = {standin.SIDE}
height = {standin.SIDE}

[engine]
threads = 1

[events]
health_s = 0.5

[enrolment]
samples = 2
per_minute = 600
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it is in this checkout; built of a copy, for pip takes in what earlier builds have left."""
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("checkout")
    for name in ("agent", "calibration", "engines", "trainer"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, copy],
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="cabinsense-vm-"))
    yield path
    shutil.rmtree(path)


@dataclass
class Car:
    """The machine, and the service in it."""

    machine: Machine
    interpreter: ClassVar[str] = (
        "env CABINSENSE_DATA=/var/lib/cabinsense RUNTIME_DIRECTORY=/run/cabinsense "
        "/opt/cabinsense/venv/bin/python -u"
    )

    def run(self, command: str) -> str:
        """What a command says that must succeed."""
        return self.machine.run(command)

    def python(self, script: str, *arguments: str, user: str = "root") -> str:
        """Run one of the scripts in ``inside`` with the agent's own interpreter."""
        return self.run(
            f"runuser --user {user} -- {self.interpreter} /opt/rig/inside/{script} {shlex.join(arguments)}"
        )

    def service(self, *names: str) -> dict[str, str]:
        """Properties of the unit, as ``systemctl show`` has them."""
        lines = self.run(f"systemctl show cabinsense --property {','.join(names)}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def seconds_at(self, *names: str) -> list[float]:
        """Moments that systemd notes of the unit, seconds on the guest's monotonic clock."""
        found = self.service(*(f"{name}Monotonic" for name in names))
        return [int(found[f"{name}Monotonic"]) / 1e6 for name in names]

    def now(self) -> float:
        """Seconds on the guest's monotonic clock."""
        return float(self.run("cut --delimiter ' ' --fields 1 /proc/uptime"))

    def wait_for(self, what: str, check: Callable[[], object], *, seconds: float = 900) -> None:
        """Wait until ``check`` is true; ``seconds`` are the host's, which may be busy."""
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                state = self.machine.try_to(
                    "systemctl status --no-pager cabinsense; journalctl --no-pager --unit cabinsense | tail -n 40"
                )
                pytest.fail(f"{what} has not come within {seconds:.0f} s\n{state.output}")
            self.run(
                "sleep 0.5"
            )  # the guest's: who looks all the time takes its only processor from the service

    def is_ready(self) -> bool:
        """Whether the service runs and has said READY."""
        return self.service("ActiveState") == {"ActiveState": "active"}

    def disk(self) -> dict[str, Any]:
        """People and plan on the disk, see ``inside/check.py``; fails where anything there does not verify."""
        return json.loads(self.python("check.py", user="cabinsense"))

    def set_picture(self, *, moving: bool) -> None:
        """Let the camera's picture move or stand still; of one that stands still nobody can be enrolled."""
        self.python("picture.py", "moving" if moving else "still")

    def enrol(self, name: str) -> None:
        """Record somebody before the camera, whose picture moves from then on."""
        self.set_picture(moving=True)
        self.wait_for_frames()
        self.python("enrol.py", name)

    def wait_for_frames(self) -> None:
        """Wait until the daemon says that it looks at some frames a second."""
        self.wait_for("frames", lambda: re.search(r"[1-9].* frames a second", self.status()))

    def status(self) -> str:
        """What the daemon says of itself."""
        return self.service("StatusText")["StatusText"]


@pytest.fixture(scope="session")
def _parked(wheel: Path, folder: Path) -> Iterator[Car]:
    if os.geteuid() != 0:
        pytest.skip("the guest can only be built as root")
    if not shutil.which("apt-get"):
        pytest.skip("the guest is made of Debian's packages, and there is no apt-get")
    rig = folder / "rig"
    shutil.copytree(HERE / "inside", rig / "inside")
    shutil.copytree(ROOT / "systemd", rig / "systemd")
    shutil.copy(wheel, rig)
    standin.make(rig / "pack")
    (rig / "config.toml").write_text(_CONFIG)
    disk = folder / "disk"
    disk.touch()
    subprocess.run(
        [HERE / "build.sh", wheel, rig, disk], env=os.environ | {"PYTHON": sys.executable}, check=True
    )
    guest = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cabinsense-vm"
    car = Car(Machine(guest, disk, folder))
    try:
        car.machine.boot()
        yield car
    finally:
        car.machine.cut_power()


@pytest.fixture
def car(_parked: Car) -> Car:
    """The car with the service running; one machine for all tests."""
    if not _parked.is_ready():
        _parked.run(
            "systemctl reset-failed cabinsense; modprobe vivid; systemctl restart --no-block cabinsense"
        )
        _parked.wait_for("the service", _parked.is_ready)
    return _parked
