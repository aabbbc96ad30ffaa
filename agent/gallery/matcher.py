"""Who is it? The nearest template decides, unless it is too far, too close to a rival, or ruled out.

The rules, in this order:

1. A gallery without anybody knows nobody: ``empty_gallery``, or ``pack_mismatch`` if all samples are another pack's.
2. An embedding that is not a vector of length 1, or not of the templates' size, is nobody's (``invalid``).
3. A person is ruled out when the face is at least as close to one that was marked "not this person" as to that
   person's own templates. From there on it is as if they were not in the gallery: being marked as not one person
   makes a face nobody else's, but does not keep anybody else from being recognised either.
4. Whoever of the others is nearest must reach the threshold and lead by the margin. If only people who are ruled out
   reach the threshold, the reason is ``rejected``, else ``below_threshold``; without the lead it is ``ambiguous``.
"""

import numpy as np

from agent.gallery.index import ROUNDING, Index, best_index
from agent.gallery.types import Snapshot
from agent.perception.types import Float32, Match

_UNIT = (
    1e-2  # how far the square of an embedding's length may be from 1; in half precision it is by up to 1e-3
)


class Matcher:
    """A gallery made ready for many questions; any thread may ask."""

    def __init__(self, snapshot: Snapshot, index: Index | None = None) -> None:
        """Match against ``snapshot`` through ``index``, by default the quickest. May take seconds for a large one."""
        self.snapshot = snapshot
        self._index = index or best_index(snapshot.templates, snapshot.owners)
        self._anchors = _Anchors(snapshot) if len(snapshot.anchors) else None

    def match(self, embedding: Float32, threshold: float, margin: float) -> Match:
        """The person in the gallery whom ``embedding`` shows, or why nobody is recognised.

        Args:
            embedding: float32 [dim] of length 1, of the pack that the snapshot was made for.
            threshold: least cosine of a known person.
            margin: least lead over the second best person, as a cosine. People who cannot be told apart in float32
                are ambiguous even if it is 0.
        """
        if not self.snapshot.names:
            reason = "pack_mismatch" if self.snapshot.skipped else "empty_gallery"
            return Match(None, -1.0, threshold, reason=reason)
        # A backup from elsewhere may hold vectors of another size. Asked the other way round, a length that is not a
        # number would pass.
        if (
            embedding.size != self.snapshot.templates.shape[1]
            or not abs(float(embedding @ embedding) - 1) < _UNIT
        ):
            return Match(None, -1.0, threshold, reason="invalid")
        ruled_out = self._anchors.ruled_out(embedding) if self._anchors else {}
        near = self._index.nearest(embedding, ruled_out)
        if near.score >= threshold:
            second = max(near.second, -1.0)
            if not near.score - near.second >= max(margin, ROUNDING):
                return Match(None, near.score, threshold, second, "ambiguous")
            return Match(self.snapshot.names[near.person], near.score, threshold, second)
        *_, second, best = sorted([-1.0, -1.0, near.second, near.score, *ruled_out.values()])
        return Match(None, best, threshold, second, "rejected" if best >= threshold else "below_threshold")


def match(embedding: Float32, snapshot: Snapshot, threshold: float, margin: float) -> Match:
    """As ``Matcher.match``, for who asks rarely: the gallery is made ready each time."""
    return Matcher(snapshot).match(embedding, threshold, margin)


class _Anchors:
    """The people of whom faces were marked as not being them, with these faces and their templates."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._anchors = snapshot.anchors
        people, self._first_anchor = np.unique(snapshot.anchor_owners, return_index=True)
        mine = np.flatnonzero(np.isin(snapshot.owners, people))
        self._templates = snapshot.templates[mine]
        self._first_template = np.searchsorted(snapshot.owners[mine], people)
        self._people: list[int] = people.tolist()

    def ruled_out(self, embedding: Float32) -> dict[int, float]:
        """Who is not shown by ``embedding``, with the cosine of their nearest template."""
        not_them = np.maximum.reduceat(self._anchors @ embedding, self._first_anchor)
        them = np.maximum.reduceat(self._templates @ embedding, self._first_template)
        scored = zip(self._people, them.tolist(), (not_them + ROUNDING >= them).tolist(), strict=True)
        return {person: score for person, score, out in scored if out}
