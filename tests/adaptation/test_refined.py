"""The tier `gradient` on the default pack: it begins at the bank's mixture, goes a little farther, and comes back."""

import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from agent.adaptation.adapter import Adapter  # noqa: E402
from agent.adaptation.bank import read_bank  # noqa: E402
from agent.adaptation.chip_filter import adaptable  # noqa: E402
from agent.adaptation.refined import Refined  # noqa: E402
from agent.adaptation.types import Sample  # noqa: E402
from agent.config import AdaptationSettings, GradientSettings  # noqa: E402
from tests.adaptation.drive import Drive  # noqa: E402

LEARNT = ("refined", "rollback")


@pytest.fixture
def begin(model, pack):
    """Begins a drive with what is learnt set by keywords."""

    def one(seed: int = 0, **learnt: float) -> Drive:
        gradient = GradientSettings(**{"batch": 4, "steps": 3, "memory": 16, "rate": 0.008, **learnt})
        settings = AdaptationSettings(tier="gradient", gradient=gradient)
        adapter = Refined(model, read_bank(pack.bank, model), settings, seed)
        return Drive(adapter, np.array(pack.manifest.face.template, np.float32))

    return one


def told(decisions: list) -> list:
    return [(each.reason, each.figures) for each in decisions]


def reasons(drive: Drive) -> list[str]:
    return [each.reason for each in drive.decisions]


def farthest(one: dict, other: dict) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def test_it_begins_at_the_mixture_goes_on_from_there_and_good_light_takes_all_back(begin, faces, model, pack):
    drive = begin()
    norms = drive.through(faces, 45, "sensor_noise", 4)
    assert norms.keys() == adaptable(model).keys()
    mixture = Drive(Adapter(model, read_bank(pack.bank, model), AdaptationSettings()), drive.template)
    mixed = mixture.through(faces, 45, "sensor_noise", 4)
    first = reasons(drive).index("better")
    assert all(
        np.array_equal(value, mixture.decisions[first].norms[name])
        for name, value in drive.decisions[first].norms.items()
    )
    assert "refined" in reasons(drive)[first:]
    refined = next(each for each in drive.decisions if each.reason == "refined")
    assert farthest(refined.norms, mixed) > 0
    assert refined.figures["cosine"] > 0.97
    assert refined.figures["drift"] <= GradientSettings().drift + 1e-6
    assert {"loss", "views", "features", "entropy_after", "changed", "noise"} <= refined.figures.keys()
    assert drive.through(faces, 30) == {}


def test_after_a_reset_all_is_as_at_the_beginning_and_another_seed_learns_otherwise(begin, faces):
    drive, other = begin(seed=1), begin(seed=2)
    drive.through(faces, 45, "sensor_noise", 4)
    other.through(faces, 45, "sensor_noise", 4)
    first, drive.decisions = drive.decisions, []
    proposal = drive.adapter.reset("driver")
    assert (proposal.accepted, proposal.norms, proposal.reason) == (True, {}, "reset:driver")
    assert drive.adapter.propose() is None
    drive.looks, drive.at = 0, 0.0
    drive.through(faces, 45, "sensor_noise", 4)
    assert told(drive.decisions) == told(first) != told(other.decisions)


def test_entropy_alone_collapses_on_one_face_and_the_guard_brings_back_the_mixture(begin, faces):
    drive = begin(entropy=1.0, views=0.0, features=0.0, sure=1.0, rate=0.1, drift=1.0, pull=0.0, layers=100)
    drive.through(faces[:1], 60, "sensor_noise", 4)
    refused = [each for each in drive.decisions if not each.accepted or each.reason.startswith("rollback")]
    assert refused
    mixed = next(each for each in drive.decisions if each.reason == "better").norms
    for before, after in pairwise(drive.decisions):
        if after.reason.startswith("rollback"):
            assert before.reason in {"refined", "confirmed"}
            assert farthest(after.norms, mixed) == 0
    # What ran in between kept to the limits.
    for each in drive.decisions:
        if each.reason == "refined":
            assert each.figures["cosine"] > 0.97
            assert each.figures["entropy_after"] > each.figures["entropy_before"] - 0.25


def test_with_the_losses_by_default_one_face_for_long_leads_nowhere(begin, faces):
    drive = begin()
    drive.through(faces[:1], 60, "sensor_noise", 4)
    drifts = [each.figures["drift"] for each in drive.decisions if "drift" in each.figures]
    assert drifts
    assert 0 < max(drifts) < GradientSettings().drift
    # The guard may refuse a step that would answer this face otherwise; then nothing is learnt from it for a while.
    assert {each.reason for each in drive.decisions if not each.accepted} <= {"too_few", "changed"}
    assert not [reason for reason in reasons(drive) if reason.startswith("rollback")]


def test_in_good_light_nothing_is_learnt(begin, faces):
    drive = begin()
    assert drive.through(faces, 30) == {}
    assert not [reason for reason in reasons(drive) if reason.startswith(LEARNT)]


def test_a_chip_whose_expressions_are_no_numbers_is_not_learnt_from(begin, faces):
    drive = begin()
    for at in range(30):
        drive.adapter.observe(Sample(faces[at % len(faces)], (math.nan,) * 7, at, float(at)))
    assert len(drive.adapter._memory) == 0


def test_the_memory_holds_no_more_than_it_may(begin, faces):
    drive = begin(memory=8)
    for at in range(40):
        drive.adapter.observe(Sample(faces[at % len(faces)], (1 / 7,) * 7, at, at / 100))
    assert len(drive.adapter._memory) == 8
