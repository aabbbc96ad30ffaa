"""Wing loss, for landmarks: small and medium errors count for more than under L1 or L2."""

import math

import torch
from torch import Tensor

from trainer.losses.precision import wide


def wing_loss(predicted: Tensor, target: Tensor, width: float = 10.0, curvature: float = 2.0) -> Tensor:
    """The mean over coordinates of w ln(1 + |x| / e) below w and |x| - C beyond (Feng et al., CVPR 2018, equation 5).

    C = w - w ln(1 + w / e) joins the two parts. The authors' w = 10 and e = 2 are for pixels of a face crop.

    Args:
        predicted: float [n, points, 2], in pixels of the crop.
        target: float of the same shape and unit.
        width: w, in the same unit, above 0.
        curvature: e, in the same unit, above 0; too small and the gradient near 0 explodes.

    Returns:
        float [], at least 0.

    Raises:
        ValueError: width or curvature is not above 0, or the shapes differ.
    """
    if width <= 0.0 or curvature <= 0.0:
        raise ValueError(f"width {width} and curvature {curvature} must be above 0")
    if predicted.shape != target.shape:
        raise ValueError(
            f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ in shape"
        )
    error = (wide(predicted) - wide(target)).abs()
    step = width - width * math.log1p(width / curvature)
    return torch.where(error < width, width * torch.log1p(error / curvature), error - step).mean()
