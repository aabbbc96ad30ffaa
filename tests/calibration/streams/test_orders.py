"""Streams come in the order that they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.corruptions import KINDS
from calibration.streams.orders import (
    CLEAN,
    HALF_HOUR,
    LOOKS_PER_S,
    ORDERS,
    RAMP,
    SHIFTS,
    TUNNEL_S,
    TUNNELS,
    OrderError,
    plan,
    runs,
    streams,
    stretches,
)

LABELS = np.random.default_rng(0).integers(0, 7, 350)
NEUTRAL = np.flatnonzero(LABELS == 6).tolist()


def proper(order, seed=0, severity=3):
    return [f for f in plan(order, LABELS, severity, seed, NEUTRAL) if f.part == "stream"]


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_seed_gives_the_same_stream_and_another_seed_another(order):
    assert plan(order, LABELS, 3, 1, NEUTRAL) == plan(order, LABELS, 3, 1, NEUTRAL)
    assert plan(order, LABELS, 3, 1, NEUTRAL) != plan(order, LABELS, 3, 2, NEUTRAL)


@pytest.mark.parametrize("order", ["shuffled", "sorted", "ramp", "tunnels"])
def test_every_face_is_shown_once(order):
    assert sorted(f.item for f in proper(order)) == list(range(len(LABELS)))


@pytest.mark.parametrize("order", ORDERS)
def test_behind_every_stream_come_clean_faces_without_a_break_in_time(order):
    frames = plan(order, LABELS, 3, 0, NEUTRAL)
    after = [f for f in frames if f.part == "after"]
    assert frames[-len(after) :] == after
    assert len(after) == (len(LABELS) if order == "clean" else len(LABELS) // 3)
    assert {f.severity for f in after} == {0}
    assert len({f.item for f in after}) == len(after)
    assert (np.diff([f.at for f in frames]) > 0).all()
    assert not {f.track for f in after} & {f.track for f in frames if f.part == "stream"}


def test_shuffled_faces_are_five_a_second_each_on_its_own_track():
    frames = proper("shuffled")
    assert len({f.track for f in frames}) == len(frames)
    assert frames[10].at == pytest.approx(10 / LOOKS_PER_S)


def test_sorted_streams_have_long_runs_of_one_label_and_a_run_is_a_track():
    frames = proper("sorted")
    shown = LABELS[[f.item for f in frames]]
    tracks = np.array([f.track for f in frames])
    assert (np.diff(tracks) >= 0).all()
    assert all(len(set(shown[tracks == track])) == 1 for track in set(tracks))
    lengths = np.bincount(tracks)
    assert len(lengths) <= 7 * 7
    # Half of all frames or more lie in runs of twenty and longer; shuffled, there are hardly runs of three.
    assert lengths[lengths >= 20].sum() >= len(frames) / 2


@given(arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 20)), st.integers(0, 100))
def test_runs_are_of_one_label_each_and_together_all_there_is(labels, seed):
    found = runs(labels, np.random.default_rng(seed))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    assert all(len(set(labels[run])) == 1 for run in found)


def test_the_ramp_goes_up_and_down_again():
    found = stretches([f.severity for f in proper("ramp")])
    assert tuple(severity for _, _, severity in found) == RAMP
    lengths = [end - start for start, end, _ in found]
    assert max(lengths) - min(lengths) <= 1


def test_a_drive_has_twenty_tunnels():
    found = stretches([f.severity for f in proper("tunnels", severity=4)])
    assert [severity for _, _, severity in found] == [0, 4] * TUNNELS
    frames = proper("tunnels")
    assert frames[-1].at == pytest.approx(2 * TUNNELS * TUNNEL_S, abs=2)
    many = plan("tunnels", np.zeros(4000, np.int64), 3, 0)
    assert many[1].at == pytest.approx(1 / LOOKS_PER_S)  # never quicker than the daemon looks


def test_one_neutral_face_for_half_an_hour():
    frames = proper("neutral")
    assert len({f.item for f in frames}) == 1
    assert frames[0].item in NEUTRAL
    assert len({f.version for f in frames}) == len(frames)
    assert {f.track for f in frames} == {0}
    assert len(frames) == HALF_HOUR
    assert 1799 < frames[-1].at < 1800
    few = plan("neutral", LABELS, 3, 0, NEUTRAL, looks_alone=100)
    assert sum(f.part == "stream" for f in few) == 100
    with pytest.raises(OrderError, match="no neutral face"):
        plan("neutral", LABELS, 3, 0)


def test_too_few_faces_for_a_piece_of_everything_are_told():
    with pytest.raises(OrderError, match="order clean: 3 faces are too few; raise --limit"):
        plan("clean", LABELS[:3], 3, 0)


def test_before_the_last_clean_stretch_there_is_a_piece_of_everything():
    frames = proper("clean")
    assert len(frames) == len(LABELS)
    assert {f.severity for f in frames} == {0, 1, 2, 3, 4, 5}
    assert any(f.version for f in frames)
    assert not any(f.version for f in plan("clean", LABELS, 3, 0))  # where no face may stand alone


def test_without_a_shift_nothing_is_spoiled_in_any_order():
    for order in ORDERS:
        assert {f.severity for f in plan(order, LABELS, 0, 0, NEUTRAL)} == {0}


def test_streams_are_all_shifts_of_all_orders_unless_somebody_names_some():
    assert SHIFTS["sorted"] == (CLEAN, *KINDS)
    found = streams(["sorted", "ramp"], [], 3, 2)
    assert len(found) == len(set(found)) == 2 * (len(KINDS) + 1 + 2)
    named = streams(["ramp"], ["jpeg"], 5, 1)
    assert [(s.shift, s.severity, s.order, s.seed) for s in named] == [("jpeg", 5, "ramp", 0)]
