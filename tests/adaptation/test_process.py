"""The worker process: what it gets, what it is spared, and that it never outlives who has started it."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.adaptation.keeper import Keeper
from agent.adaptation.messages import Beat, Decided, Failed, FromWorker, Reset
from agent.adaptation.process import COMMAND, WorkerProcess
from agent.adaptation.ring import RingWriter, Shape
from agent.adaptation.types import Sample
from agent.config import AdaptationSettings

SCALED = (sys.executable, str(Path(__file__).with_name("scaled_worker.py")))
NO_TORCH = (sys.executable, str(Path(__file__).with_name("no_torch_worker.py")))
SETTINGS = AdaptationSettings(tier="statistics", every_s=0.05, duty=1.0, nice=7, threads=1)
SHAPE = Shape(150, 7)
PATIENCE_S = 60.0


@pytest.fixture
def ring() -> Iterator[RingWriter]:
    made = RingWriter(SHAPE)
    yield made
    made.close()


@pytest.fixture
def worker(pack, ring) -> Iterator[WorkerProcess]:
    made = WorkerProcess(SCALED, pack.face, SETTINGS, ring, epoch=1)
    yield made
    made.end()


def chip(level: int) -> np.ndarray:
    return np.full((150, 150, 3), level, np.uint8)


def sample(level: int) -> Sample:
    return Sample(chip(level), (1 / 7,) * 7, 1, time.monotonic())


def heard(worker: WorkerProcess, what: type[FromWorker]) -> FromWorker:
    """The next message of a kind."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        select.select([worker], [], [], 0.1)
        messages, open_still = worker.hear()
        for message in messages:
            if isinstance(message, what):
                return message
        assert open_still
    pytest.fail(f"no {what.__name__}")


def test_it_decides_about_the_chips_it_is_given_and_forgets_them_on_a_reset(worker, ring):
    ring.put(sample(100), 1)
    assert heard(worker, Decided).figures["gain"] == 2.0
    ring.put(sample(50), 0)  # of another epoch
    ring.put(sample(50), 2)
    worker.tell(Reset("driver", 2))
    ring.put(sample(80), 2)
    decision = heard(worker, Decided)
    while decision.epoch != 2:
        decision = heard(worker, Decided)
    # The second chip of the epoch may have been read before the reset had arrived; the first one never counts.
    assert decision.figures["gain"] in {2.5, round(200 / 65, 3)}


def test_it_is_nice_has_one_thread_for_its_libraries_and_sees_nothing_of_our_environment(
    worker, monkeypatch, pack, ring
):
    monkeypatch.setenv("CABINSENSE_SECRET", "not for you")
    another = WorkerProcess(SCALED, pack.face, SETTINGS, ring, epoch=1)
    try:
        heard(another, Beat)
        process = psutil.Process(another.pid)
        assert process.nice() == min(19, os.nice(0) + 7)
        environment = process.environ()
        assert "CABINSENSE_SECRET" not in environment
        assert environment["OMP_NUM_THREADS"] == "1"
        # Its socket, the ring, and three that lead nowhere or to our log; what it opens itself comes later.
        assert {0, 1, 2} < set(map(int, (path.name for path in Path(f"/proc/{another.pid}/fd").iterdir())))
        assert process.num_fds() <= 8
        assert os.getsid(another.pid) != os.getsid(0)
    finally:
        another.end()


PARENT = """
import sys, threading, time
from pathlib import Path
from agent.adaptation.process import WorkerProcess
from agent.adaptation.ring import RingWriter, Shape
from agent.config import AdaptationSettings

def start():
    ring = RingWriter(Shape(150, 7))
    settings = AdaptationSettings(tier="statistics")
    worker = WorkerProcess((sys.executable, sys.argv[1]), Path(sys.argv[2]), settings, ring, 1)
    kept.extend([ring, worker])
    while not worker.hear()[0]:
        time.sleep(0.01)
    print(worker.pid, flush=True)
    time.sleep(float(sys.argv[3]))

kept = []
thread = threading.Thread(target=start)
thread.start()
time.sleep(1000)
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["the process is killed", "the thread ends"])
def test_it_dies_with_the_daemon_and_with_the_stage(pack, how):
    seconds = 0 if how == "the thread ends" else 1000
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, SCALED[1], str(pack.face), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as parent:
        try:
            pid = int(parent.stdout.readline())
            if how == "the process is killed":
                parent.kill()
            wait_until(lambda: gone(pid))
        finally:
            parent.kill()


def test_a_worker_that_stands_still_is_ended_all_the_same(worker):
    heard(worker, Beat)
    os.kill(worker.pid, signal.SIGSTOP)
    process = psutil.Process(worker.pid)
    worker.end()
    assert not process.is_running()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", "it has failed: ArithmeticError"),
        ("stands still", "no sign of life for 1 s"),
        ("never decides", "more than 1 s over one decision"),
        ("talks nonsense", "it has sent nonsense"),
        ("talks without end", "1000 messages at once"),
        ("ends at once", "it has ended"),
    ],
)
def test_one_that_fails_is_followed_by_another_and_the_reason_is_told(pack, fault, words):
    settings = AdaptationSettings(tier="statistics", every_s=0.05, hang_s=1.0, decide_s=1.0)
    keeper = Keeper(pack.face, SHAPE, settings, (*SCALED, fault))
    end = time.monotonic() + PATIENCE_S
    problems, pids = set(), set()
    try:
        while keeper.starts < 3 or not any(words in problem for problem in problems):
            keeper.tend(time.monotonic(), 0)
            keeper.put(sample(100), 0)
            problems.add(keeper.problem)
            pids.add(keeper.pid)
            assert time.monotonic() < end, problems
            time.sleep(0.02)
    finally:
        keeper.close()
    assert all(gone(pid) for pid in pids - {None})


def test_what_the_user_can_mend_is_told_in_words_and_without_a_traceback(ring, tmp_path, capfd):
    worker = WorkerProcess(COMMAND, tmp_path / "face.onnx", SETTINGS, ring, epoch=1)
    try:
        failed = heard(worker, Failed)
        assert failed.message.startswith(f"{tmp_path}: no pack here")
        psutil.Process(worker.pid).wait(PATIENCE_S)
    finally:
        worker.end()
    assert "Traceback" not in capfd.readouterr().err


def test_without_pytorch_the_gradient_tier_says_what_to_install_and_statistics_work(ring, pack, capfd):
    def started(tier: str) -> WorkerProcess:
        settings = AdaptationSettings(tier=tier, every_s=0.05, duty=1.0)
        return WorkerProcess(NO_TORCH, pack.face, settings, ring, epoch=1)

    worker = started("gradient")
    try:
        message = heard(worker, Failed).message
    finally:
        worker.end()
    assert message.startswith("adaptation.tier is gradient: PyTorch is missing; install it with")
    assert "cabinsense[adapt]" in message
    assert "Traceback" not in capfd.readouterr().err
    worker = started("statistics")
    try:
        while not heard(worker, Beat).ready:
            pass
    finally:
        worker.end()


def test_a_worker_that_cannot_be_started_is_a_problem_with_a_name(pack):
    keeper = Keeper(pack.face, SHAPE, SETTINGS, ("/nowhere/worker",))
    keeper.tend(0.0, 0)
    assert "cannot be started" in keeper.problem
    assert "/nowhere/worker" in keeper.problem
    keeper.close()
