"""Who trains and who is held out, and what a data set was: so that a result can be believed and repeated.

A split is between people, never between pictures of one person.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.lfw import Pair, person
from trainer.data.reading import DataError

_OF_ONE = 10  # most genuine pairs made of one person: nobody is to weigh more than many others
_FOLDS = 10
_NOBODY = (
    "nobody of those held out has two photographs, so nothing can be judged; a greater people.held_out helps"
)


@dataclass(frozen=True)
class Split:
    """People on either side, sorted; nobody is on both."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        both = set(self.training) & set(self.held_out)
        if both:
            raise DataError(
                f"{min(both)} would be trained on and tested on, and so would {len(both) - 1} more"
            )


def by_pairs(
    people: Iterable[str], pairs: Sequence[Pair], folds: Collection[int]
) -> tuple[Split, list[Pair]]:
    """Hold out everybody who is on a pair of these folds.

    Returns:
        The split, and the pairs of the folds: only people who are held out are on them.

    Raises:
        DataError: the pairs have no such fold.
    """
    missing = set(folds) - {pair.fold for pair in pairs}
    if missing or not folds:
        raise DataError(
            f"the pairs have no fold {min(missing, default='at all')}; they have 0 to {_last_fold(pairs)}"
        )
    judging = [pair for pair in pairs if pair.fold in folds]
    tested = {person(photo) for pair in judging for photo in (pair.first, pair.second)}
    everybody = set(people)
    return Split(tuple(sorted(everybody - tested)), tuple(sorted(tested))), judging


def by_share(people: Iterable[str], share: float) -> Split:
    """Hold out about this share of the people, each by a digest of the name: the same ones in every data set.

    Args:
        people: their names.
        share: 0 to 1.
    """
    limit = round(share * (1 << 64))
    sides: tuple[list[str], list[str]] = ([], [])
    for name in sorted(set(people)):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        sides[number < limit].append(name)
    return Split(tuple(sides[False]), tuple(sides[True]))


def drawn(labels: NDArray[np.int64], share: float, most: int) -> NDArray[np.bool_]:
    """Hold out this share of the classes, but no more than ``most``, of those with two pictures: bool [classes].

    For sets without names, in which a class is a number. The same labels give the same classes.

    Args:
        labels: int64 [n], the class of each picture.
        share: 0 to 1.
        most: classes.

    Raises:
        DataError: there are not two such classes, or the share is too small for two.
    """
    counts = np.bincount(labels)
    order = np.random.default_rng(0).permutation(len(counts))
    able = order[counts[order] > 1][: min(round(share * len(counts)), most)]
    if len(able) < 2:
        raise DataError(_NOBODY)
    found = np.zeros(len(counts), bool)
    found[able] = True
    return found


def first_of_each(labels: NDArray[np.int64], classes: NDArray[np.bool_], each: int) -> NDArray[np.int64]:
    """The first pictures of some classes, no more than ``each`` of one: their numbers, rising, int64 [k].

    Args:
        labels: int64 [n], the class of each picture.
        classes: bool [classes], which are wanted.
        each: of a class.
    """
    items = np.flatnonzero(classes[labels])
    items = items[np.argsort(labels[items], kind="stable")]
    owners = labels[items]
    place = np.arange(len(items)) - np.searchsorted(owners, owners)  # among those of the class
    return np.sort(items[place < each])


def made_pairs(photos: Sequence[str]) -> list[Pair]:
    """Pairs of photographs for want of a list: of each person's some, and as many of different people.

    Args:
        photos: paths below the root, sorted.

    Raises:
        DataError: nobody has two photographs, or there are not two people.
    """
    by_person: dict[str, list[str]] = {}
    for photo in photos:
        by_person.setdefault(person(photo), []).append(photo)
    draw = np.random.default_rng(0)
    pairs = []
    for number, name in enumerate(sorted(by_person)):
        both = list(combinations(by_person[name], 2))
        chosen = draw.permutation(len(both))[:_OF_ONE]
        for first, second in (both[index] for index in sorted(chosen)):
            pairs.append(Pair(first, second, True, number % _FOLDS))
    if not pairs or len(by_person) < 2:
        raise DataError(_NOBODY)
    people = sorted(by_person)
    for fold in [pair.fold for pair in pairs]:
        two = draw.choice(len(people), 2, replace=False)
        one, other = (str(draw.choice(by_person[people[each]])) for each in two)
        pairs.append(Pair(one, other, False, fold))
    return pairs


def digest_of_files(root: Path, names: Iterable[str]) -> str:
    """What a data set is: SHA-256 over the sorted relative names and sizes of its files, as 64 hex digits.

    A file whose content changes while name and size stay is not noticed; to read everything would take as long as an
    epoch.

    Raises:
        DataError: a file is missing.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        try:
            size = (root / name).stat().st_size
        except OSError as error:
            raise DataError(f"{root / name}: {error.strerror}") from error
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def digest_of_arrays(*arrays: NDArray[np.generic]) -> str:
    """What a data set in memory is: SHA-256 over types, shapes and contents, as 64 hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _last_fold(pairs: Sequence[Pair]) -> int:
    return max((pair.fold for pair in pairs), default=0)
