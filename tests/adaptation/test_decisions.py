"""Evidence, memory and guard: what is believed, what is kept, and what may run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.adaptation.evidence import LEAST, Evidence
from agent.adaptation.guard import Limits, entropy, judge
from agent.adaptation.memory import Memory
from agent.adaptation.types import Sample

CHIP = np.zeros((150, 150, 3), np.uint8)
SURE, UNSURE = np.log(np.float32([0.02, 0.96, 0.02])), np.log(np.float32([0.4, 0.35, 0.25]))


def shares_after(*seen: tuple[np.ndarray, float]) -> np.ndarray | None:
    evidence = Evidence(3)
    for log_posterior, at in seen:
        evidence.add(log_posterior, at)
    return evidence.shares()


def test_a_few_chips_say_nothing():
    assert shares_after(*[(SURE, 0.1 * i) for i in range(int(LEAST) - 1)]) is None
    assert shares_after() is None


def test_chips_that_agree_make_sure_and_doubtful_ones_do_not():
    assert shares_after(*[(SURE, 0.1 * i) for i in range(12)])[1] > 0.99
    assert shares_after(*[(UNSURE, 0.1 * i) for i in range(200)]).max() < 0.6


def test_a_new_condition_takes_over_within_seconds():
    dark, bright = np.log(np.float32([0.02, 0.96, 0.02])), np.log(np.float32([0.96, 0.02, 0.02]))
    before = [(dark, 0.2 * i) for i in range(100)]
    assert shares_after(*before)[1] > 0.9
    after = [(bright, 20 + 0.2 * i) for i in range(30)]
    assert shares_after(*before, *after)[0] > 0.9


def test_three_chips_in_a_row_are_a_change_and_two_are_a_mistake():
    dark, bright = np.log(np.float32([0.02, 0.96, 0.02])), np.log(np.float32([0.96, 0.02, 0.02]))
    before = [(dark, 0.2 * i) for i in range(100)]
    after = [(bright, 20 + 0.2 * i) for i in range(3)]
    assert shares_after(*before, *after[:2])[1] > 0.9
    assert shares_after(*before, *after)[0] > 0.9


def test_chips_from_before_a_pause_are_no_change():
    dark, bright = np.log(np.float32([0.02, 0.96, 0.02])), np.log(np.float32([0.96, 0.02, 0.02]))
    before = [(dark, 0.2 * i) for i in range(100)]
    after = [(bright, 2000 + 0.2 * i) for i in range(2 * int(LEAST))]
    assert shares_after(*before, *after[:2]) is None
    assert shares_after(*before, *after)[0] > 0.9


def test_one_look_in_five_seconds_is_enough_for_those_who_have_time_for_no_more():
    assert shares_after(*[(SURE, 5.0 * i) for i in range(12)])[1] > 0.95


def test_after_a_long_pause_nothing_old_counts():
    assert shares_after(*[(SURE, 0.1 * i) for i in range(50)], (SURE, 2000.0)) is None


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2)), min_size=8, max_size=60))
def test_shares_are_always_probabilities_even_if_clocks_run_backwards(seen):
    found = shares_after(*[(np.log(np.eye(3, dtype=np.float32)[k] * 0.9 + 1 / 30), at) for at, k in seen])
    if found is not None:
        assert found.sum() == pytest.approx(1, abs=1e-4)
        assert (found >= 0).all()


def sample(track: int, label: int, at: float) -> Sample:
    return Sample(CHIP, tuple(float(k == label) for k in range(3)), track, at)


def test_one_long_run_of_one_face_does_not_drive_out_the_others():
    memory = Memory(12, 1000.0)
    for at in range(4):
        memory.add(sample(track=at % 2, label=at % 3, at=float(at)))
    rare = {(held.track, int(np.argmax(held.probabilities))) for held in memory}
    for at in range(4, 500):
        memory.add(sample(track=7, label=1, at=float(at)))
    kept = {(held.track, int(np.argmax(held.probabilities))) for held in memory}
    assert rare <= kept
    assert len(memory) == 12
    assert max(held.at for held in memory) == 499.0


def test_what_is_old_is_forgotten():
    memory = Memory(12, 10.0)
    for at in (0.0, 5.0, 14.0):
        memory.add(sample(1, 1, at))
    assert [held.at for held in memory] == [5.0, 14.0]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=80), st.integers(1, 10))
def test_the_memory_is_bounded_and_in_order(seen, size):
    memory = Memory(size, 1e9)
    for at, (track, label) in enumerate(seen):
        memory.add(sample(track, label, float(at)))
    times = [held.at for held in memory]
    assert len(times) == min(size, len(seen))
    assert times == sorted(times)


def test_the_chip_is_copied_for_the_camera_will_write_over_it():
    memory, chip = Memory(2, 10.0), np.zeros((2, 2, 3), np.uint8)
    memory.add(Sample(chip, (1.0,), 1, 0.0))
    chip[:] = 9
    assert next(iter(memory)).chip.max() == 0


def answers(logits: list[list[float]], turn: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    embedding = np.zeros((len(logits), 4), np.float32)
    embedding[:, 0], embedding[:, 1] = np.cos(turn), np.sin(turn)
    return embedding, np.float32(logits)


VARIED = [[2.0 * (k == i % 3) for k in range(3)] for i in range(12)]


def test_the_same_answers_pass():
    why, figures = judge(answers(VARIED), answers(VARIED, turn=0.1), 3, Limits())
    assert why == ""
    assert figures["cosine"] == pytest.approx(np.cos(0.1), abs=1e-5)
    assert figures["top_share_after"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("code", "after"),
    [
        ("drift", answers(VARIED, turn=0.6)),
        ("uncertain", answers([[0.1 * each for each in row] for row in VARIED])),
        ("collapse", answers([[5.0, 0.0, 0.0]] * 12)),
        ("not_finite", answers([[np.nan] * 3] * 12)),
    ],
)
def test_what_drifts_doubts_or_collapses_is_refused(code, after):
    assert judge(answers(VARIED), after, 3, Limits())[0] == code


def test_what_learns_from_its_own_answers_may_neither_become_too_sure_nor_change_them():
    surer = answers([[4 * each for each in row] for row in VARIED])
    others = answers([row[::-1] for row in VARIED])
    assert judge(answers(VARIED), surer, 3, Limits(fall=0.25))[0] == "too_sure"
    why, figures = judge(answers(VARIED), others, 3, Limits(changed=0.5))
    assert why == "changed"
    assert figures["changed"] == pytest.approx(8 / 12)
    assert (
        judge(answers(VARIED), surer, 3, Limits())[0] == judge(answers(VARIED), others, 3, Limits())[0] == ""
    )


def test_one_face_with_one_expression_is_no_collapse():
    assert judge(answers(VARIED), answers([[5.0, 0.0, 0.0]] * 12), 1, Limits())[0] == ""


def test_without_chips_held_aside_nothing_may_run():
    assert judge(answers(VARIED[:3]), answers(VARIED[:3]), 3, Limits())[0] == "too_few"


def test_entropy_is_that_of_the_book():
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist() == pytest.approx([np.log(2), 0.0])
