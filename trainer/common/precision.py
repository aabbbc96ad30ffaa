"""What products are computed in: float32 everywhere, half precision where the device is made for it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from trainer.common.settings import ConfigError

Wish = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Precision:
    """A device, and the type that products run in there; weights and losses stay float32."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """In this context the network runs in that type; what is float32 by nature stays it."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that float16's gradients do not vanish; does nothing for other types."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose(device: torch.device, wish: Wish) -> Precision:
    """The precision of a run on a device.

    Raises:
        ConfigError: float16 is asked for where there is no GPU.
    """
    if wish == "float16" and device.type != "cuda":
        raise ConfigError('precision = "float16" needs a GPU; use bfloat16 or float32 on the processor')
    if wish == "auto":
        if device.type != "cuda":
            return Precision(device)
        return Precision(device, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
    return Precision(device, getattr(torch, wish))
