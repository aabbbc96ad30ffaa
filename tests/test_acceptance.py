"""What `doctor --engines` finds out about an engine, on the backend that is always there."""

import pytest

from agent.acceptance import exchange, latency
from agent.config import Config
from agent.networks import load
from engines.engine import EngineError
from engines.model import read_model
from engines.norms import read_norms, write_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

ONE = SessionSettings(threads=1, dims={"N": 1})


@pytest.fixture(scope="module")
def face(pack):
    return read_model(pack.face)


def test_latency_is_told_in_order(pack):
    networks = load(pack, Config())
    p50, p95, p99 = latency(networks)
    networks.close()
    assert 0 < p50 <= p95 <= p99


def test_an_exchange_under_load_tears_no_output(face):
    engine = OnnxRuntimeEngine(face, ONE)
    told = exchange(engine, read_norms(face))
    engine.close()
    assert "no output torn" in told


def test_an_engine_that_ignores_new_parameters_is_found_out(face):
    class Deaf(OnnxRuntimeEngine):
        def with_norms(self, params):
            return Deaf(self._model, self._settings)

    with pytest.raises(EngineError, match="change nothing"):
        exchange(Deaf(face, ONE), read_norms(face))


def test_an_engine_that_half_takes_new_parameters_is_found_out(face):
    """As a refit does that fails half-way: what is exchanged under load is not what was exchanged at rest."""

    class Half(OnnxRuntimeEngine):
        times = 0

        def with_norms(self, params):
            Half.times += 1
            taken = list(params.items())
            if Half.times > 3:
                taken = taken[: len(taken) // 2]
            return Half(write_norms(face, dict(taken)), ONE)

    with pytest.raises(EngineError, match="neither set"):
        exchange(Half(face, ONE), read_norms(face))


def test_an_engine_that_fails_while_it_runs_is_told(face):
    class Brittle(OnnxRuntimeEngine):
        runs = 0

        def run(self, feeds=None):
            Brittle.runs += 1
            if Brittle.runs > 5:
                raise EngineError("the device is gone")
            return super().run(feeds)

        def with_norms(self, params):
            return Brittle(write_norms(face, params), ONE)

    with pytest.raises(EngineError, match="the device is gone"):
        exchange(Brittle(face, ONE), read_norms(face))
