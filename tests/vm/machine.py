"""A machine that runs the guest: QEMU without hardware virtualisation, told what to do over a virtio port.

Time in it is counted in instructions, one nanosecond each, as long as it is busy, and is that of the host while it is
idle (``-icount shift=0,sleep=on``): so a busy host never makes the guest miss a limit. All seconds that a test
measures inside are the guest's. It computes as fast as a processor that does 10⁹ instructions a second, which is a
quarter of one core of an Orin or less, and takes some five times as long to do so.
"""

import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_BOOT_S = 1200.0  # of the host's time; takes 10 to 20 on a quiet one
_BOUND_S = 3000.0  # the same for one command; the longest takes 300
_MEMORY_MB = 1536
_KERNEL = "console=ttyS0 root=/dev/vda rw loglevel=5 panic=-1 mitigations=off nokaslr random.trust_cpu=on"


class MachineError(AssertionError):
    """The machine or a command in it failed; the message holds what it said."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    output: str


class Machine:
    """One machine with a disk of its own, which is kept when it loses its power."""

    def __init__(self, guest: Path, disk: Path, folder: Path) -> None:
        """Nothing is started yet.

        Args:
            guest: the folder that ``build.sh`` fills.
            disk: the file that it wrote.
            folder: for the console's log and a socket; its path must be short.
        """
        self._guest = guest
        self._disk = disk
        self._folder = folder
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self.boots = 0

    def boot(self) -> None:
        """Turn it on and wait until it takes commands."""
        self.boots += 1
        path = self._folder / "port"
        path.unlink(missing_ok=True)
        self._qemu = subprocess.Popen(self._command_line(path), stdin=subprocess.DEVNULL)
        self._port = self._connect(path)
        self._port.settimeout(_BOOT_S)
        self.run("true")

    def run(self, command: str, *, seconds: float = _BOUND_S) -> str:
        """What a shell command says that must succeed; ``seconds`` are the host's."""
        done = self.try_to(command, seconds=seconds)
        if done.status:
            raise MachineError(f"{command!r} ended with status {done.status}:\n{done.output}")
        return done.output

    def try_to(self, command: str, *, seconds: float = _BOUND_S) -> Done:
        """A shell command that may fail; standard output and error in one."""
        self.send(command)
        assert self._port is not None
        self._port.settimeout(seconds)
        with self._port.makefile("rb") as lines:
            try:
                line = lines.readline()
            except TimeoutError:
                line = b""
        if not line:
            raise MachineError(
                f"no reply to {command!r} within {seconds:.0f} s; the console:\n{self._console()}"
            )
        reply = json.loads(line)
        return Done(reply["status"], reply["output"])

    def send(self, command: str) -> None:
        """Start a shell command without waiting for its reply, which only a loss of power may follow."""
        assert self._port is not None
        self._port.sendall(json.dumps({"command": command}).encode() + b"\n")

    def reports(self) -> dict[str, list[str]]:
        """What programs in the guest have written to the port ``done`` since it was booted.

        Lines by their first word. A line that has arrived was written before anything that the guest does later.
        """
        found: dict[str, list[str]] = {}
        for line in self._reports.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                word, _, rest = line.strip().partition(" ")
                found.setdefault(word, []).append(rest)
        return found

    def cut_power(self) -> None:
        """Take the power away: what the guest has not written by now is lost."""
        if self._qemu is not None:
            self._qemu.kill()
        self.wait_for_the_end()

    def wait_for_the_end(self, seconds: float = 60) -> None:
        """Wait until it is off."""
        if self._qemu is not None:
            self._qemu.wait(seconds)
        if self._port is not None:
            self._port.close()
        self._qemu = self._port = None

    def _connect(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(os.fspath(path))
            except OSError:
                port.close()
                if time.monotonic() > deadline:
                    raise MachineError(f"QEMU does not start:\n{self._console()}") from None
                time.sleep(0.05)
            else:
                return port

    @property
    def _reports(self) -> Path:
        return self._folder / f"done-{self.boots}"

    def _console(self) -> str:
        log = self._folder / f"console-{self.boots}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else ""

    def _command_line(self, port: Path) -> list[str]:
        return [
            "qemu-system-x86_64",
            *("-accel", "tcg,tb-size=512", "-icount", "shift=0,sleep=on", "-rtc", "clock=vm"),
            *("-M", "q35", "-cpu", "Nehalem", "-m", str(_MEMORY_MB), "-nodefaults", "-no-user-config"),
            *("-display", "none", "-no-reboot", "-nic", "none"),
            *(
                "-kernel",
                str(self._guest / "vmlinux"),
                "-initrd",
                str(self._guest / "initrd"),
                "-append",
                _KERNEL,
            ),
            *("-serial", f"file:{self._folder / f'console-{self.boots}.log'}"),
            *("-drive", f"file={self._disk},format=raw,if=virtio,cache=writeback"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={port},server=on,wait=off"),
            *("-device", "virtserialport,chardev=port,name=cabinsense"),
            *("-chardev", f"file,id=done,path={self._reports}"),
            *("-device", "virtserialport,chardev=done,name=done"),
        ]
