"""Any model of timm as a backbone: EfficientNet, ViT and hundreds more. timm comes with the extra ``trainer``."""

import math
import sys
from typing import Any

import torch
from torch import Tensor

from trainer.backbones.interface import Backbone, BackboneError, Features
from trainer.backbones.layers import convolution, initialise

_OPERATORS = (
    "nms",
    "qnms",
)  # of torchvision's; its import describes them, whether or not they have been loaded
_kept: list[torch.library.Library] = []  # a declaration holds as long as its object lives


class TimmBackbone(Backbone):
    """A timm model, and a linear layer and its norm from the model's pooled features to the summary.

    A vision transformer sees whole patches only: of 150 pixels those of size 16 leave out 6 on the right and below.
    """

    def __init__(self, name: str, side: int, dim: int) -> None:
        """Make the model with random weights: its name, side of the pictures, length of the summary.

        Raises:
            BackboneError: timm is missing, has no such model, or the model does not take such pictures or has no map.
        """
        model = _create(name, side).eval()
        try:
            with torch.no_grad():
                raw = model.forward_features(torch.zeros(1, 3, side, side))
                pooled = model.forward_head(raw, pre_logits=True)
        except (AssertionError, RuntimeError) as error:
            raise BackboneError(
                f"timm:{name} does not take pictures of {side}×{side} ({error}); choose another side or model"
            ) from error
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))
        self._last = bool(getattr(model, "output_fmt", "NCHW") == "NHWC")
        found = self._as_map(raw) if isinstance(raw, Tensor) else None
        if found is None or pooled.dim() != 2:
            raise BackboneError(f"timm:{name} has no feature map of square cells; choose another model")
        super().__init__(side, dim, int(found.shape[1]))
        self.head = convolution(int(pooled.shape[1]), dim, active=False)
        initialise(self.head)
        self.model = model.train()

    def forward(self, images: Tensor) -> Features:
        """See ``Backbone.forward``."""
        found, pooled = self.pooled(images)
        return Features(found, self.head(pooled[:, :, None, None]).flatten(1))

    def pooled(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own map [n, channels, h, w] and pooled features [n, d] of ``images``, before our own layer."""
        raw = self.model.forward_features(images)
        found = self._as_map(raw)
        assert found is not None  # noqa: S101 - for the type checker: it was tried when this was made
        return found, self.model.forward_head(raw, pre_logits=True)

    def _as_map(self, raw: Tensor) -> Tensor | None:
        """[n, channels, h, w] of a model's features: maps, maps with channels last, or tokens of a square picture."""
        if raw.dim() == 4:
            return raw.permute(0, 3, 1, 2) if self._last else raw
        tokens = raw[:, self._prefix :]
        cells = math.isqrt(tokens.shape[1])
        if raw.dim() != 3 or cells**2 != tokens.shape[1]:
            return None
        return tokens.transpose(1, 2).reshape(-1, int(tokens.shape[2]), cells, cells)


def _create(name: str, side: int) -> Any:
    """A timm model without its classifier; models that must know the size of their pictures are told."""
    timm = _timm()
    if not timm.is_model(name):
        raise BackboneError(f"timm has no model {name!r}; `timm.list_models()` names those there are")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=side)
    except TypeError:  # it takes pictures of any size
        return timm.create_model(name, pretrained=False, num_classes=0)
    except AssertionError as error:
        raise BackboneError(f"timm:{name} cannot be made for pictures of {side}×{side} ({error})") from error


def _timm() -> Any:
    """The package timm.

    timm imports torchvision. PyPI's torchvision for Linux is compiled for PyTorch with CUDA; beside a CPU build its
    compiled part is left out, silently, and its import then fails where it describes two operators of that part. They
    are declared here instead. Nothing that timm's models use needs them.
    """
    try:
        try:
            import timm  # noqa: PLC0415 - an extra, and seconds to import
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
            for module in [name for name in sys.modules if name.split(".")[0] in {"timm", "torchvision"}]:
                del sys.modules[module]
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            _kept.append(library)
            for operator in _OPERATORS:
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            import timm  # noqa: PLC0415
    except ImportError as error:
        raise BackboneError(
            f"backbones of timm need timm ({error}); `pip install 'cabinsense[trainer]'`"
        ) from error
    return timm
