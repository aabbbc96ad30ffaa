"""The filter before the network: where it does nothing nothing changes, else it is as if the camera had it."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adaptation.chip_filter import CHIP_FILTER, SIDE, adaptable, adapted, apply, identity
from agent.face_slot import FaceSlot
from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

CHIP = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
SOFT = np.full(SIDE * SIDE, 1 / SIDE**2, np.float32)


@pytest.fixture(scope="module")
def model(pack) -> onnx.ModelProto:
    return onnx.load(pack.face)


@pytest.fixture
def engine(model) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(model, SessionSettings(1, dims={"N": 1}))


def answers(engine, chip: np.ndarray) -> dict[str, np.ndarray]:
    engine.buffer("chip")[0] = chip
    return {name: value.copy() for name, value in engine.run().items()}


def test_all_that_may_be_adapted_are_the_norms_and_a_filter_that_does_nothing(model):
    found = adaptable(model)
    assert found.keys() == {*read_norms(model), CHIP_FILTER}
    assert np.array_equal(apply(CHIP, found[CHIP_FILTER]), CHIP)


def test_without_a_filter_the_engine_is_the_networks_own(engine, model):
    other = adapted(engine, adaptable(model))
    assert type(other) is OnnxRuntimeEngine
    expected = answers(engine, CHIP)
    assert all(np.array_equal(value, expected[name]) for name, value in answers(other, CHIP).items())


def test_a_filter_is_as_if_the_chip_had_been_so(engine):
    expected = answers(engine, apply(CHIP, SOFT))
    other = adapted(engine, {CHIP_FILTER: SOFT})
    for found in (answers(other, CHIP), other.run({"chip": CHIP[None]})):
        assert all(np.array_equal(value, expected[name]) for name, value in found.items())
    assert np.array_equal(other.buffer("chip")[0], CHIP), "what was written is still there to be kept"


def test_norms_and_filter_go_together(engine, model):
    norms = {"norm.input.scale": read_norms(model)["norm.input.scale"] * np.float32(1.1)}
    expected = answers(engine.with_norms(norms), apply(CHIP, SOFT))
    for other in (
        adapted(engine, norms | {CHIP_FILTER: SOFT}),
        adapted(engine, {CHIP_FILTER: SOFT}).with_norms(norms),
    ):
        assert all(np.array_equal(value, expected[name]) for name, value in answers(other, CHIP).items())


def test_what_does_not_fit_is_refused(engine):
    other = adapted(engine, {CHIP_FILTER: SOFT})
    with pytest.raises(ValueError, match="chip wants uint8"):
        other.run({"chip": CHIP[None].astype(np.float32)})
    with pytest.raises(ValueError, match="image"):
        other.run({"image": CHIP[None]})


def test_it_changes_over_between_frames_as_any_engine(engine):
    slot = FaceSlot(engine)
    filtered, used = adapted(engine, {CHIP_FILTER: SOFT}), []
    slot.offer(filtered)
    slot.take(used.append)
    slot.offer(None)
    slot.take(used.append)
    slot.sweep()
    assert used == [filtered, engine]


@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_filter_of_sum_one_leaves_a_plain_chip_as_it_is(level, seed):
    weights = np.random.default_rng(seed).uniform(0, 1, SIDE * SIDE)
    plain = np.full((20, 20, 3), level, np.uint8)
    assert np.abs(apply(plain, np.float32(weights / weights.sum())).astype(int) - level).max() <= 1


def test_the_filter_that_does_nothing_is_one_in_the_middle():
    assert identity().reshape(SIDE, SIDE)[SIDE // 2, SIDE // 2] == 1
    assert identity().sum() == 1
