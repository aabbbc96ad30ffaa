"""The adapter of a pack, by the tier that is configured."""

from pathlib import Path

import onnx

from agent.adaptation.adapter import Adapter
from agent.adaptation.bank import Bank, BankError, read_bank
from agent.adaptation.types import Adapts
from agent.config import AdaptationSettings
from engines.model import read_model
from engines.pack import Pack, no_bank, verify
from engines.torch_extra import check_torch


def check_tier(settings: AdaptationSettings) -> None:
    """See that what the tier needs is installed.

    Raises:
        TorchError: PyTorch is missing.
    """
    if settings.tier == "gradient":
        check_torch("adaptation.tier is gradient", "set it to statistics, which needs none")


def means(pack: Pack, settings: AdaptationSettings) -> tuple[onnx.ModelProto, Bank]:
    """What an adapter works with: the face network and its bank.

    Raises:
        TorchError: the tier is ``gradient``, and PyTorch is missing.
        BankError: the pack has no bank that suits its network.
        EngineError: the network cannot be read.
    """
    check_tier(settings)
    if pack.bank is None:
        raise BankError(no_bank(pack))
    model = read_model(pack.face)
    return model, read_bank(pack.bank, model)


def adapter_of_pack(face: Path, settings: AdaptationSettings, seed: int) -> Adapts:
    """The adapter for the face network in a pack's folder.

    Args:
        face: the network's file.
        settings: as configured; a tier that is ``off`` is taken for ``statistics``.
        seed: of what is drawn at random.

    Raises:
        PackError: the folder is no pack, or a file is not the one that was released.
        TorchError: as ``means``, like the others.
        BankError:
        EngineError:
    """
    model, bank = means(verify(face.parent), settings)
    return adapter(model, bank, settings, seed)


def adapter(model: onnx.ModelProto, bank: Bank, settings: AdaptationSettings, seed: int) -> Adapts:
    """The adapter for a network and a bank that was made for it; see ``adapter_of_pack``."""
    if settings.tier == "gradient":
        from agent.adaptation.refined import Refined  # noqa: PLC0415 # torch is an extra

        return Refined(model, bank, settings, seed)
    return Adapter(model, bank, settings)
