"""The people of a data set in two halves: one to choose by, one to report on.

Who stands where is decided by a digest of the name, so that it is the same in every data set and every command.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from agent.config import TemplateMethod
from agent.gallery.templates import templates
from agent.words import counted
from calibration.lfw import calibrates
from calibration.openset import Ints, Looks, Searches, Split, divide, enrol, joined, search
from engines.errors import UserError

ENROLLED_IMAGES = 3
"""So many photographs of a person are enrolled in a large gallery, where there are so many."""
SPLITS = 10
"""Large galleries that are drawn of each half."""
_FEWEST = 10  # people of a half; fewer are no gallery with strangers


class TooFewError(UserError):
    """There are not enough people to divide; the message says how many there are."""


@dataclass(frozen=True)
class Half:
    """One half of the people.

    Attributes:
        looks: all looks, of both halves.
        people: who belongs to this half.
        splits: of them into a large gallery and strangers, the same for all methods.
        margin: least lead over the second best that a name needs.
    """

    looks: Looks
    people: Ints
    splits: list[Split]
    margin: float

    def searches(self, method: TemplateMethod) -> Searches:
        """The searches of all splits together."""
        return joined([self._search(split, method) for split in self.splits])

    def _search(self, split: Split, method: TemplateMethod) -> Searches:
        return search(
            self.looks, split, enrol(self.looks, split, partial(templates, method=method)), self.margin
        )


def halves(looks: Looks, enrolled: int, margin: float, splits: int = SPLITS) -> tuple[Half, Half]:
    """The half in which is chosen, and the half that is reported.

    Args:
        looks: all there are.
        enrolled: size of the large gallery; at most half of the people of a half are enrolled.
        margin: least lead over the second best that a name needs.
        splits: galleries that are drawn of each half.

    Raises:
        TooFewError: there are too few people.
    """
    chooses = np.array([calibrates(name) for name in looks.names], np.bool_)

    def half(people: Ints) -> Half:
        several = sum(len(looks.of_person[who]) > 1 for who in people)
        if len(people) < _FEWEST or not several:
            raise TooFewError(
                f"{counted(len(looks.names), 'person', 'people')}, {len(people)} of them in one half, "
                f"{several} of these with two photographs or more, are too few; at least {_FEWEST} are needed "
                "in each half"
            )
        count = min(enrolled, len(people) // 2)
        rngs = [np.random.default_rng(seed) for seed in range(splits)]
        return Half(
            looks, people, [divide(looks, people, count, ENROLLED_IMAGES, rng) for rng in rngs], margin
        )

    return half(np.flatnonzero(chooses)), half(np.flatnonzero(~chooses))
