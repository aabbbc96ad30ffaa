"""Adaptation swaps norm parameters while the camera runs: no output is a mixture, and nothing is left behind."""

import gc
import itertools
import queue
import threading
import time

import numpy as np
import onnx
import psutil
import pytest

from engines.engine import Engine
from engines.norms import read_norms

ONE = {"N": 1}
SWAPS = 6


@pytest.fixture(scope="module")
def face(pack) -> onnx.ModelProto:
    return onnx.load(str(pack.face))


def other_norms(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Norm parameters a little off the model's own, in every layer."""
    rng = np.random.default_rng(1)
    return {
        name: value * rng.uniform(0.8, 1.2, value.shape).astype(np.float32)
        for name, value in read_norms(model).items()
    }


def chips(engine: Engine, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    (spec,) = engine.inputs
    return [rng.integers(0, 256, spec.shape, np.uint8) for _ in range(count)]


def copied(engine: Engine, chip: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in engine.run({"chip": chip}).items()}


class Camera(threading.Thread):
    """Runs whichever engine it was given last, and says of each output whose it is."""

    def __init__(self, engine: Engine, feeds: list[np.ndarray], answers: list[list[dict]], runs: int) -> None:
        super().__init__()
        self.offered: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.engine = engine
        self.seen = [0] * len(answers)
        self.swaps = 0
        self.torn = 0
        self.failure: Exception | None = None
        self._feeds, self._answers, self._runs = feeds, answers, runs

    def run(self) -> None:
        """So many runs, and on until there were enough swaps: how long one takes depends on the backend."""
        try:
            for number in itertools.count():
                if self.stopping.is_set() or (number >= self._runs and self.swaps >= SWAPS):
                    break
                self._take()
                self._look(number % len(self._feeds))
        except Exception as error:
            self.failure = error

    def _take(self) -> None:
        """Swap between two runs, as perception does between two frames."""
        if not self.offered.empty():
            self.engine.close()
            self.engine = self.offered.get()
            self.swaps += 1

    def _look(self, which: int) -> None:
        outputs = self.engine.run({"chip": self._feeds[which]})
        for model, answers in enumerate(self._answers):
            if all(np.array_equal(outputs[name], answers[which][name]) for name in outputs):
                self.seen[model] += 1
                return
        self.torn += 1


@pytest.mark.parametrize(("network", "runs"), [("small", 10_000), ("face", 300)])
def test_every_output_is_one_of_the_two_networks(make, network, runs, request):
    model = request.getfixturevalue(network)
    norms = [read_norms(model), other_norms(model)]
    engine = make(model, ONE)
    feeds = chips(engine, 4)
    answers = []
    for params in norms:
        one = engine.with_norms(params)
        answers.append([copied(one, chip) for chip in feeds])
        one.close()
    assert not np.array_equal(answers[0][0]["embedding"], answers[1][0]["embedding"])

    camera = Camera(engine, feeds, answers, runs)
    latest, offers = engine, 0
    camera.start()
    try:
        while camera.is_alive():
            if camera.offered.empty():
                offers += 1
                latest = latest.with_norms(norms[offers % 2])
                camera.offered.put(latest)
            time.sleep(0.001)
    finally:
        camera.stopping.set()
        camera.join()
    camera.engine.close()
    while not camera.offered.empty():
        camera.offered.get().close()

    assert camera.failure is None
    assert camera.torn == 0
    assert sum(camera.seen) >= runs
    assert min(camera.seen) > 0


def test_swaps_leave_nothing_behind(make, small):
    """Each engine holds two megabytes of weights: thirty that stayed would be seen."""
    process = psutil.Process()
    norms = [read_norms(small), other_norms(small)]
    engine = make(small, ONE)
    (chip,) = chips(engine, 1)

    def swap(times: int) -> tuple[int, int, int]:
        nonlocal engine
        for number in range(times):
            fresh = engine.with_norms(norms[number % 2])
            fresh.run({"chip": chip})
            engine.close()
            engine = fresh
        gc.collect()
        return process.memory_info().rss, process.num_threads(), process.num_fds()

    memory, threads, files = swap(15)  # what a library sets up once, it sets up now
    memory_after, threads_after, files_after = swap(30)
    engine.close()
    assert memory_after - memory < 20 * 2**20
    assert threads_after <= threads
    assert files_after <= files
