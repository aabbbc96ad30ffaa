"""Faces of people for the tasks that learn from them: who trains, who is held out, and which pairs judge."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from calibration.faces import scaled
from calibration.lfw import Pair, check_photographs, read_pairs
from engines.pack import FaceModel
from trainer.common.distributed import World, wait
from trainer.common.job import Advance
from trainer.common.settings import ConfigError, Count, Share, Whole
from trainer.data.alignment import Template, alike, insightface
from trainer.data.faces import Cut, CutFaces, KeptFaces, Photographs, cut_faces, usual_points
from trainer.data.identities import IdentityFolders
from trainer.data.reading import Pictures, Source, load
from trainer.data.recordio import RecordPictures
from trainer.data.samplers import InOrder
from trainer.data.split import by_pairs, by_share, digest_of_arrays, drawn, first_of_each, made_pairs

_JUDGES = 1000  # people of a .rec file who are held out at most: 10 % of 360,000 would take hours to judge by
_OF_A_JUDGE = 4  # pictures of each of them
_BATCH = 64
_SEEN = 16  # pictures of a .rec file in which the detector looks whether they are aligned
_SEEN_SIDE = 112
_ASTRAY = 0.08  # of the side; CenterFace's points lie 0.03 from those of faces that were aligned, another template 0.16


class PeopleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which faces.

    Attributes:
        root: folder with a folder of photographs for each person, or a RecordIO file ``.rec`` with its ``.idx`` beside
            it.
        listed: of a ``.rec`` file, a ``.lst`` file that says which records are used and whose they are; empty: the
            ``.rec`` file itself does.
        records: what a ``.rec`` file holds. ``aligned``: faces that were brought to InsightFace's five points, as
            those of WebFace, MS-Celeb-1M and Glint360K. They are taken as they are, no more than brought to another
            size; whatever else is read is aligned so, too, and an exported pack tells the agent to. ``photographs``:
            faces are found and cut as in those of folders.
        judges: folder of other people, who judge while everybody of ``root`` trains, but for those of the same name;
            empty: some of ``root`` judge.
        pairs: list of pairs as LFW writes it, of the folder that judges, to judge by; empty: pairs are made of the
            people held out, or of all who judge.
        folds: of that list, which judge; whoever is on one of their pairs is held out from the training.
        held_out: share of the people held out where there is neither list nor folder of judges; of a ``.rec`` file no
            more than 1,000 people are, and four pictures of each judge.
        least: people with fewer photographs are not trained on.
        damaged: photographs that may be unreadable or without a face; as many records may have no class.
        cut: how faces are cut out of photographs.
    """

    root: str = "../shared/data/lfw"
    listed: str = ""
    records: Literal["aligned", "photographs"] = "aligned"
    judges: str = ""
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

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Which photograph of the whole data set each one shows, int64 [n]: the same for faces of another side."""
        return self._source.items[self._items] if isinstance(self._source, KeptFaces) else self._items

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
        side: of the pictures.
        template: where the five points of a face lie in them, float32 [5, 2]; None where boxes were cut out.
    """

    training: Part
    classes: int
    judged: Part
    places: dict[str, int]
    pairs: list[Pair]
    digest: str
    left_out: str
    side: int
    template: Template | None

    def facts(self) -> list[tuple[str, str]]:
        """What the plan says of them."""
        return [
            ("data", f"SHA-256 {self.digest[:16]}…"),
            ("faces to train on", f"{len(self.training.labels):,} of {self.classes:,} people"),
            (
                "faces to judge by",
                f"{len(self.judged.labels):,}, {len(self.pairs):,} pairs of people held out",
            ),
            ("aligned", self._alignment),
            *([("left out", self.left_out)] if self.left_out else []),
        ]

    @property
    def _alignment(self) -> str:
        if self.template is None:
            return "no: squares about boxes"
        if alike(self.template, insightface(self.side), self.side):
            return "to InsightFace's five points"
        return "to the five points of the pack"


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
        ConfigError: the settings contradict each other.
        LfwError: the photographs or the pairs cannot be read.
        PackError: the pack whose detector finds the faces is missing.
    """
    root = Path(settings.root).expanduser()
    cut = partial(_cut, settings, side, workers, world, advance)
    if root.suffix == ".rec":
        return _of_records(settings, root, side, cut, partial(_look_at, settings, workers, advance))
    if settings.listed:
        raise ConfigError(f"people.listed goes with a .rec file, and people.root is {root}")
    return _of_folders(settings, root, side, cut)


def check_alignment(who: str, face: FaceModel, shown: People) -> None:
    """See that a finished network is shown faces as its pack has them aligned.

    Args:
        who: it is.
        face: what its pack says of it.
        shown: the faces.

    Raises:
        ConfigError: they are aligned otherwise.
    """
    theirs = scaled(face.template, face.side, shown.side)
    if shown.template is not None and not alike(theirs, shown.template, shown.side):
        raise ConfigError(
            f"{who} knows faces with eyes, nose and mouth in other places than they have in these; set people.cut.pack "
            'to its pack and, where the faces come from a .rec file, people.records to "photographs"'
        )


def numbered(people: People) -> People:
    """The same faces, each one to train on a class of its own: its number."""
    training = people.training
    return replace(people, training=training.relabelled(np.arange(len(training.labels), dtype=np.int64)))


_Cutter = Callable[..., CutFaces | KeptFaces]


@dataclass(frozen=True)
class _Judges:
    """Who judges: see ``People``."""

    judged: Part
    places: dict[str, int]
    pairs: list[Pair]


def _of_folders(settings: PeopleSettings, root: Path, side: int, cut: _Cutter) -> People:
    """People with names."""
    photographs = IdentityFolders(root, side)
    others = _others(settings, side) or photographs
    held_out, pairs = _held_out(settings, others.people)
    numbers = zip(photographs.people, np.bincount(photographs.labels).tolist(), strict=True)
    enough = {name for name, count in numbers if count >= settings.least} - held_out
    faces = cut(photographs)
    training, classes = _part(faces, _among(photographs, enough))
    judging = faces if others is photographs else cut(others, "judges")
    judges = _judges(judging, others, held_out, pairs)
    sources = [faces] if judging is faces else [faces, judging]
    return People(
        training,
        classes,
        judges.judged,
        judges.places,
        judges.pairs,
        _digest(" ".join(source.digest() for source in sources), sorted(enough), sorted(judges.places)),
        "\n".join(source.left_out for source in sources if source.left_out),
        side,
        faces.template,
    )


def _of_records(
    settings: PeopleSettings,
    path: Path,
    side: int,
    cut: _Cutter,
    look_at: Callable[[Part], tuple[NDArray[np.int64], str]],
) -> People:
    """People with numbers. There may be many millions of pictures: nothing is made of each but numbers in arrays."""
    aligned = settings.records == "aligned"
    others = _others(settings, side)
    if settings.pairs and others is None:
        raise ConfigError(
            f"people.pairs names photographs in folders, and people.root is {path}: name their folder in "
            'people.judges, or set people.pairs to ""'
        )
    if aligned and others is not None and settings.cut.way == "box":
        raise ConfigError(
            'people.cut.way = "box" would show the judges otherwise than the aligned faces of a .rec file; leave it out'
        )
    listed = Path(settings.listed).expanduser() if settings.listed else None
    records = RecordPictures(path, side, listed=listed, limit=settings.damaged)
    faces: RecordPictures | CutFaces | KeptFaces
    template: Template | None
    if aligned:
        _see_alignment(records, path, Path(settings.cut.pack).expanduser())
        faces, template, left_out = records, insightface(side), [records.report()]
        digests = ["aligned", str(side), records.digest()]
    else:
        faces = cut(records)
        template, left_out = faces.template, [records.report(), faces.left_out]
        digests = [faces.digest()]
    if others is None:
        out = drawn(faces.labels, settings.held_out, _JUDGES)
        items = first_of_each(faces.labels, out, _OF_A_JUDGE)
        whole, damage = look_at(Part(faces, items, faces.labels[items]))
        judges = _numbered_judges(faces, items[whole])
        left_out.append(damage)
    else:
        judging = cut(others, "judges", template if aligned else None)
        judges = _judges(judging, others, *_held_out(settings, others.people))
        out = np.zeros(int(faces.labels.max(initial=-1)) + 1, bool)
        left_out.append(judging.left_out)
        digests.append(judging.digest())
    enough = np.bincount(faces.labels, minlength=len(out)) >= settings.least
    training, classes = _part(faces, enough & ~out)
    who = digest_of_arrays(training.numbers, training.labels)
    return People(
        training,
        classes,
        judges.judged,
        judges.places,
        judges.pairs,
        _digest(" ".join(digests), [who], sorted(judges.places)),
        "\n".join(filter(None, left_out)),
        side,
        template,
    )


def _see_alignment(records: RecordPictures, path: Path, pack: Path) -> None:
    """See that faces lie where InsightFace puts them: a pack that was told so of others would recognise nobody."""
    found = usual_points(records, pack, _SEEN, _SEEN_SIDE)
    if found is None:
        return
    astray = np.linalg.norm(found - insightface(_SEEN_SIDE), axis=1).max()
    if astray > _ASTRAY * _SEEN_SIDE:
        raise ConfigError(
            f"{path}: eyes, nose and mouth lie up to {astray:.0f} of {_SEEN_SIDE} pixels from where InsightFace puts "
            'them; set people.records to "photographs", so that faces are found and cut'
        )


def _cut(
    settings: PeopleSettings,
    side: int,
    workers: int,
    world: World,
    advance: Advance,
    photographs: Photographs,
    below: str = "",
    template: Template | None = None,
) -> CutFaces | KeptFaces:
    """The faces on photographs, kept in a folder ``below`` the one for all."""
    cut = settings.cut
    if cut.keep:
        # Teacher and student may differ in the side.
        cut = msgspec.structs.replace(cut, keep=str(Path(cut.keep) / below / str(side)))
    if not world.first:
        wait(world)  # until the first has written the faces that are kept
    faces = cut_faces(
        photographs,
        cut,
        side,
        workers=workers,
        limit=settings.damaged,
        advance=lambda count: advance(f"faces cut out {below}".strip(), count, len(photographs.labels)),
        template=template,
    )
    if world.first:
        wait(world)
    return faces


def _others(settings: PeopleSettings, side: int) -> IdentityFolders | None:
    """The folder of people who only judge, if there is one."""
    return IdentityFolders(Path(settings.judges).expanduser(), side) if settings.judges else None


def _held_out(settings: PeopleSettings, people: Iterable[str]) -> tuple[set[str], list[Pair]]:
    """Who of these people judges, and the pairs of a list."""
    if settings.pairs:
        split, pairs = by_pairs(people, read_pairs(Path(settings.pairs).expanduser()), settings.folds)
        return set(split.held_out), pairs
    if settings.judges:
        return set(people), []
    return set(by_share(people, settings.held_out).held_out), []


def _judges(
    faces: CutFaces | KeptFaces, photographs: IdentityFolders, people: Collection[str], pairs: list[Pair]
) -> _Judges:
    """These people's faces, and pairs of them where there is no list."""
    judged, _ = _part(faces, _among(photographs, people))
    names = (Path(judged.name(item)).relative_to(photographs.root) for item in range(len(judged.labels)))
    places = {name.as_posix(): place for place, name in enumerate(names)}
    if pairs:
        check_photographs(photographs.root, [photo for pair in pairs for photo in (pair.first, pair.second)])
    return _Judges(judged, places, pairs or made_pairs(sorted(places)))


