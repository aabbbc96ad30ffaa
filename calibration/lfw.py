"""Labeled Faces in the Wild: its list of pairs, and its photographs as embeddings.

The set and its protocol: Huang et al., "Labeled Faces in the Wild" (2007). Any set of photographs laid out alike will
do: ``ROOT/NAME/NAME_0001.jpg``, and a file of pairs as ``read_pairs`` describes it.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.gallery.types import Sample
from agent.images import SUFFIXES, read_image
from agent.perception.chain import FaceReader, Look
from agent.perception.types import Detection, Image
from calibration.openset import Looks, labelled
from engines.errors import UserError

_MIN_FOLDS = 2  # a threshold chosen on some folds is tested on others


class LfwError(UserError):
    """The pairs or the photographs cannot be used; the message names the file, the line and the remedy."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs, as paths below the root, and whether they show one person."""

    first: str
    second: str
    genuine: bool
    fold: int


def read_pairs(file: Path) -> list[Pair]:
    """The pairs of a file as LFW writes it, all fields separated by tabs.

    The first line holds the number of folds and of pairs of each kind in a fold. Each fold is then so many genuine
    pairs ``NAME i j`` and as many impostor pairs ``NAME i OTHER j``; blank lines at the end do not matter.

    Raises:
        LfwError: the file cannot be read, or a line is not what it should be.
    """
    try:
        lines = file.read_text("utf-8").rstrip().split("\n")
    except OSError as error:
        raise LfwError(f"{file}: {error.strerror}; LFW's list of pairs, pairs.txt, is needed") from error
    except UnicodeDecodeError as error:
        raise LfwError(
            f"{file}: not a text file ({error}); LFW's list of pairs, pairs.txt, is needed"
        ) from error
    folds, count = _header(file, lines[0])
    expected = 1 + folds * 2 * count
    if len(lines) != expected:
        raise LfwError(
            f"{file}: {len(lines)} lines; {folds} folds of {count} + {count} pairs and the first line make {expected}"
        )
    return [
        _pair(
            f"{file}, line {index + 2}", line, fold=index // (2 * count), genuine=index % (2 * count) < count
        )
        for index, line in enumerate(lines[1:])
    ]


def _header(file: Path, line: str) -> tuple[int, int]:
    fields = line.split()
    if len(fields) != 2 or not all(field.isascii() and field.isdigit() for field in fields):
        raise LfwError(
            f"{file}, line 1: {line[:60]!r}; expected the number of folds and of pairs, as in `10 300`"
        )
    folds, count = int(fields[0]), int(fields[1])
    if folds < _MIN_FOLDS or count < 1:
        raise LfwError(
            f"{file}, line 1: {line!r}; expected at least {_MIN_FOLDS} folds and 1 pair of each kind"
        )
    return folds, count


def _pair(where: str, line: str, *, fold: int, genuine: bool) -> Pair:
    fields = line.rstrip().split("\t")
    form = "`NAME i j` for one person" if genuine else "`NAME i OTHER j` for two people"
    if len(fields) != (3 if genuine else 4):
        raise LfwError(f"{where}: {line[:60]!r}; expected {form}, separated by tabs")
    if genuine:
        fields.insert(2, fields[0])
    first, second = _photo(where, *fields[:2]), _photo(where, *fields[2:])
    if first == second or (fields[0] == fields[2]) != genuine:
        raise LfwError(f"{where}: {line[:60]!r}; expected two different photographs, {form}")
    return Pair(first, second, genuine, fold)


def _photo(where: str, name: str, number: str) -> str:
    if not name or not (number.isascii() and number.isdigit()):
        raise LfwError(f"{where}: {name!r} {number!r} names no photograph; expected a name and a number")
    return f"{name}/{name}_{int(number):04d}.jpg"


def photographs(pairs: Iterable[Pair]) -> list[str]:
    """Every photograph that occurs, once, sorted."""
    return sorted({photo for pair in pairs for photo in (pair.first, pair.second)})


def person(photo: str) -> str:
    """Who is on a photograph: the name of its folder."""
    return photo.partition("/")[0]


def calibrates(name: str) -> bool:
    """On which side of the line a person stands: those who are chosen by, or those who are reported on (False).

    About half of all people are on either side, each on the same one in every data set.
    """
    return bool(hashlib.sha256(name.encode()).digest()[0] & 1)


def all_photographs(root: Path) -> list[str]:
    """Every photograph in the folders below ``root``, sorted.

    Raises:
        LfwError: there is none.
    """
    photos = sorted(
        f"{folder.name}/{file.name}"
        for folder in (root.iterdir() if root.is_dir() else ())
        if folder.is_dir()
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES
    )
    if not photos:
        raise LfwError(
            f"{root}: no photographs here; name a folder that holds a folder of photographs for each person"
        )
    return photos


def check_photographs(root: Path, photos: Iterable[str]) -> None:
    """See that all photographs are there, before the long work starts.

    Raises:
        LfwError: one is missing.
    """
    missing = [photo for photo in photos if not (root / photo).is_file()]
    if missing:
        raise LfwError(
            f"{root / missing[0]} does not exist, nor do {len(missing) - 1} more that the pairs name; "
            "name the folder of the people's folders with --root"
        )


def looks(
    reader: FaceReader, root: Path, photos: Iterable[str], alter: Callable[[Image, str], Image] | None = None
) -> Iterator[tuple[str, Look | None]]:
    """Each photograph with the look at its subject; None where no face is found.

    LFW's photographs are centred on the person whose name they carry; others may stand beside. So of several faces the
    one whose box is nearest the centre is taken, whatever its size.

    Args:
        reader: finds and looks at faces.
        root: folder of the people's folders.
        photos: paths below it.
        alter: makes another image of a photograph before it is looked at.

    Raises:
        ImageError: a photograph cannot be read.
    """
    for photo in photos:
        image = read_image(root / photo)
        if alter is not None:
            image = alter(image, photo)
        faces = reader.find(image)
        yield photo, reader.look(image, central(image, faces)) if faces else None


def labelled_looks(found: Iterable[tuple[str, Look | None]]) -> Looks:
    """What ``looks`` gives, with the people."""
    return labelled(
        [
            (person(photo), None if look is None else Sample(look.embedding, look.quality))
            for photo, look in found
        ]
    )


def central(image: Image, faces: Iterable[Detection]) -> Detection:
    """The face whose box is nearest the centre of the image."""
    height, width = image.shape[:2]

    def distance(face: Detection) -> float:
        x1, y1, x2, y2 = face.box
        return math.hypot(x1 + x2 - width, y1 + y2 - height)

    return min(faces, key=distance)
