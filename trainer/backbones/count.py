"""What a network costs: parameters, and multiply-adds for one picture."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """Numbers that training may change."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, side: int) -> int:
    """Multiply-adds of all convolutions and matrix products for one RGB picture of side ``side``.

    It is what papers on small networks call FLOPs. Nothing is computed: the network is run on shapes alone.
    """
    shapes = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops()) // 2  # PyTorch counts a multiply-add as two