def _numbered_judges(faces: Source, items: NDArray[np.int64]) -> _Judges:
    """Those of a .rec file: named by their number, as a folder would be, and their pictures by theirs."""
    owners = faces.labels[items]
    names = zip(owners.tolist(), items.tolist(), strict=True)
    places = {f"{owner}/{item}": place for place, (owner, item) in enumerate(names)}
    return _Judges(Part(faces, items, owners), places, made_pairs(sorted(places)))


def _look_at(
    settings: PeopleSettings, workers: int, advance: Advance, faces: Part
) -> tuple[NDArray[np.int64], str]:
    """Which pictures can be read, and what is wrong with others; in place of one stands its neighbour otherwise."""
    pictures = Pictures(faces, settings.damaged)
    for images, _ in load(pictures, InOrder(len(pictures), _BATCH), workers):
        advance("pictures that judge", len(images), len(pictures))
    whole = np.ones(len(pictures), bool)
    whole[pictures.damage.items] = False
    return np.flatnonzero(whole), pictures.report()


def _among(photographs: IdentityFolders, people: Collection[str]) -> NDArray[np.bool_]:
    """Which classes of the photographs are these people: bool [classes]."""
    return np.array([name in people for name in photographs.people], bool)


def _part(faces: Source, wanted: NDArray[np.bool_]) -> tuple[Part, int]:
    """The faces of some classes, bool [classes], and how many of these there are."""
    present = wanted & (np.bincount(faces.labels, minlength=len(wanted)) > 0)
    items = np.flatnonzero(present[faces.labels])
    if not len(items):
        raise ConfigError(
            "nobody is left to train on or to judge by; a smaller people.least or other folds help"
        )
    numbers = np.cumsum(present) - 1
    return Part(faces, items, numbers[faces.labels[items]]), int(present.sum())


def _digest(faces: str, training: Sequence[str], judged: Sequence[str]) -> str:
    """What the faces of a run are: which pictures, who trains, and which photographs judge."""
    return hashlib.sha256(msgspec.json.encode((faces, training, judged))).hexdigest()
