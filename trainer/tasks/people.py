"""Faces of people for the tasks that learn from them: who trains, who is held out, and which pairs judge."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from calibration.lfw import Pair, all_photographs, check_photographs, person, read_pairs
from trainer.common.distributed import World, wait
from trainer.common.job import Advance
from trainer.common.settings import ConfigError, Count, Share, Whole
from trainer.data.faces import Cut, cut_faces
from trainer.data.identities import IdentityFolders
from trainer.data.reading import Source
from trainer.data.split import Split, by_pairs, by_share

_OF_ONE = 10  # most genuine pairs made of one person: nobody is to weigh more than many others
_FOLDS = 10


class PeopleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which faces.

    Attributes:
        root: folder with a folder of photographs for each person.
        pairs: list of pairs as LFW writes it, to judge by; empty: pairs are made of the people held out.
        folds: of that list, which judge; whoever is on one of their pairs is held out from the training.
        held_out: share of the people held out where there is no list.
        least: people with fewer photographs are not trained on.
        damaged: photographs that may be unreadable or without a face.
        cut: how faces are cut out of the photographs.
    """

    root: str = "../shared/data/lfw"
    pairs: str = "../shared/data/lfw/pairs.txt"
    folds: Annotated[tuple[Whole, ...], Meta(min_length=2)] = (8, 9)
    held_out: Share = 0.1
    least: Count = 2
    damaged: Whole = 100
    cut: Cut = Cut(keep="runs/faces")


class Part:
    """Some items of a source, with classes of their own, as a source (see ``trainer.data.reading``).

    Attributes:
        labels: int64 [n].
    """

    def __init__(self, source: Source, items: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self._source, self._items = source, items
        self.labels = labels

    def relabelled(self, labels: NDArray[np.int64]) -> "Part":
        """The same items with other classes."""
        return Part(self._source, self._items, labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The picture: uint8 RGB [side, side, 3]."""
        return self._source.read(int(self._items[index]))

    def name(self, index: int) -> str:
        """Its file."""
        return self._source.name(int(self._items[index]))


@dataclass(frozen=True)
class People:
    """The faces of a run.

    Attributes:
        training: faces of those who are trained on, classes from 0 without gaps.
        classes: how many they are.
        judged: faces of those who are held out.
        places: of each judged photograph, its item there.
        pairs: of judged photographs.
        digest: of all these faces, and of who trains and who judges.
        left_out: which photographs could not be used; empty when all could.
    """

    training: Part
    classes: int
    judged: Part
    places: dict[str, int]
    pairs: list[Pair]
    digest: str
    left_out: str

    def facts(self) -> list[tuple[str, str]]:
        """What the plan says of them."""
        return [
            ("data", f"SHA-256 {self.digest[:16]}…"),
            ("faces to train on", f"{len(self.training.labels):,} of {self.classes:,} people"),
            (
                "faces to judge by",
                f"{len(self.judged.labels):,}, {len(self.pairs):,} pairs of people held out",
            ),
            *([("left out", self.left_out)] if self.left_out else []),
        ]


def find(settings: PeopleSettings, side: int, workers: int, world: World, advance: Advance) -> People:
    """Find, cut and split the faces.

    Args:
        settings: which, and how.
        side: of the pictures.
        workers: processes that cut.
        world: the first process cuts, the others wait for it, where faces are kept.
        advance: told of the progress.

    Raises:
        DataError: there are too few people or photographs, or too many that cannot be used.
        LfwError: the photographs or the pairs cannot be read.
        PackError: the pack whose detector finds the faces is missing.
    """
    root = Path(settings.root).expanduser()
    everybody = Counter(map(person, all_photographs(root)))
    split, pairs = _split(settings, everybody)
    photographs = IdentityFolders(root, side)
    cut = settings.cut
    if cut.keep:
        cut = msgspec.structs.replace(
            cut, keep=str(Path(cut.keep) / str(side))
        )  # teacher and student may differ
    if not world.first:
        wait(world)  # until the first has written the faces that are kept
    faces = cut_faces(
        photographs,
        cut,
        side,
        workers=workers,
        limit=settings.damaged,
        advance=lambda count: advance("faces cut out", count, len(photographs.photos)),
    )
    if world.first:
        wait(world)
    names = [Path(faces.name(item)).relative_to(root).as_posix() for item in range(len(faces.labels))]
    enough = {name for name in split.training if everybody[name] >= settings.least}
    training, classes = _part(faces, names, enough)
    judged, _ = _part(faces, names, set(split.held_out))
    places = {
        name: place
        for place, name in enumerate(name for name in names if person(name) in set(split.held_out))
    }
    if not pairs:
        pairs = made_pairs(sorted(places))
    else:
        check_photographs(root, [photo for pair in pairs for photo in (pair.first, pair.second)])
    return People(
        training,
        classes,
        judged,
        places,
        pairs,
        _digest(faces.digest(), sorted(enough), sorted(places)),
        getattr(faces, "left_out", ""),
    )


def _digest(faces: str, training: Sequence[str], judged: Sequence[str]) -> str:
    """What the faces of a run are: which pictures, who trains, and which photographs judge."""
    return hashlib.sha256(msgspec.json.encode((faces, training, judged))).hexdigest()


def numbered(people: People) -> People:
    """The same faces, each one to train on a class of its own: its number."""
    training = people.training
    return replace(people, training=training.relabelled(np.arange(len(training.labels), dtype=np.int64)))


def made_pairs(photos: Sequence[str]) -> list[Pair]:
    """Pairs of photographs for want of a list: of each person's some, and as many of different people.

    Args:
        photos: paths below the root, sorted.

    Raises:
        ConfigError: nobody has two photographs, or there are not two people.
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
        raise ConfigError(
            "nobody of those held out has two photographs, so nothing can be judged; a greater people.held_out helps"
        )
    people = sorted(by_person)
    for fold in [pair.fold for pair in pairs]:
        two = draw.choice(len(people), 2, replace=False)
        one, other = (str(draw.choice(by_person[people[each]])) for each in two)
        pairs.append(Pair(one, other, False, fold))
    return pairs


def _split(settings: PeopleSettings, everybody: Counter[str]) -> tuple[Split, list[Pair]]:
    """Who trains and who is held out, and the pairs of a list."""
    if not settings.pairs:
        return by_share(everybody, settings.held_out), []
    return by_pairs(everybody, read_pairs(Path(settings.pairs).expanduser()), settings.folds)


def _part(faces: Source, names: Sequence[str], people: set[str]) -> tuple[Part, int]:
    """The faces of some people, and how many people they are."""
    items = np.array([item for item, name in enumerate(names) if person(name) in people], np.int64)
    if not len(items):
        raise ConfigError(
            "nobody is left to train on or to judge by; a smaller people.least or other folds help"
        )
    labels = np.unique(faces.labels[items], return_inverse=True)[1].astype(np.int64)
    return Part(faces, items, labels), int(labels.max()) + 1
