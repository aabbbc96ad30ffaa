"""How strictly people are judged while an adapted network runs. Pure.

Norms that bring a spoiled face closer to clean ones bring strangers closer to everybody, too: what a network cannot
read off a face it makes up for by what is common to all. So a norm bank says for each condition by how much the
identity threshold has to rise for strangers to be let in no more often than in good light; ``calibration.rises``
measures it.
"""

HIGHEST = 0.999
"""Greatest rise. With more, nobody would ever be recognised."""


def raised(threshold: float, rise: float) -> float:
    """The identity threshold for looks of an adapted network.

    A rise is a share of the way from the threshold to 1: cosines shrink towards 1 all alike. What lets as many
    strangers in at a FAR of 1 % does nearly so at 0.01 %, where an addend would be too much (``docs/adaptation.md``).

    Args:
        threshold: least cosine of a known person, for looks of the source.
        rise: 0 to ``HIGHEST``; 0 leaves the threshold as it is, to the last bit.
    """
    return threshold + rise * (1 - threshold)
