"""A busy neighbour on the agent's core: its deadline holds, and so does what it says about who is there.

This is a measurement, so it is no part of ``make test``: ``make test-load`` runs it, on a machine that does not do much
else.

The neighbour goes before the agent and computes for a part of every millisecond, so that the chain is four times as
slow, evenly and on every machine. The budget is a multiple of what a frame takes there when it is quiet. Where we may
run in real time (root may), both go before all else.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from agent.samples import clip

BUDGET = 2.0  # times what a frame with a look takes: of one that takes four times as long, half must be shed
SLOWER = 4.0
SETTLED_S = 2.0  # of adjustment, as promised
FRAMES = 600
RECOVERED_S = 10.0  # until everything is done again

NEIGHBOUR = """
import os, sys, time
busy, parent = float(sys.argv[1]) / 1e3, os.getppid()
while os.getppid() == parent:
    end = time.perf_counter() + busy
    while time.perf_counter() < end:
        pass
    time.sleep(1e-3 - busy)
"""


def go_before_others(rank: int) -> None:
    """Let this thread, and what it starts, run before others: 2 before 1, and both before all that is not real time.

    Without the right to that, 1 gives way to everything, and so also to 2.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(rank))
    except PermissionError:
        if rank == 1:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)


@pytest.fixture
def on_one_core() -> Callable:
    """Calls a function so that what it starts runs on one core, always the same, with this rank."""
    core = max(os.sched_getaffinity(0))

    def settled(function: Callable, rank: int):
        # Both hold for the calling thread and what it starts, not for the other threads of this process.
        os.sched_setaffinity(0, {core})
        go_before_others(rank)
        return function()

    def call(function: Callable, rank: int):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(settled, function, rank).result()

    return call


@pytest.fixture
def neighbour(on_one_core) -> Iterator[Callable[[float], None]]:
    """Lets a process compute for so many milliseconds in each; 0 ends it."""
    running: list[subprocess.Popen[bytes]] = []

    def busy(ms: float) -> None:
        while running:
            process = running.pop()
            process.kill()
            process.wait()
        if ms:
            command = [sys.executable, "-c", NEIGHBOUR, str(ms)]
            running.append(on_one_core(lambda: subprocess.Popen(command), 2))

    yield busy
    busy(0)


@pytest.fixture
def known(agent, samples) -> None:
    """The man in the clip is enrolled, and somebody else."""
    video = cv2.VideoCapture(str(clip()))
    pictures = []
    for i in range(61):
        image = video.read()[1]
        if i % 12 == 0:
            pictures.append(str(agent.folder / f"{i}.png"))
            cv2.imwrite(pictures[-1], image)
    for name, images in (("Man", pictures), ("Obama", [str(samples / "obama.jpg")])):
        taken = agent.run("record", name, "--image", *images)
        assert taken.returncode == 0, taken.stderr


def frames(subscriber, count: int, skip_s: float = 0.0) -> list[dict]:
    """The next ``count`` face events, after those of the first ``skip_s`` seconds."""
    events: list[dict] = []
    start = None
    for event in subscriber.events(120):
        if event["topic"] == "face":
            start = event["monotonic"] if start is None else start
            if event["monotonic"] - start >= skip_s:
                events.append(event)
            if len(events) == count:
                return events
    pytest.fail(f"of {count} frames only {len(events)} came\n{by_second(events)}")


def by_second(events: list[dict]) -> str:
    """What went on, for whoever has to understand a failure: a line for each second."""
    seconds: dict[int, list[dict]] = {}
    for event in events:
        seconds.setdefault(int(event["monotonic"] - events[0]["monotonic"]), []).append(event)
    return "\n".join(
        f"{second:3d} s: {len(told)} frames, rungs {sorted({each['rung'] for each in told})}, "
        f"{sum(each['late'] for each in told)} late, frame {milliseconds(told, 'total_ms')} ms, "
        f"detect {milliseconds([each['stage_ms'] for each in told], 'detect')} ms, "
        f"face {milliseconds([each['stage_ms'] for each in told], 'face')} ms"
        for second, told in seconds.items()
    )


