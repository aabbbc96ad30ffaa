"""Losses are computed in float32 or better, whatever the network runs in."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where it is float64: sums of squares overflow in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
