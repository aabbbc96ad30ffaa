"""The driver as subscribers hear of him: who it is, where he looks, and what is not known."""

import json
import signal

import cv2
import numpy as np
import pytest

from agent.samples import clip

ASIDE = "[driver]\nyaw = 50"
"""To a camera that is told so, the man in the clip, who looks into it, looks elsewhere than at the road."""


def wait_for_driver(subscriber, **wanted: object) -> dict:
    return subscriber.wait_for(topic="driver", valid=True, **wanted)


def test_an_enrolled_driver_is_named_warned_of_and_known_to_who_comes_late(
    agent, daemon, subscribe, looped_clip
):
    subscriber = subscribe("driver", "face")
    process = daemon(more=ASIDE)
    subscriber.wait_for_face("unknown")
    recorded = agent.run("record", "Ada", "--seconds", "2")
    assert recorded.returncode == 0, recorded.stderr
    warned = wait_for_driver(subscriber, person="Ada", present=True, warning=1, reason="long_look")
    assert (warned["attention"], warned["state"]) == ("distracted", "confirmed")
    assert warned["away_s"] >= 3
    assert abs(warned["pose"]["yaw"]) < 30
    assert warned["emotion"]
    wait_for_driver(subscriber, person="Ada", warning=2)

    late = next(subscribe("driver").events(30))
    assert (late["person"], late["attention"], late["warning"] >= 2) == ("Ada", "distracted", True)
    assert json.loads(agent.run("status", "--json").stdout)["driver"]["person"] == "Ada"
    told = agent.run("status").stdout
    assert "driver: Ada" in told
    assert "warning" in told

    agent.configure(looped_clip)  # now the camera is straight in front of him
    process.send_signal(signal.SIGHUP)
    assert wait_for_driver(subscriber, attention="attentive")["warning"] == 0

    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    for words in ("driver: Ada, ", "distracted, warning 2: has looked away for 5 s", "attentive"):
        assert words in output
    daemon()
    wait_for_driver(subscriber, person="Ada", attention="attentive")
    after = next(subscribe("driver").events(30))
    assert (after["person"], after["attention"]) == ("Ada", "attentive")


@pytest.fixture
def camera(samples, network_camera):
    """A network camera that shows the sample clip."""
    capture, pictures = cv2.VideoCapture(str(clip())), []
    while (frame := capture.read())[0]:
        pictures.append(frame[1])
    network_camera.show(*pictures)
    return network_camera


def test_what_the_camera_cannot_see_is_said_to_be_unknown(camera, daemon, subscribe):
    clear = camera.pictures
    subscriber = subscribe("driver")
    daemon(f'name = "cabin"\nsource = "{camera.address}"\nstall_s = 30')
    wait_for_driver(subscriber, present=True, attention="attentive")
    camera.show(np.full_like(clear[0], 7))
    blind = wait_for_driver(subscriber, present=None)
    assert (blind["attention"], blind["person"], blind["pose"], blind["warning"]) == (
        "uncertain",
        None,
        None,
        0,
    )
    camera.show(*clear)
    wait_for_driver(subscriber, present=True, attention="attentive")
    camera.stall(True)
    silent = wait_for_driver(subscriber, present=None)
    assert (silent["attention"], silent["frame"]) == ("uncertain", -1)


def test_whoever_wants_no_driver_watched_hears_of_none(daemon, subscribe):
    subscriber = subscribe("driver", "face")
    daemon(more="[driver]\nenabled = false")
    heard = {event["topic"] for event, _ in zip(subscriber.events(30), range(60), strict=False)}
    assert heard == {"face"}
