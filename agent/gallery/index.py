"""Find the nearest person in many templates, and the nearest other person.

Every index gives the same answer, up to the rounding of float32; they differ in speed and memory only. Which one a
gallery gets depends on its size; docs/decisions/0015-matching-at-scale.md has the figures.
"""

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.perception.types import Float32

log = logging.getLogger(__name__)

PRODUCT_ROWS = 100_000
"""Up to so many templates one matrix product compares them all; beyond, FAISS where it is installed."""

ROUNDING = 1e-5
"""Two cosines that are nearer than this cannot be told apart: 128 products summed in float32, in whatever order, are
wrong by at most 128 · 2⁻²⁴ ≈ 8e-6 (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The two people nearest to an embedding.

    Attributes:
        person: whose template is nearest, as an index into the gallery's names; -1 when there is nobody.
        score: its cosine; -inf when there is nobody.
        second: cosine of the nearest template of anybody else; -inf when there is nobody else.
    """

    person: int
    score: float
    second: float


class Index(Protocol):
    """Answers for one gallery, which never changes; any thread may ask.

    Attributes:
        fallbacks: how often a quicker search could not settle a question and the product had to.
    """

    fallbacks: int

    def nearest(self, embedding: Float32, without: Collection[int] = ()) -> Nearest:
        """The nearest people to ``embedding``, float32 [dim], as if those in ``without`` were not in the gallery.

        Where two people are equally near up to ``ROUNDING``, either may be called the nearest: ``score`` and
        ``second`` are then equal up to ``ROUNDING``, too.
        """
        ...


class _Scratch(threading.local):
    """Memory for the cosines of all templates, float32 [n]: allocated once for each thread that asks."""

    def __init__(self, count: int) -> None:
        self.scores: Float32 = np.empty(count, np.float32)


class ProductIndex:
    """All templates by one matrix product."""

    fallbacks = 0

    def __init__(self, templates: Float32, owners: NDArray[np.intp]) -> None:
        """Search ``templates`` (float32 [n, dim]) of ``owners`` (intp [n], ascending); neither is copied."""
        self._templates = templates
        self._owners = owners
        self._scratch = _Scratch(len(templates))

    def nearest(self, embedding: Float32, without: Collection[int] = ()) -> Nearest:
        """The nearest people; see ``Index``."""
        scores = np.dot(self._templates, embedding, out=self._scratch.scores)
        for person in without:
            _leave_out(person, scores, self._owners)
        return two_nearest(scores, self._owners)


def two_nearest(scores: Float32, owners: NDArray[np.intp]) -> Nearest:
    """The nearest two people, where row i has the cosine ``scores[i]`` and belongs to ``owners[i]``, ascending.

    Overwrites some of ``scores``.
    """
    if not scores.size:
        return Nearest(-1, -np.inf, -np.inf)
    best = int(scores.argmax())
    score, person = float(scores[best]), int(owners[best])
    if score == -np.inf:
        return Nearest(-1, -np.inf, -np.inf)
    _leave_out(person, scores, owners)
    return Nearest(person, score, float(scores[scores.argmax()]))


def _leave_out(person: int, scores: Float32, owners: NDArray[np.intp]) -> None:
    # A person's rows are neighbours.
    scores[owners.searchsorted(person) : owners.searchsorted(person, "right")] = -np.inf


def best_index(templates: Float32, owners: NDArray[np.intp]) -> Index:
    """The quickest index for these templates. Making it takes about a second for each million."""
    if len(templates) > PRODUCT_ROWS:
        try:
            from agent.gallery.faiss_index import FaissIndex  # noqa: PLC0415  # an extra
        except ImportError:
            _say_what_is_missing()
        else:
            return FaissIndex(templates, owners)
    return ProductIndex(templates, owners)


@cache  # once is enough
def _say_what_is_missing() -> None:
    log.warning(
        "the gallery has more than %d templates and FAISS is not installed: matching goes on, but slower; "
        "`pip install 'cabinsense[faiss]'`",
        PRODUCT_ROWS,
    )
