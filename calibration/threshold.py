"""The threshold from data: the cosine from which a look may be given a name, for galleries of every size.

What may happen rarely is that a stranger is named. In a gallery of n people a stranger has n chances to look like
somebody, so one threshold is not right for all galleries: at a false acceptance rate of 0.1 % a comparison, a look at a
stranger is named in about 1 % of the searches among ten people. So the target is a share of *searches*, and the
threshold is chosen for galleries of several sizes, each drawn many times from the people of the data. With one person
enrolled a search is a comparison, and the target is the ordinary false acceptance rate.

It is chosen on templates made as the agent makes them, not on pairs of photographs: the mean of several looks lies
closer to everybody than a single look, to strangers too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from msgspec import Struct

from agent.config import TemplateMethod
from agent.gallery.templates import Aggregate
from agent.gallery.types import Calibration
from agent.words import counted
from calibration.metrics import equal_error_rate
from calibration.openset import Looks, Searches, Split, divide, enrol, interval, joined, redrawn, search
from engines.errors import UserError

SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Galleries of so many people are drawn, as far as the data go."""
_SEARCHED = 1000  # people searched among, over all draws of one size: so small galleries are drawn more often
_FEWEST = 10  # draws of one size
_STRANGERS = 200_000  # searches of strangers, over all draws of one size
_SEED = 2007  # of all draws: any number, but always the same one
_RULE_OF_THREE = 3.0

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


class ThresholdError(UserError):
    """The data cannot say where the threshold should be; the message says what is missing."""


class Step(Struct, frozen=True, kw_only=True):
    """The threshold for galleries of one size. Rates are shares, 0 to 1.

    Attributes:
        people: how many are enrolled.
        threshold: the least at which strangers are named in at most the wanted share of searches.
        far: share of the strangers' searches that name somebody.
        tar: share of the searches of enrolled people that name the right one.
        tar_interval: 95 % bootstrap interval of it, the chance in the threshold included.
        eer: where the shares of strangers named and of enrolled people not named are equal.
        genuine: searches of enrolled people that it was measured on.
        impostor: searches of strangers.
    """

    people: int
    threshold: float
    far: float
    tar: float
    tar_interval: tuple[float, float]
    eer: float
    genuine: int
    impostor: int


class ThresholdReport(Struct, frozen=True, kw_only=True):
    """The report, as JSON shows it.

    Attributes:
        source: of the looks.
        people: how many they are of.
        looks: how many there are.
        undetected: those in which no face was found.
        images: how many looks at a person are enrolled, where there are so many; None: all but one.
        far: share of the strangers' searches that may name somebody.
        template: the method of making templates.
        margin: least lead over the second best that a name needs.
        enrolled: people in the gallery now.
        steps: the thresholds, by size of the gallery.
    """

    source: str
    people: int
    looks: int
    undetected: int
    images: int | None
    far: float
    template: TemplateMethod
    margin: float
    enrolled: int
    steps: list[Step]

    @property
    def step(self) -> Step:
        """The one for as many people as are enrolled; the last where it is for fewer."""
        return next((step for step in self.steps if step.people >= self.enrolled), self.steps[-1])

    def calibration(self, pack: str) -> Calibration:
        """What the gallery keeps of it, for the pack with this digest."""
        step = self.step
        return Calibration(
            pack=pack,
            threshold=step.threshold,
            far_target=self.far,
            far=step.far,
            tar=step.tar,
            tar_interval=step.tar_interval,
            pairs=f"{self.looks} looks at {self.people} people of {self.source}, {step.genuine} searches of enrolled "
            f"people and {step.impostor} of strangers among {step.people}",
            steps=tuple((each.people, each.threshold) for each in self.steps),
        )


def supported(looks: Looks, far: float) -> list[int]:
    """The sizes of galleries that the data can say a threshold for.

    A rate of ``far`` cannot be seen in fewer than 3 / ``far`` trials (with none of so many a false one, the rate is
    still up to ``far`` with 5 % chance: the rule of three, Hanley and Lippman-Hand, JAMA 1983). Trials are pairs of
    different people, as many looks as there may be at each, for the looks at one person are alike. A search among n
    people takes n of them.

    Raises:
        ThresholdError: not even for a gallery of one.
    """
    counts = np.bincount(looks.person[[sample is not None for sample in looks.samples]])
    people, several = int((counts > 0).sum()), int((counts > 1).sum())
    trials = several * (people - 1)
    sizes = [n for n in SIZES if n <= several and 2 * n <= people and trials / n >= _RULE_OF_THREE / far]
    if not sizes:
        needed = int(np.ceil(_RULE_OF_THREE / far))
        raise ThresholdError(
            f"{counted(people, 'person', 'people')}, {several} of them with two looks or more, make {trials} "
            f"pairs of different people; to see a rate of {far:g}, {needed} are needed. Give more people, or ask for a "
            "greater rate with --far"
        )
    return sizes


def draw(
    looks: Looks, people: int, images: int | None, aggregate: Aggregate, margin: float
) -> Iterator[Searches]:
    """The searches of one gallery of so many people after the other, drawn with a fixed seed.

    Args:
        looks: all there are.
        people: how many are enrolled.
        images: how many looks of each; None: all but one.
        aggregate: makes their templates.
        margin: least lead over the second best that a name needs.
    """
    everybody = np.unique(looks.person)
    rounds = max(_FEWEST, _SEARCHED // people)
    for seed in range(rounds):
        rng = np.random.default_rng([_SEED, people, seed])
        split = divide(looks, everybody, people, images, rng)
        split = _thinned(split, max(1, _STRANGERS // rounds), rng)
        yield search(looks, split, enrol(looks, split, aggregate), margin)


def measure(searches: Searches, people: int, far: float, least: float = -1.0) -> Step:
    """Where the threshold should be, but not below ``least``, and what it gives."""
    threshold = max(least, searches.threshold(far))
    return Step(
        people=people,
        threshold=threshold,
        far=searches.fpir(threshold),
        tar=searches.dir(threshold),
        tar_interval=interval(redrawn([searches], far, seed=_SEED)[:, 0]),
        eer=equal_error_rate(searches.curve()),
        genuine=int(searches.mated.sum()),
        impostor=int((~searches.mated).sum()),
    )


def calibrate(
    looks: Looks,
    images: int | None,
    far: float,
    aggregate: Aggregate,
    margin: float,
    progress: Progress,
) -> tuple[list[Step], list[Searches]]:
    """The threshold for galleries of every size that the data can say something about, and the searches behind each.

    Args:
        looks: labelled looks at many people.
        images: how many looks of a person are enrolled; None: all but one.
        far: share of the strangers' searches that may name somebody, above 0.
        aggregate: makes templates as the agent does.
        margin: as the agent's.
        progress: is told how it goes on.

    Raises:
        ThresholdError: there are too few people or looks.
    """
    sizes = supported(looks, far)
    steps: list[Step] = []
    behind = []
    for done, people in enumerate(sizes):
        progress("galleries", done, len(sizes))
        searches = joined(list(draw(looks, people, images, aggregate, margin)))
        # A larger gallery never needs less: where it seems so, that is chance.
        steps.append(measure(searches, people, far, steps[-1].threshold if steps else -1.0))
        behind.append(searches)
    progress("galleries", len(sizes), len(sizes))
    return steps, behind


def _thinned(split: Split, most: int, rng: np.random.Generator) -> Split:
    """The split with at most so many searches of strangers."""
    if len(split.strangers) <= most:
        return split
    return replace(split, strangers=rng.choice(split.strangers, most, replace=False))
