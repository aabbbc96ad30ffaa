"""A norm bank is read only if it is whole and made for this network; between conditions it mixes."""

import io

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adaptation.bank import Bank, BankError, encode_bank, network_digest, read_bank
from agent.adaptation.chip_filter import adaptable
from agent.adaptation.rise import HIGHEST, raised
from engines.norms import read_norms


@pytest.fixture(scope="module")
def model(pack) -> onnx.ModelProto:
    return onnx.load(pack.face)


def a_bank(model: onnx.ModelProto, **changes: object) -> Bank:
    source = adaptable(model)
    values = {
        "network": network_digest(read_norms(model)),
        "conditions": ("source", "dark", "blur"),
        "layers": ("input",),
        "centre": np.zeros(6, np.float32),
        "spread": np.ones(6, np.float32),
        "weight": np.eye(6, 3, dtype=np.float32),
        "bias": np.zeros(3, np.float32),
        "norms": {
            "dark": {name: value * np.float32(2) for name, value in source.items()},
            "blur": {name: value * np.float32(4) for name, value in source.items()},
        },
        "rises": np.float32([0, 0.25, 0.1]),
    }
    return Bank(**(values | changes))


def written(tmp_path, bank: Bank):
    path = tmp_path / "bank.npz"
    path.write_bytes(encode_bank(bank))
    return path


def test_what_is_written_is_read(model, tmp_path):
    bank = a_bank(model)
    found = read_bank(written(tmp_path, bank), model)
    assert (found.conditions, found.layers, found.network) == (bank.conditions, bank.layers, bank.network)
    assert np.array_equal(found.weight, bank.weight)
    assert np.array_equal(found.rises, bank.rises)
    assert all(
        np.array_equal(found.norms[condition][name], value)
        for condition, norms in bank.norms.items()
        for name, value in norms.items()
    )
    assert encode_bank(found) == encode_bank(bank)


def test_the_source_mixes_to_itself_and_others_to_what_lies_between(model):
    bank, source = a_bank(model), adaptable(model)
    alone = bank.mix(np.float32([1, 0, 0]), source)
    assert all(np.array_equal(alone[name], value) for name, value in source.items())
    half = bank.mix(np.float32([0.5, 0.5, 0]), source)
    assert all(np.allclose(half[name], 1.5 * value) for name, value in source.items())


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=6, max_size=6))
def test_conditions_are_probabilities_whatever_the_moments(moments):
    bank = Bank(
        "", ("source", "a"), ("input",), np.zeros(6, np.float32), np.ones(6, np.float32),
        np.ones((6, 2), np.float32) * np.float32([1, -1]), np.zeros(2, np.float32), {"a": {}}, np.zeros(2, np.float32),
    )  # fmt: skip
    found = bank.log_posterior(np.float32(moments))
    assert np.isfinite(np.exp(found)).all()
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-4)


def test_a_bank_for_another_network_is_refused(model, tmp_path):
    with pytest.raises(BankError, match="another face network"):
        read_bank(written(tmp_path, a_bank(model, network="0" * 64)), model)


def test_norms_of_another_shape_are_refused(model, tmp_path):
    norms = a_bank(model).norms | {"blur": {"norm.stem.scale": np.ones(3, np.float32)}}
    with pytest.raises(BankError, match="norm parameters of blur"):
        read_bank(written(tmp_path, a_bank(model, norms=norms)), model)


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": ("dark", "source", "blur")},
        {"conditions": ("source", "dark", "dark")},
        {"weight": np.ones((5, 3), np.float32)},
        {"bias": np.full(3, np.nan, np.float32)},
        {"spread": np.zeros(6, np.float32)},
        {"rises": np.float32([0, 0.25])},
        {"rises": np.float32([0, -0.1, 0])},
        {"rises": np.float32([0, 1, 0])},
        {"rises": np.float32([0, np.nan, 0])},
        {"rises": np.float32([0.1, 0, 0])},
    ],
)
def test_a_bank_that_makes_no_sense_is_refused(model, tmp_path, changes):
    with pytest.raises(BankError, match="no norm bank"):
        read_bank(written(tmp_path, a_bank(model, **changes)), model)


def test_a_bank_that_does_not_say_what_strangers_become_is_refused(model, tmp_path):
    path = written(tmp_path, a_bank(model))
    with np.load(path) as file:
        older = {name: file[name] for name in file.files if name not in {"version", "rises"}}
    np.savez(path, **older)
    with pytest.raises(BankError, match=r"version 1, and 2 is needed.*cabinsense calibrate conditions"):
        read_bank(path, model)
    np.savez(path, **older, version=np.array(3))
    with pytest.raises(BankError, match=r"version 3"):
        read_bank(path, model)
    np.savez(path, **older, version=np.array([1, 2]))
    with pytest.raises(BankError, match=r"no norm bank"):
        read_bank(path, model)


def test_the_threshold_rises_as_much_as_a_condition_is_probable(model):
    bank = a_bank(model)
    assert bank.rise(np.float32([1, 0, 0])) == 0
    assert bank.rise(np.float32([0.5, 0.5, 0])) == pytest.approx(0.125)
    assert bank.rise(np.float32([0, 0.2, 0.8])) == pytest.approx(0.13)
    # A quarter of the way from 0.92 to 1.
    assert raised(0.92, bank.rise(np.float32([0, 1, 0]))) == pytest.approx(0.94)


@given(st.floats(-1, 1), st.floats(0, HIGHEST))
def test_a_raised_threshold_lies_between_what_it_was_and_one(threshold, rise):
    assert raised(threshold, 0.0) == threshold
    assert threshold <= raised(threshold, rise) + 1e-12
    assert raised(threshold, rise) <= 1 + 1e-12


def test_a_damaged_file_is_refused_by_name(model, tmp_path):
    path = written(tmp_path, a_bank(model))
    whole = path.read_bytes()
    for count in range(0, len(whole) - 1, len(whole) // 40):
        path.write_bytes(whole[:count])
        with pytest.raises(BankError, match=r"bank\.npz"):
            read_bank(path, model)


def test_pickled_content_is_never_run(model, tmp_path):
    path = tmp_path / "bank.npz"
    packed = io.BytesIO()
    np.savez(packed, conditions=np.array([{"a": 1}], dtype=object))
    path.write_bytes(packed.getvalue())
    with pytest.raises(BankError, match="no norm bank"):
        read_bank(path, model)


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(BankError, match=r"bank\.npz"):
        read_bank(tmp_path / "bank.npz", model)
