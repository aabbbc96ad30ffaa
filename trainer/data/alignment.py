"""Where the five points of a face lie in a picture: what a network was trained on, the agent has to give it.

Points are left eye, right eye, tip of the nose, left and right corner of the mouth, as seen; a pixel's coordinates are
its middle's. InsightFace's are ``arcface_dst`` in its ``utils/face_align.py``, for pictures of 112 pixels: the faces of
its RecordIO files (MS-Celeb-1M, WebFace, Glint360K) were brought there by a similarity.
"""

import numpy as np
from numpy.typing import NDArray

from calibration.faces import scaled

Template = NDArray[np.float32]
"""Five points, float32 [5, 2], pixels."""

_INSIGHTFACE_SIDE = 112
_INSIGHTFACE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_ALIKE = 0.03  # of the side. A template that is enlarged by a tenth moves its points by no more, InsightFace's by 0.16


def insightface(side: int) -> Template:
    """InsightFace's points in a picture of so many pixels."""
    return scaled(_INSIGHTFACE, _INSIGHTFACE_SIDE, side)


def alike(one: Template, other: Template, side: int) -> bool:
    """Whether a network that was trained on one template may be given the other, in pictures of one side."""
    return bool(np.linalg.norm(one - other, axis=1).max() <= _ALIKE * side)


def upright(points: Template, template: Template) -> NDArray[np.float64]:
    """The scale and shift, without rotation, that take points closest to a template: float64 [2, 3].

    Args:
        points: float32 [5, 2], not all the same.
        template: float32 [5, 2].
    """
    middle, goal = points.mean(axis=0, dtype=np.float64), template.mean(axis=0, dtype=np.float64)
    centred = points - middle
    scale = (centred * (template - goal)).sum() / np.square(centred).sum()
    shift = goal - scale * middle
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
