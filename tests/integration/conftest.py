"""A real daemon in a process of its own, on files of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from agent.samples import clip


@dataclass
class Agent:
    """The command line, with a configuration in its own folder."""

    folder: Path
    config: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "agent", *arguments]

    def environment(self) -> dict[str, str]:
        return os.environ | {"CABINSENSE_CONFIG": str(self.config), "CABINSENSE_DATA": str(self.folder)}

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def endpoints(self) -> tuple[str, str]:
        """Of events and of requests."""
        return self.network or (f"ipc://{self.folder}/run/e", f"ipc://{self.folder}/run/c")

    def configure(self, *cameras: str, more: str = "") -> None:
        tables = "\n".join(f"[[cameras]]\n{camera}\n" for camera in cameras)
        (self.folder / "run").mkdir(exist_ok=True)
        self.config.write_text(
            f'pack = "{self.pack}"\n{tables}\n{more}\n'
            f'[events]\nendpoint = "{self.endpoints[0]}"\nhealth_s = 0.3\n'
            f'[control]\nendpoint = "{self.endpoints[1]}"\n'
        )

    pack: Path = Path()
    network: tuple[str, str] | None = None


@pytest.fixture
def agent(tmp_path, pack) -> Agent:
    made = Agent(tmp_path, tmp_path / "config.toml", pack.path)
    made.configure()
    return made


@pytest.fixture
def looped_clip(samples) -> str:
    """A camera that plays the sample clip for ever."""
    return f'name = "cabin"\nsource = "{clip()}"\nloop = true'


@pytest.fixture
def daemon(agent, looped_clip) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts daemons and makes sure that none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *cameras: str, more: str = "", arguments: tuple[str, ...] = (), **variables: str
    ) -> subprocess.Popen[str]:
        agent.configure(*(cameras or (looped_clip,)), more=more)
        process = agent.start("run", "--no-table", *arguments, **variables)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


class Subscriber:
    """Collects events as any subscriber would."""

    def __init__(self, agent: Agent, *topics: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        for topic in topics or ("",):
            self._socket.subscribe(topic)
        self._socket.connect(agent.endpoints[0])

    def events(self, seconds: float) -> Iterator[dict]:
        """Events as they come, for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._socket.poll(left * 1e3):
                topic, body = self._socket.recv_multipart()
                event = json.loads(body)
                assert event["topic"] == topic.decode()
                yield event

    def wait_for(self, seconds: float = 30, **wanted: object) -> dict:
        """The first event that has these values."""
        (event,) = self.wait_for_all(wanted, seconds=seconds)
        return event

    def wait_for_all(self, *wanted: dict, seconds: float = 30) -> list[dict]:
        """The first event that has the values of each of ``wanted``, in whatever order they come."""
        found: list[dict | None] = [None] * len(wanted)
        for event in self.events(seconds):
            for i, values in enumerate(wanted):
                if found[i] is None and all(event.get(key) == value for key, value in values.items()):
                    found[i] = event
            if all(found):
                return found
        pytest.fail(f"of {wanted}, only {found} came within {seconds} s")

    def wait_for_face(self, state: str, seconds: float = 30) -> dict:
        """The first face event in which some face has this state."""
        for event in self.events(seconds):
            if event["topic"] == "face" and any(face["state"] == state for face in event["faces"]):
                return event
        pytest.fail(f"no face that is {state} within {seconds} s")

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def subscribe(agent) -> Iterator[Callable[..., Subscriber]]:
    made: list[Subscriber] = []

    def make(*topics: str) -> Subscriber:
        made.append(Subscriber(agent, *topics))
        return made[-1]

    yield make
    for each in made:
        each.close()
