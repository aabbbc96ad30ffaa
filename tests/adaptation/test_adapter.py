"""The adapter of the default pack: it follows conditions there and back, and one face never makes it collapse."""

import dataclasses

import numpy as np
import onnx
import pytest

from agent.adaptation.adapter import Adapter
from agent.adaptation.bank import BankError, read_bank
from agent.adaptation.chip_filter import adaptable
from agent.adaptation.probe import Probe, front_layers, probe_model
from agent.adaptation.tiers import adapter_of_pack
from agent.config import AdaptationSettings
from engines.engine import EngineError
from engines.norms import write_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from tests.adaptation.drive import Drive

SETTINGS = AdaptationSettings(tier="statistics")


@pytest.fixture
def adapter(model, pack) -> Adapter:
    return Adapter(model, read_bank(pack.bank, model), SETTINGS)


@pytest.fixture
def drive(adapter, pack) -> Drive:
    return Drive(adapter, np.array(pack.manifest.face.template, np.float32))


def test_in_good_light_nothing_changes(drive, faces):
    assert drive.through(faces, 60) == {}
    assert all(each.accepted for each in drive.decisions)


def test_noise_is_answered_with_other_norms_and_good_light_takes_them_back(drive, faces, model):
    norms = drive.through(faces, 40, "sensor_noise", 4)
    assert norms.keys() == adaptable(model).keys()
    better = next(each for each in drive.decisions if each.reason == "better")
    assert better.figures["noise"] > 0.9
    assert better.figures["cosine"] > 0.9
    assert drive.through(faces, 40) == {}


def test_people_are_judged_more_strictly_while_other_norms_run(model, pack, faces):
    bank = read_bank(pack.bank, model)
    rises = np.where(np.array(bank.conditions) == "noise", np.float32(0.5), np.float32(0))
    adapter = Adapter(model, dataclasses.replace(bank, rises=rises), SETTINGS)
    drive = Drive(adapter, np.array(pack.manifest.face.template, np.float32))
    drive.through(faces, 40, "sensor_noise", 4)
    drive.through(faces, 40)
    better = next(each for each in drive.decisions if each.reason == "better")
    assert better.rise == pytest.approx(0.5 * better.figures["noise"], abs=1e-3)
    confirmed = next(each for each in drive.decisions if each.reason == "confirmed" and each.norms)
    assert confirmed.rise > 0.4
    assert drive.decisions[-1].norms == {}
    assert all(each.rise == 0 for each in drive.decisions if not each.norms)


def test_half_an_hours_worth_of_one_neutral_face_moves_nothing(drive, faces):
    assert drive.through(faces[:1], 300) == {}


def test_the_same_samples_lead_to_the_same_proposals(model, pack, faces, drive):
    drive.through(faces, 30, "low_light", 3)
    again = Drive(Adapter(model, read_bank(pack.bank, model), SETTINGS), drive.template)
    again.through(faces, 30, "low_light", 3)
    assert [(each.reason, each.figures) for each in drive.decisions] == [
        (each.reason, each.figures) for each in again.decisions
    ]


def test_a_reset_forgets_all(drive, faces):
    assert drive.through(faces, 40, "sensor_noise", 4)
    proposal = drive.adapter.reset("scene")
    assert (proposal.accepted, proposal.norms, proposal.reason) == (True, {}, "reset:scene")
    assert drive.adapter.propose() is None


def test_norms_that_spoil_the_answers_are_refused_and_not_proposed_again(model, pack, faces):
    bank = read_bank(pack.bank, model)
    broken = {name: value * np.float32(-3) for name, value in adaptable(model).items()}
    spoilt = dataclasses.replace(bank, norms=dict.fromkeys(bank.norms, broken))
    drive = Drive(Adapter(model, spoilt, SETTINGS), np.array(pack.manifest.face.template, np.float32))
    assert drive.through(faces, 60, "sensor_noise", 4) == {}
    refused = [
        each for each in drive.decisions if each.reason in {"drift", "uncertain", "collapse", "not_finite"}
    ]
    assert len(refused) == 1


def test_a_pack_without_a_bank_says_so(model, pack, tmp_path):
    from msgspec import UNSET
    from msgspec.structs import replace

    from engines.pack import MANIFEST, encode_manifest

    for file in (pack.face, pack.detector):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / MANIFEST).write_bytes(encode_manifest(replace(pack.manifest, adaptation=UNSET)))
    with pytest.raises(BankError, match="no norm bank"):
        adapter_of_pack(tmp_path / pack.face.name, SETTINGS, 0)


def test_a_bank_reads_the_first_norm_of_each_size_of_map(model, pack):
    layers = read_bank(pack.bank, model).layers
    assert front_layers(model, len(layers)) == layers == ("input", "stem", "level4.0.a", "level3.0.a")


def test_the_probe_tells_what_norm_layers_read(model, faces):
    found = Probe(model, ("input", "stem")).moments(faces[0])
    pixels = faces[0].reshape(-1, 3).astype(np.float64)
    assert found[:3] == pytest.approx(pixels.mean(axis=0), rel=1e-5)
    assert found[3:6] == pytest.approx(pixels.std(axis=0), rel=1e-5)
    # With a factor of one and no addend, what the stem's norm gives is what it reads.
    plain = {"norm.stem.scale": np.ones(32, np.float32), "norm.stem.shift": np.zeros(32, np.float32)}
    seen = write_norms(model, plain)
    del seen.graph.output[:]
    seen.graph.output.append(onnx.helper.make_tensor_value_info("stem.norm", onnx.TensorProto.FLOAT, None))
    read = OnnxRuntimeEngine(seen, SessionSettings(1, dims={"N": 1})).run({"chip": faces[0][None]})[
        "stem.norm"
    ][0]
    assert found[6:38] == pytest.approx(read.mean(axis=(1, 2)), rel=1e-3, abs=1e-4)
    assert found[38:] == pytest.approx(read.std(axis=(1, 2)), rel=1e-3, abs=1e-4)


def test_a_layer_that_is_not_there_is_named(model):
    with pytest.raises(EngineError, match="no norm layer attic"):
        probe_model(model, ("input", "attic"))
