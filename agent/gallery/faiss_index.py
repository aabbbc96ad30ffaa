"""Large galleries with FAISS: read them at a byte a number, then prove that nobody was missed.

FAISS scans eight-bit copies of the templates, a quarter of what the matrix product reads, and names candidates; their
cosines are computed anew from the templates themselves. By Cauchy and Schwarz the copy of a template is off by at most
``|template − copy| · |embedding|``, so a row that FAISS left out cannot score more than the last candidate plus the
greatest of these errors. If that is less than what was found, the answer is the product's; else the product is taken.
"""

from collections.abc import Collection

import faiss
import numpy as np
from numpy.typing import NDArray

from agent.gallery.index import ROUNDING, Nearest, ProductIndex, two_nearest
from agent.perception.types import Float32

_CANDIDATES = (
    128  # among a million templates spread as LFW's, 64 always were enough, 16 three times out of four
)
_BLOCK = 65_536  # rows worked on at a time while the index is made: 32 MiB of 128 numbers each


class FaissIndex:
    """The same answers as ``ProductIndex``, sooner when there are many templates."""

    def __init__(self, templates: Float32, owners: NDArray[np.intp]) -> None:
        """Search ``templates`` (float32 [n, dim]) of ``owners`` (intp [n], ascending).

        Neither is copied; the eight-bit copy takes ``n · dim`` bytes.
        """
        self._templates = templates
        self._owners = owners
        self._product = ProductIndex(templates, owners)
        self._codes = _eight_bit(templates)
        self._error = _greatest_error(self._codes, templates)
        of_one = int(
            np.bincount(owners).max(initial=0)
        )  # all templates of one person may come before any other's
        self._count = min(len(templates), _CANDIDATES + of_one)
        self.fallbacks = 0

    def nearest(self, embedding: Float32, without: Collection[int] = ()) -> Nearest:
        """The nearest people; see ``Index``."""
        # More threads for one question gain little and, beside other work, wait for each other far longer than the
        # answer takes. The setting is the calling thread's own.
        faiss.omp_set_num_threads(1)
        scores, found = self._codes.search(embedding[None], self._count)
        candidates = np.sort(found[0])
        if without:
            candidates = candidates[~np.isin(self._owners[candidates], list(without))]
        near = two_nearest(self._templates[candidates] @ embedding, self._owners[candidates])
        left_out = float(scores[0, -1]) + self._error * float(np.linalg.norm(embedding)) + ROUNDING
        if near.second >= left_out or self._count == len(self._templates):
            return near
        self.fallbacks += 1
        return self._product.nearest(embedding, without)


def _eight_bit(templates: Float32) -> "faiss.IndexScalarQuantizer":
    """A FAISS index that holds ``templates`` with a byte a number, each column over the range that it needs."""
    codes = faiss.IndexScalarQuantizer(
        templates.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    codes.train(np.stack([templates.min(axis=0), templates.max(axis=0)]))  # it learns ranges, nothing else
    for start in range(0, len(templates), _BLOCK):
        codes.add(templates[start : start + _BLOCK])
    return codes


def _greatest_error(codes: "faiss.IndexScalarQuantizer", templates: Float32) -> float:
    """The greatest distance between a template and its copy."""
    return max(
        float(np.linalg.norm(block - codes.reconstruct_n(start, len(block)), axis=1).max())
        for start in range(0, len(templates), _BLOCK)
        for block in (templates[start : start + _BLOCK],)
    )
