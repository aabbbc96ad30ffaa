"""PyTorch is an extra: what needs it says so before the long work starts."""

import importlib.util

from engines.errors import UserError


class TorchError(UserError):
    """PyTorch is missing; the message says what to do."""


def check_torch(what: str, otherwise: str = "") -> None:
    """See that PyTorch is there.

    Args:
        what: needs it.
        otherwise: what can be done without it.

    Raises:
        TorchError: it is not there.
    """
    if importlib.util.find_spec("torch") is None:
        remedy = "install it with `pip install 'cabinsense[adapt]'`" + (
            f", or {otherwise}" if otherwise else ""
        )
        raise TorchError(f"{what}: PyTorch is missing; {remedy}")
