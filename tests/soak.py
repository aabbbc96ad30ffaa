"""Run the agent for long and watch it: ``python -m tests.soak [--frames 20000 | --minutes 60 --adaptation]``
(``make soak``).

With ``--frames`` the sample clip plays in a loop as fast as the chain goes, and every frame of it is read. With
``--minutes`` it plays at ten frames a second, and each minute brings what a day brings: somebody is enrolled and
somebody forgotten, a subscriber stands still for a third of a minute and goes on, the configuration is read again.

Exit status 1 when memory grows, is above the limit, an event is missing, the gallery does not hold what was written
into it, or the subscriber that stood still hears nothing any more.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil
import zmq

from agent import paths
from agent.perception.types import Image
from agent.samples import clip
from calibration.corruptions import corrupt

LIMIT_MB = 450.0
ADAPTED_LIMIT_MB = 600.0  # a second face engine stands beside the first while the agent changes over
# From the first third to the last, after a tenth in which every buffer is allocated; highest against highest, for an
# agent that adapts needs more while it does than while it does not.
GROWTH = 0.02
_SILENCE_MS = 30_000
_MINUTE_S = 60.0
_STILL_S = 20.0  # of each minute the stalling subscriber stands still
_QUEUE = 50  # so few that a subscriber who stands still misses messages
_KEPT = 3  # people in the gallery at any time
_PEOPLE = "obama.jpg", "biden.jpg"


@dataclass
class Box:
    """The folder that a daemon lives in, and what is run there."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "CABINSENSE_DATA": str(self.folder),
            "CABINSENSE_CONFIG": str(self.folder / "config.toml"),
        }

    def configure(self, source: Path, camera: str, tier: str) -> None:
        (self.folder / "config.toml").write_text(
            f'pack = "{paths.data_dir() / "packs" / "default"}"\n'
            f'[[cameras]]\nname = "cabin"\nsource = "{source}"\nloop = true\n{camera}\n'
            f'[events]\nendpoint = "ipc://{self.folder}/e"\nqueue = {_QUEUE}\n'
            f'[control]\nendpoint = "ipc://{self.folder}/c"\n'
            f'[adaptation]\ntier = "{tier}"\n'
        )

    def start(self, *arguments: str, **more: object) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "agent", *arguments]
        return subprocess.Popen(command, env=self.environment, **more)

    def ask(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "agent", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout


@dataclass
class Watch:
    """What was seen of the daemon so far."""

    daemon: "subprocess.Popen[bytes]"
    endpoint: str
    limit_mb: float
    first: int = 0
    last: int = 0
    gaps: int = 0
    rss: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._process = psutil.Process(self.daemon.pid)
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.rcvhwm = 0
        self._socket.subscribe("face")
        self._socket.connect(self.endpoint)

    @property
    def frames(self) -> int:
        return self.last - self.first

    def next(self) -> None:
        """Take in one face event."""
        if not self._socket.poll(_SILENCE_MS):
            sys.exit("no event for 30 s")
        seq = json.loads(self._socket.recv_multipart()[1])["seq"]
        self.gaps += bool(self.last) and seq != self.last + 1
        self.first, self.last = self.first or seq, seq

    def mark(self) -> None:
        """Write down how much memory is in use."""
        self.rss.append(self._process.memory_info().rss / 2**20)
        print(
            f"{self.frames:6d} frames  {self.rss[-1]:6.1f} MiB  {self._process.num_threads()} threads  "
            f"{self._process.num_fds()} files",
            flush=True,
        )

    def verdict(self) -> int:
        settled = self.rss[len(self.rss) // 10 :]
        third = max(1, len(settled) // 3)
        growth = max(settled[-third:]) / max(settled[:third]) - 1
        print(f"peak {max(self.rss):.1f} MiB, growth {growth:+.2%}, gaps {self.gaps}")
        return int(growth > GROWTH or max(self.rss) > self.limit_mb or self.gaps > 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--minutes", type=int)
    parser.add_argument(
        "--adaptation", action="store_true", help="with the statistics tier on, and light that comes and goes"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        box = Box(Path(folder))
        tier, source = ("statistics", changing(box.folder)) if options.adaptation else ("off", clip())
        box.configure(source, "fps = 10" if options.minutes else "every_frame = true\nfps = 1000", tier)
        daemon = box.start("run", "--no-table", stdout=subprocess.DEVNULL)
        try:
            limit = ADAPTED_LIMIT_MB if options.adaptation else LIMIT_MB
            watch = Watch(daemon, f"ipc://{folder}/e", limit)
            if options.minutes:
                return days(box, watch, options.minutes)
            return frames(watch, options.frames)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=10)


def changing(folder: Path) -> Path:
    """The sample clip three times as it is and three times in the dark: something to adapt to."""
    reader, path = cv2.VideoCapture(str(clip())), folder / "changing.avi"
    frames: list[Image] = []
    while (read := reader.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (width, height))
    for frame in [*frames * 3, *[corrupt(frame, "low_light", 2) for frame in frames] * 3]:
        writer.write(frame)
    writer.release()
    return path


def frames(watch: Watch, count: int) -> int:
    """Count face events until ``count`` have come; 1 if anything was not as promised."""
    while watch.frames < count:
        watch.next()
        if watch.frames % max(1, count // 20) == 0:
            watch.mark()
    return watch.verdict()


def days(box: Box, watch: Watch, minutes: int) -> int:
    """Live through so many minutes; 1 if anything was not as promised."""
    heard, said = box.folder / "heard.jsonl", box.folder / "said.txt"
    watch.next()  # the daemon is up
    with heard.open("wb") as out, said.open("wb") as err:
        listener = box.start("events", stdout=out, stderr=err)
        try:
            faults = sum([minute(box, watch, listener, heard, number) for number in range(minutes)])
        finally:
            listener.send_signal(signal.SIGCONT)
            listener.kill()
            listener.wait()
    missed = said.read_text().count("messages missed")
    print(f"the subscriber that stood still missed messages {missed} times, faults {faults}")
    print(told(heard))
    return int(watch.verdict() or faults > 0)


def told(heard: Path) -> str:
    """What the subscriber that stood still heard of adaptation: how often each reason was given."""
    events = [json.loads(line) for line in heard.read_text().splitlines()]
    return f"adaptation: {dict(Counter(each['reason'] for each in events if each['topic'] == 'adaptation'))}"


def minute(box: Box, watch: Watch, listener: "subprocess.Popen[bytes]", heard: Path, number: int) -> int:
    """One minute; returns how many things were not as promised."""
    began = time.monotonic()
    listener.send_signal(signal.SIGSTOP)
    name = f"Person {number}"
    box.ask("record", name, "--anyway", "--image", str(paths.samples_dir() / _PEOPLE[number % 2]))
    if number >= _KEPT:
        box.ask("gallery", "delete", "--yes", f"Person {number - _KEPT}")
    watch.daemon.send_signal(signal.SIGHUP)
    wanted = {f"Person {each}" for each in range(max(0, number - _KEPT + 1), number + 1)}
    found = {person["name"] for person in json.loads(box.ask("gallery", "list", "--json"))}
    while time.monotonic() - began < _STILL_S:
        watch.next()
    listener.send_signal(signal.SIGCONT)
    size, resumed = heard.stat().st_size, time.monotonic()
    # Counted from here, for a busy machine may have taken the minute for the rest.
    while time.monotonic() - resumed < _MINUTE_S - _STILL_S:
        watch.next()
    watch.mark()
    deaf = heard.stat().st_size == size
    if found != wanted:
        print(f"the gallery holds {sorted(found)}, not {sorted(wanted)}")
    if deaf:
        print("the subscriber that stood still hears nothing any more")
    return int(found != wanted) + int(deaf)


if __name__ == "__main__":
    sys.exit(main())
