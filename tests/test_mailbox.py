"""A mailbox never holds up who puts something in, and never loses anything silently."""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from agent.mailbox import Mailbox, take_any


def test_of_a_camera_only_the_newest_frame_is_kept_and_the_others_are_counted():
    box = Mailbox[int]()
    for i in range(5):
        box.put(i)
    assert len(box) == 1
    assert box.take(0) == 4
    assert box.take(0) is None
    assert box.dropped == 4


@given(st.integers(1, 20), st.lists(st.integers(), max_size=50))
def test_what_falls_out_is_the_oldest_and_is_counted(capacity, items):
    box = Mailbox[int](capacity)
    for item in items:
        box.put(item)
    kept = [box.take(0) for _ in range(len(box))]
    assert kept == items[-capacity:]
    assert box.dropped == len(items) - len(kept)


def test_a_receiver_that_waits_gets_a_value_as_soon_as_it_comes():
    box = Mailbox[str]()
    began = time.monotonic()
    threading.Timer(0.05, box.put, ["here"]).start()
    assert box.take(10) == "here"
    assert time.monotonic() - began < 5


def test_a_patient_sender_waits_for_room_and_drops_nothing():
    box = Mailbox[int](2)
    got = []

    def receive() -> None:
        while (item := box.take(5)) is not None and item >= 0:
            got.append(item)

    receiver = threading.Thread(target=receive)
    receiver.start()
    for i in range(500):
        assert box.put_when_free(i, 5)
    assert box.put_when_free(-1, 5)
    receiver.join(5)
    assert got == list(range(500))
    assert box.dropped == 0


def test_a_patient_sender_gives_up_in_the_end():
    box = Mailbox[int]()
    box.put(1)
    assert not box.put_when_free(2, 0.01)
    assert box.take(0) == 1


def test_boxes_that_share_an_arrival_are_emptied_oldest_first_whoever_put_more():
    arrival = threading.Condition()
    left, right = Mailbox[str](9, arrival), Mailbox[str](9, arrival)
    for box, item in ((left, "a"), (right, "b"), (left, "c"), (left, "d"), (right, "e")):
        box.put(item)
        time.sleep(0.001)
    taken = [take_any([left, right], arrival, 0) for _ in range(6)]
    assert taken == ["a", "b", "c", "d", "e", None]


def test_one_wait_hears_of_any_box():
    arrival = threading.Condition()
    boxes = [Mailbox[int](1, arrival) for _ in range(3)]
    threading.Timer(0.05, boxes[2].put, [7]).start()
    assert take_any(boxes, arrival, 10) == 7


def test_many_senders_at_once_lose_nothing_but_what_is_counted():
    box = Mailbox[int](8)
    senders = [threading.Thread(target=lambda: [box.put(i) for i in range(2000)]) for _ in range(4)]
    taken = 0
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders) or len(box):
        taken += box.take(0.01) is not None
    assert taken + box.dropped == 8000
