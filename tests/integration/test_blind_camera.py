"""A covered lens and a picture that stands still are told as such: not as a driver who has gone, or who stays."""

import cv2
import numpy as np
import pytest

from agent.samples import clip


@pytest.fixture
def man_in_a_car(samples, network_camera):
    """A network camera that shows the sample clip."""
    capture, pictures = cv2.VideoCapture(str(clip())), []
    while (frame := capture.read())[0]:
        pictures.append(frame[1])
    network_camera.show(*pictures)
    return network_camera


def matches(event: dict, view: str, *, valid: bool, seen: bool) -> bool:
    return (event["view"], event["valid"], bool(event["faces"])) == (view, valid, seen)


def wait_for(subscriber, view: str, *, valid: bool, seen: bool) -> None:
    """A face event with this view, that may be believed or not, and shows somebody or nobody."""
    for event in subscriber.events(30):
        if event["topic"] == "face" and matches(event, view, valid=valid, seen=seen):
            return
    pytest.fail(f"no face event with {view}, {valid=}, {seen=}")


def wait_for_problem(subscriber, view: str, words: str) -> None:
    for event in subscriber.events(30):
        if event["topic"] == "health" and event["cameras"][0]["view"] == view:
            assert event["cameras"][0]["state"] == "open"
            assert words in " ".join(event["problems"])
            return
    pytest.fail(f"no health event with {view}")


def test_a_covered_lens_does_not_say_that_the_driver_has_gone(man_in_a_car, daemon, subscribe):
    clear = man_in_a_car.pictures
    subscriber = subscribe("face", "health")
    daemon(f'name = "cabin"\nsource = "{man_in_a_car.address}"')
    wait_for(subscriber, "clear", valid=True, seen=True)
    man_in_a_car.show(np.full_like(clear[0], 7))
    wait_for(subscriber, "covered", valid=False, seen=False)
    wait_for_problem(subscriber, "covered", "uncover the lens")
    man_in_a_car.show(*clear)
    wait_for(subscriber, "clear", valid=True, seen=True)
    wait_for_problem(subscriber, "clear", "")


def test_a_frozen_picture_does_not_say_that_the_driver_is_there(man_in_a_car, daemon, subscribe):
    clear = man_in_a_car.pictures
    subscriber = subscribe("face", "health")
    daemon(f'name = "cabin"\nsource = "{man_in_a_car.address}"\nfrozen_s = 1')
    wait_for(subscriber, "clear", valid=True, seen=True)
    man_in_a_car.show(clear[0])
    wait_for(subscriber, "frozen", valid=False, seen=True)
    wait_for_problem(subscriber, "frozen", "does not change")
    man_in_a_car.show(*clear)
    wait_for(subscriber, "clear", valid=True, seen=True)
