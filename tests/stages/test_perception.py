"""The perception thread as the daemon uses it, with the real models."""

import time

import msgspec
import numpy as np

from agent.config import Budget, Config, Engine
from agent.gallery.types import Snapshot
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Frame, Reading
from agent.stages.perception import PerceptionStage
from agent.statistics import FrameTimes

PATIENCE = 60.0


def test_a_budget_that_is_set_while_it_runs_may_seek_faces_in_a_small_picture_too(pack):
    config = Config(engine=Engine(threads=1), budget=Budget(frame_ms=0))
    live = Live(Snapshot((), np.zeros((0, pack.manifest.face.dim), np.float32), np.zeros(0, int)), config)
    box, readings = Mailbox[Frame](), Mailbox[Reading]()
    stage = PerceptionStage(config, pack, live, [box], box.arrival, [readings], FrameTimes())
    stage.start()

    def frame(index: int) -> Reading:
        box.put(Frame("cabin", index, time.monotonic(), time.time(), np.zeros((240, 320, 3), np.uint8)))
        reading = readings.take(PATIENCE)
        assert reading is not None, stage.failure
        return reading

    try:
        frame(0)
        assert not stage._chain.budget.costs.knows_coarse
        live.config = msgspec.structs.replace(config, budget=Budget(frame_ms=20))
        for index in range(1, 100):
            frame(index)
            if stage._chain.budget.costs.knows_coarse:
                return
        raise AssertionError("what a small picture costs was never learnt")
    finally:
        stage.stop()
        assert stage.join(PATIENCE)
