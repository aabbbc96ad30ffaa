"""Who trains and who is held out, and what a data set was: so that a result can be believed and repeated.

A split is between people, never between pictures of one person.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.lfw import Pair, person
from trainer.data.reading import DataError


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
