"""The budget in the running daemon: what is shed, told and taken back. Whether deadlines hold is measured elsewhere.

Here no frame of the first budget can be in time and none of the second too late, on whatever machine.
``tests/perception`` has the policy, ``tests/integration/load`` a real busy neighbour.
"""

import signal
from itertools import islice

import pytest

IMPOSSIBLE_MS, AMPLE_MS = 0.01, 10_000


def budget(frame_ms: float) -> str:
    return f"[budget]\nframe_ms = {frame_ms}\n"


def test_what_is_shed_is_told_and_a_larger_budget_brings_it_back_without_a_restart(
    agent, daemon, subscribe, looped_clip
):
    subscriber = subscribe("face", "health")
    process = daemon(more=budget(IMPOSSIBLE_MS))
    subscriber.wait_for_face("unknown")  # a face that nobody has decided about is looked at all the same
    subscriber.wait_for(topic="face", rung=5, late=True)
    coasted = next(
        event
        for event in subscriber.events(30)
        if event["topic"] == "face" and "detect" not in event["stage_ms"] and event["faces"]
    )
    assert all(face["coasting"] for face in coasted["faces"])
    health = next(event for event in subscriber.events(30) if event.get("missed") and event.get("rung") == 5)
    assert health["budget_ms"] == pytest.approx(IMPOSSIBLE_MS)

    agent.configure(looped_clip, more=budget(AMPLE_MS))
    process.send_signal(signal.SIGHUP)
    subscriber.wait_for(topic="face", rung=0, late=False)
    subscriber.wait_for(topic="health", rung=0, budget_ms=AMPLE_MS)
    # All of it is done again: a look for the expression's sake, and no frame without one for the faces.
    frames = [event for event in islice(subscriber.events(30), 20) if event["topic"] == "face"]
    assert all(event["rung"] == 0 and "detect" in event["stage_ms"] for event in frames)
    assert any("face" in event["stage_ms"] for event in frames)
