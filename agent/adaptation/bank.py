"""The norm bank of a pack: norm parameters for each condition that was learned, and how to tell conditions apart.

A condition is what light and camera do to a face: darkness, glare, blur, noise. Each has norm parameters of its own, as
in domain-specific batch normalisation (Chang et al., "Domain-Specific Batch Normalization for Unsupervised Domain
Adaptation", CVPR 2019); everything else in the network is shared. Which condition holds is read off the moments of
what the first norm layers read, by a linear classifier. The first condition is always ``source``: the pack as it is.

A bank also says by how much more strictly people are to be judged in each condition; see ``agent.adaptation.rise``.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.adaptation.chip_filter import adaptable
from agent.adaptation.rise import HIGHEST
from agent.adaptation.types import Norms
from agent.perception.types import Float32
from engines.errors import UserError
from engines.norms import read_norms

SOURCE = "source"
VERSION = 2
"""Of the file. Before 2 it did not say what strangers become, which is no reason to take it for nothing."""
_LARGEST = 64 * 2**20  # bytes of a bank's file


class BankError(UserError):
    """A bank cannot be read or does not suit the network; the message names the file and the remedy."""


@dataclass(frozen=True)
class Bank:
    """A norm bank; see the module.

    Attributes:
        network: what ``network_digest`` says of the face network for which it was made.
        conditions: their names; the first is ``source``.
        layers: the norm layers whose moments the classifier reads, in the order of ``Probe``.
        centre: float32 [features], subtracted from the moments.
        spread: float32 [features], more than 0: what they are divided by.
        weight: float32 [features, conditions].
        bias: float32 [conditions].
        norms: for each condition but the source, all that ``adaptable`` names.
        rises: float32 [conditions], at least 0 and less than 1; 0 for the source.
    """

    network: str
    conditions: tuple[str, ...]
    layers: tuple[str, ...]
    centre: Float32
    spread: Float32
    weight: Float32
    bias: Float32
    norms: Mapping[str, Norms]
    rises: Float32

    def log_posterior(self, moments: Float32) -> Float32:
        """Float32 [conditions]: the logarithm of how probable each condition is for a chip of these moments."""
        logits = (moments - self.centre) / self.spread @ self.weight + self.bias
        logits -= logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()), np.float32)

    def mix(self, shares: Float32, source: Norms) -> Norms:
        """Norm parameters between those of the conditions.

        Args:
            shares: float32 [conditions], not negative, of sum 1.
            source: the pack's own, as ``adaptable`` has them.
        """
        mixed = {name: shares[0] * value for name, value in source.items()}
        for condition, share in zip(self.conditions[1:], shares[1:], strict=True):
            for name, value in self.norms[condition].items():
                mixed[name] = mixed[name] + share * value
        return {name: value.astype(np.float32) for name, value in mixed.items()}

    def rise(self, shares: Float32) -> float:
        """The rise between those of the conditions, for shares as ``mix`` takes them."""
        return min(max(float(self.rises @ shares), 0.0), HIGHEST)


def encode_bank(bank: Bank) -> bytes:
    """The bank as an ``.npz`` of plain arrays, the same bytes for the same bank."""
    arrays: dict[str, NDArray[np.generic]] = {
        "version": np.array(VERSION),
        "network": np.array(bank.network),
        "conditions": np.array(bank.conditions),
        "layers": np.array(bank.layers),
        "centre": bank.centre,
        "spread": bank.spread,
        "weight": bank.weight,
        "bias": bank.bias,
        "rises": bank.rises,
    }
    for condition, norms in sorted(bank.norms.items()):
        arrays |= {f"{condition}/{name}": value for name, value in sorted(norms.items())}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            plain = io.BytesIO()
            np.save(plain, value, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), plain.getvalue(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def network_digest(norms: Norms) -> str:
    """Names a network by its norm parameters: SHA-256 over their names and values, 64 hex digits."""
    digest = hashlib.sha256()
    for name, value in norms.items():
        digest.update(f"{name} {value.size}\n".encode() + value.astype("<f4").tobytes())
    return digest.hexdigest()


def read_bank(path: Path, model: onnx.ModelProto) -> Bank:
    """The bank in a file, for a face network.

    Args:
        path: the bank's file.
        model: the network.

    Raises:
        BankError: the file is missing, no bank, or a bank for another network.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise BankError(f"{path}: larger than {_LARGEST >> 20} MiB, no norm bank; fetch the pack again")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        bank = _assembled(arrays)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BankError(f"{path}: no norm bank ({error}); fetch the pack again") from error
    except _VersionError as error:
        raise BankError(
            f"{path}: a norm bank of version {error}, and {VERSION} is needed, which says how strangers are kept out; "
            "make it anew with `cabinsense calibrate conditions`, or fetch the pack again"
        ) from error
    if bank.network != network_digest(read_norms(model)):
        raise BankError(f"{path}: made for another face network than the pack's; make it anew for this one")
    expected = {name: value.shape for name, value in adaptable(model).items()}
    for condition, norms in bank.norms.items():
        if {name: value.shape for name, value in norms.items()} != expected:
            raise BankError(f"{path}: the norm parameters of {condition} are not those of the network")
    return bank


class _VersionError(Exception):
    """The bank is of another version, which is named."""


def _assembled(arrays: Mapping[str, NDArray[np.generic]]) -> Bank:
    """Raises KeyError or ValueError: these arrays make no bank; or _VersionError."""
    version = int(arrays.get("version", np.array(1)).reshape(()))
    if version != VERSION and "conditions" in arrays:
        raise _VersionError(version)
    conditions = tuple(str(each) for each in arrays["conditions"].reshape(-1))
    numbers = {
        name: np.asarray(value, np.float32)
        for name, value in arrays.items()
        if name not in {"version", "network", "conditions", "layers"}
    }
    if conditions[:1] != (SOURCE,) or len(set(conditions)) != len(conditions):
        raise ValueError(f"its conditions are {', '.join(conditions) or 'none'}")
    if not all(np.isfinite(value).all() for value in numbers.values()):
        raise ValueError("it holds numbers that are not finite")
    features = numbers["centre"].size
    shapes = {name: numbers[name].shape for name in ("centre", "spread", "weight", "bias", "rises")}
    count = len(conditions)
    if (
        shapes
        != {
            "centre": (features,),
            "spread": (features,),
            "weight": (features, count),
            "bias": (count,),
            "rises": (count,),
        }
        or (numbers["spread"] <= 0).any()
    ):
        raise ValueError(f"its classifier has shapes {shapes}")
    rises = numbers["rises"]
    if rises[0] != 0 or (rises < 0).any() or (rises > HIGHEST).any():
        raise ValueError(f"its rises are {', '.join(f'{rise:g}' for rise in rises)}")
    norms: dict[str, Norms] = {condition: {} for condition in conditions[1:]}
    for name, value in numbers.items():
        condition, slash, parameter = name.partition("/")
        if slash:
            norms[condition][parameter] = value
    return Bank(
        network=str(arrays["network"]),
        conditions=conditions,
        layers=tuple(str(each) for each in arrays["layers"].reshape(-1)),
        centre=numbers["centre"],
        spread=numbers["spread"],
        weight=numbers["weight"],
        bias=numbers["bias"],
        norms=norms,
        rises=rises,
    )
