"""Who is it? One matrix product of an embedding with everybody's template."""

import numpy as np

from agent.gallery.types import Snapshot
from agent.perception.types import Float32, Match


def match(embedding: Float32, snapshot: Snapshot, threshold: float, margin: float) -> Match:
    """The person in ``snapshot`` whom ``embedding`` shows, or why nobody is recognised.

    Args:
        embedding: float32 [dim] of length 1.
        snapshot: made for the pack that computed the embedding.
        threshold: least cosine of a known person.
        margin: least lead over the second best person, as a cosine.
    """
    if not snapshot.names:
        return Match(None, -1.0, threshold, reason="empty_gallery")
    scores = snapshot.templates @ embedding
    best = int(scores.argmax())
    score, person = float(scores[best]), int(snapshot.owners[best])
    # The rows of a person are neighbours; those of all others lie before and after them.
    first, last = np.searchsorted(snapshot.owners, (person, person + 1))
    second = float(max(scores[:first].max(initial=-1.0), scores[last:].max(initial=-1.0)))
    # Asked this way round, a score that is not a number recognises nobody.
    if not score >= threshold:
        return Match(None, score, threshold, second, "below_threshold")
    if len(snapshot.names) > 1 and not score - second >= margin:
        return Match(None, score, threshold, second, "ambiguous")
    return Match(snapshot.names[person], score, threshold, second)
