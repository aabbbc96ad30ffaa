"""The figures, on streams made up by hand."""

import math

import msgspec
import numpy as np
import pytest

from calibration.streams.cells import Cell, Run
from calibration.streams.orders import Stream
from calibration.streams.plots import smoothed
from calibration.streams.report import report, right
from calibration.streams.tables import grids

EMOTION = Run("emotion", "report", 100, "pack")
IDENTITY = Run("identity", "report", 100, "pack")


def cell(method, hits, after=20, *, stream=None, clean=90, seconds=0.12):
    """100 frames of which so many are right, then 20 clean ones."""
    answers = [0.0] * hits + [1.0] * (100 - hits) + [0.0] * after + [1.0] * (20 - after)
    return Cell(
        run=EMOTION,
        stream=stream or Stream("jpeg", 3, "sorted", 0),
        method=method,
        variant="",
        cut=100,
        severities="3" * 100 + "0" * 20,
        truth=[0] * 120,
        answers=answers,
        reference=[0.0] * clean + [1.0] * (100 - clean) + [0.0] * 20,
        seconds=seconds,
        notes={"accepted: better": 2},
    )


def test_the_share_is_what_was_won_of_what_the_shift_cost():
    found = report(EMOTION, [cell("frozen", 50), cell("tent", 60, after=19)])
    rate = next(rate for rate in found.rates if rate.method == "tent")
    assert (rate.frozen, rate.adapted, rate.clean) == (0.5, 0.6, 0.9)
    assert rate.share == pytest.approx(0.25)
    assert rate.share_std is None  # of one seed
    assert rate.after == pytest.approx(-0.05)
    assert rate.faces == 100
    # Ten faces of a hundred were won, none was lost again.
    assert rate.gain_error == pytest.approx(math.sqrt(0.1 * 0.9 / 99))
    assert rate.ms == pytest.approx(1.0)
    assert rate.notes == {"accepted: better": 2}


def test_over_seeds_and_shifts_means_are_taken_and_the_worst_is_kept():
    won = {("jpeg", 0): 70, ("jpeg", 1): 60, ("mask", 0): 45, ("mask", 1): 55}
    cells = []
    for (shift, seed), hits in won.items():
        stream = Stream(shift, 3, "sorted", seed)
        cells += [cell("frozen", 50, stream=stream), cell("tent", hits, stream=stream)]
    summary = next(row for row in report(EMOTION, cells).summary if row.method == "tent")
    # Of a loss of 40: seed 0 wins 20 and -5, seed 1 wins 10 and 5.
    assert summary.share == pytest.approx((7.5 + 7.5) / 2 / 40)
    assert summary.share_std == pytest.approx(0.0)
    assert summary.pooled == pytest.approx(30 / 160)
    assert (summary.worst, summary.worst_shift) == (pytest.approx(0.0), "mask")
    assert summary.worst_seed == pytest.approx(-0.05)
    assert summary.shifts == 2


def test_a_shift_that_costs_next_to_nothing_has_no_share_but_counts_for_the_worst():
    found = report(EMOTION, [cell("frozen", 89), cell("tent", 80)])
    summary = next(row for row in found.summary if row.method == "tent")
    assert summary.share is None
    assert summary.worst == pytest.approx(-0.09)


def test_a_share_of_few_faces_is_none_and_one_of_more_has_its_standard_error():
    few = [cell("frozen", 81), cell("tent", 90)]
    assert report(EMOTION, few).rates[1].share is None
    # Ten faces were lost, of which every second was won: of each r = won - 0.5 lost is 0.5 or -0.5, else 0.
    (rate,) = (r for r in report(EMOTION, [cell("frozen", 80), cell("tent", 85)]).rates if r.method == "tent")
    assert rate.share == pytest.approx(0.5)
    assert rate.share_error == pytest.approx(math.sqrt(0.25 * 10 / 100 / 99) / 0.1)
    # Who wins back exactly what was lost leaves nothing to chance in the quotient.
    (rate,) = (r for r in report(EMOTION, [cell("frozen", 80), cell("tent", 90)]).rates if r.method == "tent")
    assert rate.share_error == pytest.approx(0.0)


def test_more_seeds_show_the_same_faces_and_do_not_lessen_the_error():
    streams = [Stream("jpeg", 3, "sorted", seed) for seed in range(3)]
    found = [cell(m, h, stream=s) for s in streams for m, h in (("frozen", 50), ("tent", 60))]
    one, three = (
        next(row for row in report(EMOTION, cells).summary if row.method == "tent")
        for cells in (found[:2], found)
    )
    assert three.worst_error == pytest.approx(one.worst_error)
    assert three.faces == 100


