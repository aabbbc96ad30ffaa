"""Our own method in the evaluation: the daemon's adapter, driven frame by frame."""

import numpy as np
import pytest

from agent.adaptation.bank import Bank
from agent.adaptation.types import Proposal
from agent.config import AdaptationSettings
from calibration.baselines.catalogue import BASELINES, MethodError
from calibration.baselines.method import BLOCK, Frozen, Source
from calibration.streams.contenders import OWN, contenders, stamp
from calibration.streams.own import Cabinsense, untaught
from engines.norms import read_norms


class Brightens:
    """An adapter that doubles the input's scale at its second proposal, proposes nonsense then, and then goes back."""

    def __init__(self, model):
        self.scale = read_norms(model)["norm.input.scale"]
        self.seen = []
        self.proposals = 0

    def observe(self, sample):
        self.seen.append(sample)

    def propose(self):
        self.proposals += 1
        norms = {"norm.input.scale": 2 * self.scale}
        return (
            None,
            Proposal(True, norms, "better", {}, 0.25),
            Proposal(False, {"norm.input.scale": 9 * self.scale}, "collapse", {}, 0.75),
            Proposal(True, {}, "reset:scene", {}),
            *[None] * 9,
        )[self.proposals - 1]

    def reset(self, reason):
        raise AssertionError("nobody resets it here")


def test_what_is_accepted_answers_from_the_next_frame_on(small):
    chips = np.random.default_rng(0).integers(0, 120, (32, 24, 24, 3), np.uint8)
    source = Source(small, chips)
    tracks, times = np.arange(32), np.arange(32) / 5
    adapter = Brightens(small)
    own, frozen = Cabinsense(source, adapter, every_s=1.0), Frozen(source)
    found = [own.step(chips[half], tracks[half], times[half])[0] for half in (slice(0, 16), slice(16, 32))]
    expected = frozen.step(chips, tracks, times)[0]
    same = np.abs(np.concatenate(found) - expected).max(axis=1) < 1e-4
    # It is asked behind frames 5, 10, 15, 20 and 25: nothing yet, brighter, refused, back to the source.
    assert same.tolist() == [True] * 11 + [False] * 10 + [True] * 11
    assert own.notes == {"accepted: better": 1, "refused: collapse": 1, "accepted: reset:scene": 1}
    assert own.rises == [0.0] * 11 + [0.25] * 10 + [0.0] * 11
    sample = adapter.seen[3]
    assert (sample.chip == chips[3]).all()
    assert (sample.track, sample.at) == (3, pytest.approx(0.6))
    assert sum(sample.probabilities) == pytest.approx(1)


def test_the_settings_of_our_own_method_tell_its_results_apart(small):
    source = Source(small, np.zeros((BLOCK, 24, 24, 3), np.uint8))
    made = []

    def make(settings, seed):
        made.append((settings.tier, seed))
        return Brightens(small)

    few, many = (
        contenders([OWN], source, 7, AdaptationSettings(every_s=every_s), "pack", make)
        for every_s in (1.0, 2.0)
    )
    assert list(few) == ["frozen", OWN]
    assert few[OWN].variant != many[OWN].variant
    assert few["frozen"].variant == ""
    few[OWN].make(5)
    assert made == [("statistics", 5)]  # off by default, but here it is wanted


def test_who_takes_part_depends_on_the_task(small):
    chips = np.zeros((BLOCK, 24, 24, 3), np.uint8)
    everybody = contenders([], Source(small, chips), 7, AdaptationSettings(), "pack", lambda *_: None)
    assert list(everybody) == [*BASELINES, OWN]
    of_people = Source(small, chips, identity=True)
    with pytest.raises(MethodError, match="no method 'lame'"):
        contenders(["lame"], of_people, 7, AdaptationSettings(), "pack", lambda *_: None)


def test_what_a_pack_brings_along_tells_results_apart_too(tmp_path):
    (tmp_path / "face.onnx").write_bytes(b"network")
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before
    (tmp_path / "bank").write_bytes(b"what was learnt")
    assert stamp(tmp_path) != before


def test_a_condition_that_was_not_taught_leaves_the_others_as_probable_to_each_other():
    rng = np.random.default_rng(0)
    numbers = {name: rng.normal(size=6).astype(np.float32) for name in ("centre", "bias")}
    norms = {
        name: {"norm.one.scale": np.full(3, at, np.float32)}
        for at, name in enumerate(("dark", "noise", "mask"))
    }
    conditions = ("source", *norms)
    weight = rng.normal(size=(6, 4)).astype(np.float32)
    bank = Bank(
        "net",
        conditions,
        ("one",),
        numbers["centre"],
        np.ones(6, np.float32),
        weight,
        numbers["bias"][:4],
        norms,
        np.array([0, 0.1, 0.2, 0.3], np.float32),
    )
    without = untaught(bank, "noise")
    assert without.conditions == ("source", "dark", "mask")
    assert without.norms == {"dark": norms["dark"], "mask": norms["mask"]}
    assert without.rises == pytest.approx([0, 0.1, 0.3])
    moments = rng.normal(size=6).astype(np.float32)
    left = np.exp(bank.log_posterior(moments))[[0, 1, 3]]
    assert np.exp(without.log_posterior(moments)) == pytest.approx(left / left.sum(), rel=1e-5)
    mixed = without.mix(np.array([0.5, 0.0, 0.5], np.float32), {"norm.one.scale": np.zeros(3, np.float32)})
    assert mixed["norm.one.scale"] == pytest.approx([1.0] * 3)
    assert len(bank.conditions) == 4
    for name in ("source", "fog"):
        with pytest.raises(
            MethodError, match=f"no condition '{name}' in the pack's norm bank; there are dark, noise"
        ):
            untaught(bank, name)
