"""How well a network that is in training tells expressions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainer.backbones import Backbone
from trainer.common.precision import Precision
from trainer.common.stepped import pixels
from trainer.data.reading import Pictures, Source, load
from trainer.data.samplers import InOrder
from trainer.metrics import Metrics, measure

_BATCH = 64


def measured(
    backbone: Backbone, head: nn.Module, faces: Source, workers: int, precision: Precision
) -> Metrics:
    """What a head on a backbone's map makes of faces with expressions; both in evaluation mode."""
    return measure(*logits_of(backbone, head, faces, workers, precision))


def logits_of(
    backbone: Backbone, head: nn.Module, faces: Source, workers: int, precision: Precision
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits float32 [n, expressions], and the labels int64 [n] of the faces; for the rest see ``measured``."""
    logits, labels = [], []
    pictures = Pictures(faces, 0)
    with torch.inference_mode():
        for images, known in load(pictures, InOrder(len(pictures), _BATCH), workers):
            with precision.autocast():
                maps = backbone(pixels(images.to(precision.device))).map
                logits.append(head(maps).float().cpu().numpy())
            labels.append(known.numpy())
    return np.concatenate(logits), np.concatenate(labels)
