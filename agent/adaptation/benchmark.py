"""What adapting costs the frames: the daemon with adaptation off and on, in turn, on the same pictures."""

import os
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import zmq
from rich.console import Console
from rich.progress import Progress

from agent.config import Budget, Button, Camera, Config, Control, Events, Gallery, Metrics
from agent.daemon import Daemon
from agent.events import AdaptationEvent, Tier
from agent.gallery.types import Snapshot
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Reading
from engines import pack as packs
from engines.errors import UserError

_BEGIN_S = 120.0  # for the worker to begin, and for the first decision
_SETTLE_S = 2.0  # after each change, before figures count
_UNREAD = 10_000  # readings, of which none is to be missed
_FRAME_S = 30.0  # a source that delivers no frame for so long has ended


class BenchmarkError(UserError):
    """The comparison cannot be made; the message says why."""


class Side(msgspec.Struct, frozen=True):
    """One of the two sides.

    Attributes:
        frames: frames measured, over all rounds.
        p50: median of the time a frame took, milliseconds.
        p99: likewise what one frame in a hundred exceeds.
        dropped: frames that came too fast, and were replaced by a newer one.
    """

    frames: int
    p50: float
    p99: float
    dropped: int


class AdaptationReport(msgspec.Struct, frozen=True):
    """The comparison.

    Attributes:
        tier: the one that was on.
        off: adaptation off.
        on: adaptation on.
        rounds: the 99th percentile with adaptation over that without, in each round.
        decisions: decisions while it was on, by reason.
        swaps: changes of engines.
        swap_ms: median and greatest time of a change, milliseconds; empty without any.
        build_ms: likewise to build an engine.
        load: runnable processes of this machine in the last minute, before and after.
    """

    tier: Tier
    off: Side
    on: Side
    rounds: tuple[float, ...]
    decisions: dict[str, int]
    swaps: int
    swap_ms: tuple[float, ...]
    build_ms: tuple[float, ...]
    load: tuple[float, float]


def compare(
    config: Config,
    tier: Tier,
    source: str,
    frames: int,
    rounds: int,
    console: Console,
    make: Callable[..., Daemon] = Daemon,
) -> AdaptationReport:
    """Run the daemon on ``source`` at its own rate, and turn adaptation on and off.

    Which side comes first changes from round to round.

    Args:
        config: its cameras, sockets, gallery and budget are not used.
        tier: what is turned on.
        source: a video or folder, which starts again at its end, or a device.
        frames: to measure on each side in each round.
        rounds: how often.
        console: shows the progress.
        make: makes the daemon.

    Raises:
        BenchmarkError: the pack has no norm bank, the worker does not begin, or the source delivers nothing.
        PackError, EngineError: as their names say.
    """
    pack = packs.verify(config.pack_path)
    if pack.bank is None:
        raise BenchmarkError(packs.no_bank(pack))
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="cabinsense-bench-") as folder:
        bench = _Bench(_alone(config, source, Path(folder)), make, pack)
        try:
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task("measuring", total=2 * rounds)
                for number in range(rounds):
                    for side in _order(tier, number):
                        bench.measure(side, frames)
                        progress.advance(task)
        finally:
            bench.close()
    off, on = bench.ms["off"], bench.ms[tier]
    made = [event for event in bench.events if event.swap_ms is not None]
    return AdaptationReport(
        tier,
        _side(off, bench.dropped["off"]),
        _side(on, bench.dropped[tier]),
        tuple(round(_p99(a) / _p99(b), 3) for a, b in zip(on, off, strict=True)),
        dict(Counter(event.reason for event in bench.events)),
        len(made),
        _spread([event.swap_ms for event in made if event.swap_ms is not None]),
        _spread([event.build_ms for event in made if event.build_ms is not None]),
        (round(before, 2), round(os.getloadavg()[0], 2)),
    )


def _order(tier: Tier, number: int) -> tuple[Literal["off"] | Tier, ...]:
    """The sides of a round; who comes first takes turns."""
    return ("off", tier) if number % 2 == 0 else (tier, "off")


