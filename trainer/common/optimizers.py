"""The optimiser of a run, as its settings say."""

import torch
from torch import nn

from trainer.common.settings import RunSettings


def make(module: nn.Module, settings: RunSettings) -> torch.optim.Optimizer:
    """The optimiser; a norm's scale and a bias have no reason to be small, so nothing draws them to zero."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
