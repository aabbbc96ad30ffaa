"""The whole chain with the real models on a machine that becomes slower: who is in the picture stays right.

Only the time is made up: a clock that moves by what a run of each network costs on two x86-64 cores, so that the same
happens on every machine. ``tests/integration/load`` does it with a busy neighbour and a real clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from agent import networks
from agent.capture import open_source
from agent.config import Budget, Camera, Config, Engine
from agent.gallery.matcher import match
from agent.gallery.types import Snapshot
from agent.images import read_image
from agent.perception.chain import Chain, FaceReader
from agent.perception.types import Frame
from agent.samples import clip
from engines import engine as engines

FPS = 30
ONE_THREAD = Engine(threads=1)

DETECT_MS, COARSE_MS, FACE_MS = 3.6, 1.1, 2.4  # a run of each network
QUIET_MS = DETECT_MS + FACE_MS
"""What a frame with a look takes when nothing slows it."""


class SlowClock:
    """Moves only when a network has run."""

    def __init__(self) -> None:
        self.slower = 1.0
        self._chance = np.random.default_rng(0)
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def spend(self, ms: float) -> None:
        """``slower`` times as much, and now and then a little more or less."""
        spread = (0.8, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.1, 1.1, 1.3)[self._chance.integers(10)]
        self._now += ms * self.slower * spread / 1e3


@dataclass(frozen=True)
class Priced:
    """An engine with a price for each run."""

    engine: engines.Engine
    ms: float
    clock: SlowClock

    def buffer(self, name: str) -> engines.Array:
        return self.engine.buffer(name)

    def run(self) -> Mapping[str, engines.Array]:
        self.clock.spend(self.ms)
        return self.engine.run()


@pytest.fixture(scope="module")
def loaded(pack):
    models = networks.load(pack, Config(engine=ONE_THREAD), coarse=True)
    yield models
    models.close()


@pytest.fixture(scope="module")
def images(samples):
    source = open_source(Camera(name="cabin", source=str(clip())))
    frames = []
    while (image := source.read()) is not None:
        frames.append(np.ascontiguousarray(image))
    source.close()
    return frames


@pytest.fixture(scope="module")
def ask(pack, loaded, images, samples):
    """The man in the clip is enrolled, and somebody else."""
    reader = FaceReader(loaded, Config(), SlowClock())

    def template(images) -> np.ndarray:
        mean = np.mean([reader.look(each, reader.find(each)[0]).embedding for each in images], axis=0)
        return mean / np.linalg.norm(mean)

    templates = np.stack([template(images[::20]), template([read_image(samples / "obama.jpg")])])
    snapshot = Snapshot(("Man", "Obama"), templates.astype(np.float32), np.arange(2))
    return partial(match, snapshot=snapshot, threshold=pack.manifest.face.threshold, margin=0.0)


class Drive:
    """Frames of the clip, one after the other, by a clock of their own."""

    def __init__(self, loaded, images, ask, frame_ms: float) -> None:
        self.clock = SlowClock()
        self.frame_ms = frame_ms
        priced = replace(
            loaded,
            detector=Priced(loaded.detector, DETECT_MS, self.clock),
            coarse=Priced(loaded.coarse, COARSE_MS, self.clock),
            face=Priced(loaded.face, FACE_MS, self.clock),
        )
        self._chain = Chain(priced, Config(engine=ONE_THREAD, budget=Budget(frame_ms=frame_ms)), self.clock)
        self._images, self._ask, self._count = images, ask, 0

    def __call__(self, seconds: float, slower: float = 1.0):
        self.clock.slower = slower
        readings = []
        for _ in range(round(seconds * FPS)):
            image = self._images[self._count % len(self._images)]
            frame = Frame("cabin", self._count, self._count / FPS, 0.0, image)
            readings.append(self._chain.process(frame, self._ask))
            self._count += 1
        return readings


def names(readings) -> set[str | None]:
    return {face.match.person for each in readings for face in each.faces if face.match is not None}


@pytest.mark.parametrize("budget", [3.0, 2.0])
def test_slowed_four_times_the_deadline_holds_and_the_man_stays_who_he_is(loaded, images, ask, budget):
    """The budget is so many times what a frame with a look takes on the quiet machine."""
    drive = Drive(loaded, images, ask, budget * QUIET_MS)
    before = drive(3)
    assert all(each.rung == 0 for each in before)
    drive(2, slower=4)
    readings = drive(10, slower=4)
    assert sum(each.late for each in readings) <= 0.01 * len(readings)
    assert all(each.rung >= 1 for each in readings)
    assert names(readings) == {"Man"}
    assert [face.state for each in readings for face in each.faces] == ["confirmed"] * len(readings)
    assert {face.track for each in readings for face in each.faces} == {1}
    assert all(face.coasting for each in readings for face in each.faces if "detect" not in each.stage_ms)
    assert drive(10)[-1].rung == 0


def test_a_stranger_who_sits_down_during_overload_is_never_called_by_a_name(loaded, images, ask, samples):
    stranger = read_image(samples / "biden.jpg")
    drive = Drive(loaded, images, ask, 3 * QUIET_MS)
    drive(3)
    drive(3, slower=4)
    drive._images = [stranger]
    readings = drive(6, slower=4)
    assert [face.state for face in readings[-1].faces] == ["unknown"]
    assert readings[-1].faces[0].track != 1
    new = [face for each in readings for face in each.faces if face.track != 1]
    assert {face.match.person for face in new if face.match is not None} == {None}


def test_a_face_that_was_not_looked_for_says_so_and_has_no_embedding(loaded, images, ask):
    drive = Drive(loaded, images, ask, 2 * QUIET_MS)
    drive(2)
    readings = drive(5, slower=12)
    blind = [each for each in readings if "detect" not in each.stage_ms]
    assert blind
    for each in blind:
        assert each.rung == 5
        assert all(face.coasting and face.embedding is None for face in each.faces)


def test_recording_looks_at_every_face_however_slow_the_machine_is(loaded, images, ask):
    drive = Drive(loaded, images, ask, 2 * QUIET_MS)
    drive(2)
    drive(3, slower=6)
    for i in range(10):
        frame = Frame("cabin", 900 + i, 100 + i / FPS, 0.0, images[i])
        reading = drive._chain.process(frame, ask, look_always=True)
        assert reading.rung == 0
        assert all(face.embedding is not None for face in reading.faces)
