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


def test_three_cameras_of_different_rates_are_looked_at_in_turn_when_there_is_no_time_for_all():
    arrival = threading.Condition()
    fast, usual, slow = boxes = [Mailbox[str](1, arrival) for _ in range(3)]
    taken = []
    for tick in range(3000):  # milliseconds: 500, 33 and 10 frames a second, and 20 looks
        for box, name, period in ((fast, "fast", 2), (usual, "usual", 30), (slow, "slow", 100)):
            if tick % period == 0:
                box.put(name)
        if tick % 50 == 49:
            taken.append(take_any(boxes, arrival, 0))
    counts = {name: taken.count(name) for name in ("fast", "usual", "slow")}
    assert min(counts.values()) >= 18, counts  # of 60; slow has 30 frames to give
    assert max(counts.values()) <= 22, counts


def test_a_slow_camera_loses_no_frame_to_a_fast_one_while_there_is_time_for_both():
    arrival = threading.Condition()
    fast, slow = boxes = [Mailbox[int](1, arrival) for _ in range(2)]
    seen = []
    for tick in range(2000):  # 200 and 10 frames a second, 25 looks
        if tick % 5 == 0:
            fast.put(-1)
        if tick % 100 == 0:
            slow.put(tick)
        if tick % 40 == 39:
            seen.append(take_any(boxes, arrival, 0))
    assert [each for each in seen if each >= 0] == list(range(0, 2000, 100))
    assert slow.dropped == 0


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