def milliseconds(told: list[dict], key: str) -> str:
    """The middle one and the longest of those times that there are."""
    times = [each[key] for each in told if key in each]
    return f"{np.median(times):.1f} to {max(times):.1f}" if times else "-"


def detection_ms(events: list[dict]) -> np.ndarray:
    """What frames took in which the faces were found and not looked at."""
    return np.array([event["total_ms"] for event in events if "face" not in event["stage_ms"]])


def test_a_chain_slowed_four_times_keeps_its_deadline_and_knows_who_is_there(
    agent, daemon, subscribe, known, on_one_core, neighbour
):
    def start(frame_ms: float):
        subscriber = subscribe("face", "health")
        settings = f"[engine]\nthreads = 1\n[budget]\nframe_ms = {frame_ms}\n"
        process = on_one_core(lambda: daemon(more=settings), 1)
        subscriber.wait_for_face("confirmed")
        return process, subscriber

    def end(process) -> None:
        process.terminate()
        process.communicate(timeout=20)

    # Without a budget: what a frame takes when it is quiet, and how busy a neighbour makes that four times as much.
    process, subscriber = start(0)
    quiet = frames(subscriber, 120, skip_s=1)
    alone = detection_ms(quiet)
    if np.percentile(alone, 95) > 1.7 * np.median(alone):
        pytest.skip("the machine is busy with other things: nothing can be said about time")
    budget_ms = BUDGET * float(np.median([each["total_ms"] for each in quiet if "face" in each["stage_ms"]]))
    for busy_ms in np.arange(0.60, 0.90, 0.025):
        neighbour(busy_ms)
        slowed = frames(subscriber, 60, skip_s=0.5)
        slower = float(np.median(detection_ms(slowed)) / np.median(alone))
        if slower >= SLOWER:
            break
    else:
        pytest.skip(f"the neighbour makes the chain only {slower:.1f} times as slow")
    unshed = np.mean([each["total_ms"] > budget_ms for each in slowed])
    assert unshed > 0.2  # or the test would prove nothing
    neighbour(0)
    end(process)

    # With it: the neighbour comes back, and after two seconds of adjustment the deadline holds.
    process, subscriber = start(budget_ms)
    neighbour(busy_ms)
    overloaded = frames(subscriber, FRAMES, skip_s=SETTLED_S)
    late = [each["total_ms"] for each in overloaded if each["late"]]
    seen = np.mean(["detect" in each["stage_ms"] for each in overloaded])
    confirmed = np.mean([any(face["person"] == "Man" for face in each["faces"]) for each in overloaded])
    health = subscriber.wait_for(topic="health")
    neighbour(0)
    gone = time.monotonic()  # the clock of the events
    after = frames(subscriber, FRAMES)
    back_s = next((each["monotonic"] - gone for each in after if each["rung"] == 0), np.inf)
    again = [each["rung"] == 0 for each in after if each["monotonic"] - gone > back_s]
    still = float(np.median(detection_ms(after)) / np.median(alone))
    end(process)
    print(
        f"{slower:.1f} times as slow, budget {budget_ms:.1f} ms ({unshed:.0%} late without one): "
        f"{len(late)} of {FRAMES} frames late, {np.round(late)} ms; faces looked for in {seen:.0%}, the man known in "
        f"{confirmed:.1%}; without the neighbour {still:.1f} times as slow, all back after "
        f"{back_s:.1f} s, then rung 0 in {np.mean(again):.1%}; frames by rung "
        f"{np.bincount([each['rung'] for each in after])}\n"
        f"when it was quiet:\n{by_second(quiet)}\nwith the neighbour, from the {SETTLED_S:g}th second on:\n"
        f"{by_second(overloaded)}\nafter that:\n{by_second(after)}"
    )
    assert len(late) <= 0.01 * FRAMES
    assert np.median([each["rung"] for each in overloaded]) > 0
    assert {face["person"] for each in overloaded for face in each["faces"]} <= {"Man", None}
    assert confirmed >= 0.99
    assert health["missed"] >= len(late)
    assert health["budget_ms"] == pytest.approx(budget_ms, abs=0.01)
    assert back_s <= RECOVERED_S