class _Bench:
    """A daemon in this process, whose readings and decisions are taken down.

    Attributes:
        ms: for each side the times of the frames of each round, milliseconds.
        dropped: for each side, frames that came too fast.
        events: of the adaptation.
    """

    def __init__(self, config: Config, make: Callable[..., Daemon], pack: packs.Pack) -> None:
        self.ms: dict[str, list[list[float]]] = defaultdict(list)
        self.dropped: Counter[str] = Counter()
        self.events: list[AdaptationEvent] = []
        self._wanted = config
        self._live = Live(Snapshot())
        self._readings = Mailbox[Reading](_UNREAD)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = 0
        self._socket.subscribe("adaptation")
        self._socket.connect(config.events_endpoint)
        self._daemon = make(config, pack, self._live, self._readings, read=lambda: self._wanted)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="daemon")
        self._thread.start()

    def measure(self, side: Literal["off"] | Tier, frames: int) -> None:
        """Take down the times of so many frames with this tier.

        Raises:
            BenchmarkError: as ``compare``.
        """
        settings = msgspec.structs.replace(self._wanted.adaptation, tier=side)
        self._wanted = msgspec.structs.replace(self._wanted, adaptation=settings)
        self._daemon.reload()
        self._next()  # the first one: the daemon is up
        self._wait(lambda: self._is_on() if side != "off" else self._live.adaptation is None)
        settled = time.monotonic() + _SETTLE_S
        while time.monotonic() < settled:
            self._next()
        dropped = self._daemon.dropped_frames()
        self.ms[side].append([self._next().total_ms for _ in range(frames)])
        self.dropped[side] += self._daemon.dropped_frames() - dropped
        while self._socket.poll(0):
            self.events.append(_events.decode(self._socket.recv_multipart()[1]))

    def close(self) -> None:
        """End the daemon."""
        self._daemon.stop()
        self._thread.join()
        self._context.destroy(linger=0)

    def _is_on(self) -> bool:
        """The worker has begun and has made a decision."""
        found = self._live.adaptation
        return found is not None and found.ready and found.accepted + found.refused > 0

    def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _BEGIN_S
        while not condition():
            self._next()
            if time.monotonic() > end:
                why = "; ".join(self._daemon.notes()) or "no face was good enough, or the worker needs longer"
                raise BenchmarkError(f"nothing was adapted within {_BEGIN_S:g} s: {why}")

    def _next(self) -> Reading:
        """The next reading; those of before are waited for, not left out."""
        end = time.monotonic() + _FRAME_S
        while (reading := self._readings.take(0.1)) is None:
            if self._failure is not None:
                raise self._failure
            if time.monotonic() > end:
                raise BenchmarkError(f"no frame within {_FRAME_S:g} s; name another source")
        return reading

    def _run(self) -> None:
        try:
            self._daemon.run()
        except Exception as error:  # the boundary of the thread: told in the one that waits for frames
            self._failure = error


_events: msgspec.json.Decoder[AdaptationEvent] = msgspec.json.Decoder(AdaptationEvent)


def _alone(config: Config, source: str, folder: Path) -> Config:
    """The configuration with one camera, and sockets and a gallery of its own."""
    return msgspec.structs.replace(
        config,
        cameras=(Camera(name="bench", source=source, loop=True),),
        gallery=Gallery(path=str(folder / "gallery.db")),
        events=Events(endpoint=f"ipc://{folder}/events"),
        control=Control(endpoint=f"ipc://{folder}/control"),
        button=Button(),
        metrics=Metrics(),
        adaptation=msgspec.structs.replace(config.adaptation, tier="off"),
        budget=Budget(frame_ms=0),  # or what adapting costs is made up for by leaving out work
    )


def _p99(ms: Sequence[float]) -> float:
    return float(np.percentile(ms, 99))


def _side(rounds: Sequence[Sequence[float]], dropped: int) -> Side:
    ms = [each for times in rounds for each in times]
    return Side(len(ms), round(float(np.median(ms)), 3), round(_p99(ms), 3), dropped)


def _spread(ms: Sequence[float]) -> tuple[float, ...]:
    """Median and greatest."""
    return (round(float(np.median(ms)), 3), round(max(ms), 3)) if ms else ()