def test_of_the_chain_of_streams_the_clean_faces_at_its_end_count():
    stream = Stream("jpeg", 3, "clean", 0)
    found = report(EMOTION, [cell("frozen", 50, stream=stream), cell("tent", 90, after=15, stream=stream)])
    rate = next(rate for rate in found.rates if rate.method == "tent")
    assert (rate.frozen, rate.adapted) == (1.0, 0.75)


def test_a_stream_without_its_frozen_cell_is_left_out_and_so_is_another_run():
    assert report(EMOTION, [cell("tent", 60)]).rates == []
    assert report(IDENTITY, [cell("frozen", 50), cell("tent", 60)]).rates == []


def people(method, answers):
    """100 genuine pairs and 200 of strangers, and as many clean ones behind."""
    reference = np.concatenate([np.linspace(0.5, 1.0, 100), np.linspace(-1.0, 0.6, 200)])
    answers = reference if answers is None else answers
    truth = [1] * 100 + [0] * 200
    return Cell(
        run=IDENTITY,
        stream=Stream("low_light", 3, "shuffled", 0),
        method=method,
        variant="",
        cut=300,
        severities="3" * 300 + "0" * 300,
        truth=truth * 2,
        answers=[*answers.tolist(), *reference.tolist()],
        reference=reference.tolist() * 2,
        seconds=1.0,
    )


def test_people_are_compared_at_the_threshold_that_was_chosen_clean():
    clean = people("frozen", None)
    # Two of 200 strangers may pass: the threshold is the cosine of a genuine pair above the third of them.
    assert right(clean)[100:300].sum() == 198
    reference = np.array(clean.reference[:300])
    darker, alike = reference - 0.1, reference + 0.5
    cells = [people("frozen", darker), people("bn", reference), people("tent", alike)]
    rates = {rate.method: rate for rate in report(IDENTITY, cells).rates}
    assert rates["bn"].share == pytest.approx(1.0)
    assert rates["bn"].far == pytest.approx(0.01)
    assert rates["bn"].own_adapted == pytest.approx(rates["bn"].own_frozen)  # dark, but in the same order
    # Who makes everybody alike wins TAR, and is found out beside.
    assert rates["tent"].adapted == 1.0
    assert rates["tent"].far > 0.2
    assert rates["tent"].own_adapted == pytest.approx(rates["bn"].own_adapted)


def test_who_raises_the_threshold_is_judged_by_the_raised_one():
    clean = people("frozen", None)
    # Half of the way to 1 from wherever they were: what is alike by 0.5 more is found out by a rise of one half.
    alike = 1 - 0.5 * (1 - np.array(clean.reference[:300]))
    plain = people("bn", alike)
    strict = msgspec.structs.replace(people("tent", alike), rises=[0.5] * 300 + [0.0] * 300)
    rates = {rate.method: rate for rate in report(IDENTITY, [clean, plain, strict]).rates}
    assert rates["bn"].far > 0.2
    assert (rates["bn"].rise, rates["tent"].rise) == (0.0, 0.5)
    assert rates["tent"].far == pytest.approx(0.01)
    assert rates["tent"].adapted == rates["tent"].clean
    assert rates["tent"].after == 0
    assert right(strict)[:300].tolist() == right(clean)[:300].tolist()
    _, _, table = grids(report(IDENTITY, [clean, strict]))
    assert "| 0.500 |" in table.markdown()


def test_tables_say_it_in_markdown():
    found = report(EMOTION, [cell("frozen", 50), cell("tent", 60)])
    summary, by_shift = grids(found)
    row = "| sorted | tent | 25 % | 25 % | +10.00 ± 3.0 (jpeg) | +10.00 | +0.00 | +0.00 |"
    assert row in summary.markdown()
    assert "emotion, report, 1 seed of 100 faces" in summary.title
    assert "| jpeg 3 | 90.00 | 50.00 | 60.00 (25 % ± 7) |" in by_shift.markdown()
    assert "sorted, 100 faces" in by_shift.title
    assert len(grids(report(EMOTION, [cell("frozen", 50)]))) == 1  # there is nothing to sum up
    assert len(grids(report(IDENTITY, [people("frozen", None), people("bn", None)]))) == 3


def test_errors_over_time_are_those_of_the_last_frames():
    errors = np.array([True, False, False, True, True, True])
    assert smoothed(errors, 2).tolist() == [1, 0.5, 0, 0.5, 1, 1]
