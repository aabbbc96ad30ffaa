"""How a camera sees: whether its pictures can show anybody at all.

A lens under a sticker gives pictures without a face just as an empty seat does, and a camera whose firmware hangs shows
the same driver for ever. Neither may be taken for an observation.

The limits were set on 1,500 photographs of Labeled Faces in the Wild and the sample clip: their blocks deviate by 20 to
90, their mean luma is 40 to 200, at most 35 % of their pixels are clipped. With a tenth of the light blocks deviate by
2.6 to 7.7; a grey area under noise of 20 by 3.3.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from agent.perception.types import Exposure, Image, View

_COLUMNS, _ROWS = 64, 48  # pixels that are looked at: what matters here is large
_BLOCKS = (
    16,
    12,
)  # means of so many blocks of them: noise, which a covered camera amplifies, is averaged away
_FLAT = 4.0  # deviation of the blocks' luma below which there is nothing to be seen
_DARK, _DIM, _BRIGHT, _GLARE = 20.0, 50.0, 190.0, 225.0  # mean luma
_CLIPPED = 250  # luma of a pixel that may be brighter than the camera can tell
_MUCH_CLIPPED, _MOSTLY_CLIPPED = 0.4, 0.7  # share of such pixels
_HOLD_S = 1.0  # another sight must last so long: a hand passes, a tunnel begins
_SAME = 1  # greatest difference of two bytes of pictures that are the same, but for a codec's rounding


@dataclass(frozen=True, slots=True)
class Sight:
    """How a camera sees.

    Attributes:
        view: what its pictures are good for.
        exposure: how it should be exposed instead; None if it is well exposed.
    """

    view: View = "clear"
    exposure: Exposure | None = None


def sight(luma: Image) -> Sight:
    """How well a picture can be seen, from some of its pixels.

    Args:
        luma: uint8 [rows, columns].
    """
    blocks = cv2.resize(luma, _BLOCKS, interpolation=cv2.INTER_AREA)
    mean, deviation = float(luma.mean()), float(blocks.std())
    clipped = float((luma >= _CLIPPED).mean())
    if mean > _GLARE or clipped > _MOSTLY_CLIPPED:
        return Sight("glare", "lower")
    if deviation < _FLAT:
        return Sight("covered")
    if mean < _DARK:
        return Sight("dark", "raise")
    if mean < _DIM:
        return Sight("clear", "raise")
    return Sight("clear", "lower" if mean > _BRIGHT or clipped > _MUCH_CLIPPED else None)


class SceneWatch:
    """Watches the pictures of one camera from its opening on."""

    def __init__(self, frozen_s: float) -> None:
        """A picture that stays the same for ``frozen_s`` seconds is frozen; 0: never."""
        self._frozen_s = frozen_s
        self._sight = Sight()
        self._other_since: float | None = None
        self._still: Image | None = None
        self._still_grid: Image | None = None
        self._still_since = 0.0

    def look(self, image: Image, now: float) -> Sight:
        """How the camera sees, by its next picture: uint8 BGR [height, width, 3], taken at ``now`` seconds."""
        height, width = image.shape[:2]
        grid = np.ascontiguousarray(image[:: max(1, height // _ROWS), :: max(1, width // _COLUMNS)])
        seen = self._settled(sight(np.asarray(cv2.cvtColor(grid, cv2.COLOR_BGR2GRAY), np.uint8)), now)
        if not self._frozen_s:
            return seen
        if not self._is_still(image, grid):
            self._still, self._still_grid, self._still_since = image, grid, now
        if now - self._still_since < self._frozen_s or seen.view == "covered":
            return seen
        return Sight("frozen")

    def _is_still(self, image: Image, grid: Image) -> bool:
        """The picture is still the same; all of it is compared only if a part is."""
        return (
            self._still is not None
            and self._still_grid is not None
            and image.shape == self._still.shape
            and cv2.norm(grid, self._still_grid, cv2.NORM_INF) <= _SAME
            and cv2.norm(image, self._still, cv2.NORM_INF) <= _SAME
        )

    def _settled(self, seen: Sight, now: float) -> Sight:
        """The sight that holds: it changes when another one has lasted."""
        if seen == self._sight:
            self._other_since = None
        elif self._other_since is None:
            self._other_since = now
        elif now - self._other_since >= _HOLD_S:
            self._sight, self._other_since = seen, None
        return self._sight
