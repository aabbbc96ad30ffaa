"""Faces with a box and five landmarks: those that a pack's detector finds, or a list says.

To find them takes longer than all the rest of reading, so they are kept, as numbers and not as pictures: a file named
by the digest of what it was found in.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.faces import Detection, FaceFinder, Image, read_image
from calibration.lfw import all_photographs, central
from engines.sources.storage import write_file
from trainer.data.point_list import read_points
from trainer.data.reading import DataError, Tolerant, TooMuchDamageError, load
from trainer.data.samplers import InOrder
from trainer.data.split import digest_of_arrays, digest_of_files

_FORMAT = 1  # part of what a file is named by: raise it when the meaning of its content changes
_BATCH = 64

Advance = Callable[[int, int], None]
"""Told how many more photographs are done, and how many there are."""


@dataclass(frozen=True)
class Marked:
    """Faces, one on each photograph.

    Attributes:
        root: folder of the photographs.
        photos: their paths below it.
        boxes: float32 [n, 4], x1, y1, x2, y2 as the pack's detector has them, pixels.
        points: float32 [n, 5, 2], left eye, right eye, nose tip and corners of the mouth, as seen, pixels.
        left_out: which photographs could not be used; empty when all could.
    """

    root: Path
    photos: tuple[str, ...]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    left_out: str = ""

    def part(self, chosen: NDArray[np.bool_]) -> "Marked":
        """Some of the faces: those where ``chosen``, bool [n], is true."""
        photos = tuple(photo for photo, wanted in zip(self.photos, chosen, strict=True) if wanted)
        return Marked(self.root, photos, self.boxes[chosen], self.points[chosen])

    def digest(self) -> str:
        """What these faces are, as 64 hex digits."""
        decisive = digest_of_files(self.root, self.photos), digest_of_arrays(self.boxes, self.points)
        return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file of found faces holds: for each face the number of its photograph, 4 and 10 coordinates."""

    items: list[int]
    boxes: list[tuple[float, float, float, float]]
    points: list[tuple[float, float, float, float, float, float, float, float, float, float]]
    left_out: str


def find_faces(
    root: Path,
    points: Path | None,
    pack: Path,
    keep: Path | None,
    *,
    workers: int,
    limit: int,
    advance: Advance,
) -> Marked:
    """The faces on the photographs of a folder.

    Args:
        root: folder of the photographs: ``ROOT/NAME/FILE``, or as the list says.
        points: list of points, see ``trainer.data.point_list``; None takes those that the pack's detector finds on the
            face nearest the middle.
        pack: whose detector finds the boxes, and without a list the points.
        keep: folder for what was found; None finds anew each time.
        workers: processes that find; 0 finds in this one.
        limit: photographs that may be unreadable or without a face.
        advance: told of the progress.

    Raises:
        TooMuchDamageError: more photographs than that.
        DataError: a list or a file cannot be used.
        LfwError: there are no photographs.
        PackError: the pack is missing or damaged.
    """
    listed = read_points(points) if points else None
    photos = tuple(sorted(listed)) if listed is not None else tuple(all_photographs(root))
    known = np.stack([listed[photo] for photo in photos]) if listed is not None else None
    finder = FaceFinder(pack)
    finder.close()
    decisive = (
        _FORMAT,
        digest_of_files(root, photos),
        finder.digest,
        "" if known is None else digest_of_arrays(known),
    )
    file = keep / f"{hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()}.json" if keep else None
    kept = _read(file, len(photos)) if file else None
    if kept is None:
        kept = _find(_Search(root, photos, known, pack, limit), workers, advance)
        if file:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_file(file, msgspec.json.encode(kept))
            except OSError as error:
                raise DataError(f"{file.parent}: {error.strerror}; name another folder to keep in") from error
    else:
        advance(len(photos), len(photos))
    return Marked(
        root,
        tuple(photos[item] for item in kept.items),
        np.array(kept.boxes, np.float32).reshape(-1, 4),
        np.array(kept.points, np.float32).reshape(-1, 5, 2),
        kept.left_out,
    )


class _Search(Tolerant[Tensor]):
    """What the detector finds on photographs: an item is float32 [14], box and points."""

    def __init__(
        self, root: Path, photos: tuple[str, ...], known: NDArray[np.float32] | None, pack: Path, limit: int
    ) -> None:
        super().__init__(len(photos), limit)
        self._root, self._photos, self._known, self._pack = root, photos, known, pack
        self._finder: FaceFinder | None = None  # each process loads its own: this is pickled or forked before

    def make(self, index: int) -> Tensor:
        """Box and points of the face that is meant."""
        if self._finder is None:
            self._finder = FaceFinder(self._pack)
        file = self._root / self._photos[index]
        image = read_image(file)
        faces = self._finder.find(image)
        known = None if self._known is None else self._known[index]
        face = _meant(image, faces, known)
        if face is None:
            raise DataError(
                f"{file}: no face is found in it" + ("" if known is None else " about these points")
            )
        points = face.landmarks if known is None else known
        return torch.from_numpy(np.concatenate([np.array(face.box, np.float32), points.ravel()]))


def _meant(image: Image, faces: list[Detection], known: NDArray[np.float32] | None) -> Detection | None:
    """The face nearest the middle, or, where the points are known, the smallest whose box holds their mean."""
    if known is None:
        return central(image, faces) if faces else None
    x, y = known.mean(axis=0)
    about = [face for face in faces if face.box[0] <= x <= face.box[2] and face.box[1] <= y <= face.box[3]]
    return min(about, key=lambda face: face.area, default=None)


def _find(search: _Search, workers: int, advance: Advance) -> _Kept:
    """Ask the detector about every photograph."""
    parts = []
    for found in load(search, InOrder(len(search), _BATCH), workers):
        parts.append(found.numpy().copy())
        advance(len(found), len(search))
    bad = set(search.damage.items)
    if len(bad) == len(search):
        raise TooMuchDamageError(search.report())
    items = [item for item in range(len(search)) if item not in bad]
    rows = np.concatenate(parts)[items].tolist()
    return _Kept(items, [tuple(row[:4]) for row in rows], [tuple(row[4:]) for row in rows], search.report())


def _read(file: Path, photos: int) -> _Kept | None:
    """What was found before; None where nothing was, or nothing that is understood."""
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    whole = len(kept.items) == len(kept.boxes) == len(kept.points) > 0
    return kept if whole and all(0 <= item < photos for item in kept.items) else None
