"""Engines change hands between two threads: none is run once it is closed, and none is forgotten."""

import itertools
import threading

import numpy as np
import pytest

from agent.face_slot import FaceSlot
from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings


@pytest.fixture
def source(small):
    engine = OnnxRuntimeEngine(small, SessionSettings(1, dims={"N": 1}))
    yield engine
    engine.close()


def is_closed(engine: OnnxRuntimeEngine) -> bool:
    return not hasattr(engine, "_session")


def test_what_is_offered_runs_from_the_next_frame_on_and_the_old_one_is_closed_after_that(source):
    slot, used = FaceSlot(source), []
    first, second = source.with_norms({}), source.with_norms({})
    slot.take(used.append)
    assert used == []
    slot.offer(first)
    slot.take(used.append)
    slot.offer(second)
    slot.sweep()
    assert not is_closed(first)  # it may be running
    slot.take(used.append)
    slot.sweep()
    assert used == [first, second]
    assert is_closed(first)
    assert not is_closed(second)
    slot.offer(None)
    slot.take(used.append)
    slot.sweep()
    assert used[-1] is source
    assert is_closed(second)
    assert not is_closed(source)


def test_one_that_was_never_taken_is_closed_too(source):
    slot = FaceSlot(source)
    engine = source.with_norms({})
    slot.offer(engine)
    slot.offer(None)
    slot.sweep()
    assert is_closed(engine)


def test_the_source_runs_when_it_must_whatever_is_offered(source):
    slot, used = FaceSlot(source), []
    slot.offer(source.with_norms({}))
    slot.take(used.append, source_only=True)
    assert used == []
    slot.take(used.append)
    slot.take(used.append, source_only=True)
    assert used[1:] == [source]


def test_people_are_judged_by_the_engine_that_runs_and_not_by_the_one_that_is_offered(source):
    slot = FaceSlot(source)
    slot.offer(source.with_norms({}), 0.25)
    assert slot.rise == 0
    slot.take(lambda _: None)
    assert slot.rise == 0.25
    slot.offer(source.with_norms({}), 0.5)
    assert slot.rise == 0.25
    slot.take(lambda _: None, source_only=True)
    assert slot.rise == 0
    slot.take(lambda _: None)
    assert slot.rise == 0.5
    slot.offer(None)
    slot.take(lambda _: None)
    assert slot.rise == 0
    slot.offer(source.with_norms({}), 0.75)
    slot.take(lambda _: None)
    slot.release()
    assert slot.rise == 0
    slot.sweep()


def test_once_perception_has_ended_nothing_can_be_offered_and_all_is_closed(source):
    slot = FaceSlot(source)
    engines = [source.with_norms({}) for _ in range(3)]
    slot.offer(engines[0])
    slot.take(lambda _: None)
    slot.offer(engines[1])
    slot.release()
    slot.offer(engines[2])
    slot.sweep()
    assert slot.offered is None
    assert all(map(is_closed, engines))


def test_no_closed_engine_ever_runs_while_offers_come_as_fast_as_they_can(small, source):
    slot, running, failures = FaceSlot(source), [source], []
    stopping = threading.Event()
    chip = np.zeros(source.inputs[0].shape, np.uint8)

    def perceive() -> None:
        try:
            for number in itertools.count():
                if stopping.is_set():
                    return
                slot.take(lambda engine: running.__setitem__(0, engine), source_only=number % 7 == 0)
                running[0].run({"chip": chip})
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=perceive)
    thread.start()
    norms = read_norms(small)
    made = []
    for number in range(60):
        made.append(source.with_norms(norms))
        slot.offer(None if number % 5 == 4 else made[-1])
        slot.sweep()
    stopping.set()
    thread.join()
    slot.release()
    slot.sweep()
    assert failures == []
    assert all(is_closed(each) for number, each in enumerate(made) if number % 5 != 4)
