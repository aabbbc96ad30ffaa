"""Faces cut out of photographs: by the detector's box, or aligned by its five landmarks as the agent does it.

To find a face takes longer than all the rest of reading, so the cut faces of a data set can be kept: in a folder that
the user names, for pictures that are the user's own. ``faces.npy`` there holds uint8 RGB [n, side, side, 3];
``cut.json``, written last, says what they were cut from. Other data or another cut make the folder anew.
"""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import cv2
import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from calibration.faces import FaceFinder, Image
from engines.errors import UserError
from trainer.data.alignment import Template
from trainer.data.reading import DataError, Pictures, TooMuchDamageError, fit, load, rgb
from trainer.data.samplers import InOrder

_FORMAT = 1  # part of what the folder is known by: raise it when the meaning of its files changes
_BATCH = 64
_TOLD = "cut.json"

Advance = Callable[[int], None]
"""Told how many more items are done."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How faces are cut out of photographs.

    Attributes:
        way: ``landmarks`` aligns the face as the agent does; ``box`` takes a square about the detector's box.
        margin: of the square about the box, on each side, in parts of the box's longer side.
        pack: folder of the pack whose detector finds the faces, and whose template they are aligned to.
        keep: folder for the cut faces; empty: they are cut anew each time.
    """

    way: Literal["landmarks", "box"] = "landmarks"
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.2
    pack: str = "~/.local/share/cabinsense/packs/default"
    keep: str = ""


class Photographs(Protocol):
    """A source whose whole photographs can be had, as ``identities.IdentityFolders``."""

    labels: NDArray[np.int64]

    def photograph(self, index: int) -> Image:
        """uint8 BGR [height, width, 3]."""
        ...

    def name(self, index: int) -> str:
        """The file."""
        ...

    def digest(self) -> str:
        """What the photographs are."""
        ...


class CutFaces:
    """The face nearest the middle of each photograph, as a source (see ``trainer.data.reading``).

    Attributes:
        left_out: empty: which photographs show no face is seen when they are read.
    """

    left_out = ""

    def __init__(
        self, photographs: Photographs, cut: Cut, side: int, template: Template | None = None
    ) -> None:
        """Cut faces when they are asked for.

        Args:
            photographs: where they are.
            cut: how.
            side: of the pictures to give.
            template: where landmarks are brought; None stands for the pack's.
        """
        self.photographs, self.cut, self.side = photographs, cut, side
        self.labels = photographs.labels
        self._template = template
        self._finder: tuple[int, FaceFinder] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_finder": None}

    @property
    def finder(self) -> FaceFinder:
        """This process's own detector: one that was loaded before a fork is not used after it.

        Raises:
            PackError: the pack is missing or damaged.
            EngineError: a model does not load.
        """
        if self._finder is None or self._finder[0] != os.getpid():
            self._finder = os.getpid(), FaceFinder(Path(self.cut.pack).expanduser())
        return self._finder[1]

    @property
    def template(self) -> Template | None:
        """Where the five points of these faces lie, float32 [5, 2], pixels; None where boxes are cut out."""
        if self.cut.way == "box":
            return None
        return self.finder.template(self.side) if self._template is None else self._template

    def read(self, index: int) -> NDArray[np.uint8]:
        """The face: uint8 RGB [side, side, 3].

        Raises:
            ImageError: the photograph cannot be read.
            DataError: there is no face in it.
        """
        image = self.photographs.photograph(index)
        face = self.finder.subject(image)
        if face is None:
            raise DataError(f"{self.name(index)}: no face is found in it")
        if self.cut.way == "landmarks":
            return rgb(self.finder.aligned(image, face, self.side, self._template))
        return rgb(square_about(image, face.box, self.cut.margin, self.side))

    def name(self, index: int) -> str:
        """The file."""
        return self.photographs.name(index)

    def digest(self) -> str:
        """What these faces are: the photographs, their classes and the way they are cut."""
        decisive = (
            _FORMAT,
            self.photographs.digest(),
            hashlib.sha256(self.labels.tobytes()).hexdigest(),
            self.finder.digest,
            self.cut.way,
            self.cut.margin if self.cut.way == "box" else 0.0,
            self.side,
            *([] if self._template is None else [self._template.tolist()]),
        )
        return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``cut.json`` holds.

    Attributes:
        digest: of the source.
        items: which items of the source were kept, by row.
        left_out: what was wrong with the first items that could not be.
    """

    digest: str
    items: list[int]
    left_out: str


class KeptFaces:
    """Faces that were cut before, as a source (see ``trainer.data.reading``).

    Attributes:
        labels: int64 [n].
        items: int64 [n], the number of each one's photograph.
        left_out: which photographs could not be read or show no face; empty when all could.
    """

    def __init__(self, source: CutFaces, folder: Path, told: _Told) -> None:
        """Use what ``keep`` has written.

        Raises:
            DataError: the file is not what it should be.
        """
        self.left_out = told.left_out
        self._source, self.items = source, np.array(told.items, np.int64)
        self._file = folder / "faces.npy"
        self._shape = (len(source.labels), source.side, source.side, 3)
        if self.items.size and not 0 <= self.items.min() <= self.items.max() < len(source.labels):
            raise DataError(
                f"{folder / _TOLD}: tells of items that the data set does not have; delete the folder"
            )
        self.labels = source.labels[self.items]
        self._opened: NDArray[np.uint8] | None = None
        _ = self._faces  # a file that cannot be used is told now

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # a mapped array would be pickled with all its content

    @property
    def _faces(self) -> NDArray[np.uint8]:
        if self._opened is None:
            try:
                found = np.load(self._file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{self._file} cannot be read ({error}); delete the folder") from error
            if found.dtype != np.uint8 or found.shape != self._shape:
                raise DataError(
                    f"{self._file} is {found.dtype} {list(found.shape)}, not uint8 {list(self._shape)}; "
                    "delete the folder"
                )
            self._opened = found
        return self._opened

    def read(self, index: int) -> NDArray[np.uint8]:
        """The face: uint8 RGB [side, side, 3]."""
        return np.array(self._faces[self.items[index]])

    def name(self, index: int) -> str:
        """The photograph that it was cut from."""
        return self._source.name(int(self.items[index]))

    @property
    def template(self) -> Template | None:
        """See ``CutFaces.template``."""
        return self._source.template

    def digest(self) -> str:
        """What these faces are."""
        return self._source.digest()


def cut_faces(
    photographs: Photographs,
    cut: Cut,
    side: int,
    *,
    workers: int,
    limit: int,
    advance: Advance,
    template: Template | None = None,
) -> CutFaces | KeptFaces:
    """The faces on photographs, kept where the settings name a folder.

    Args:
        photographs: where they are.
        cut: how, and where they are kept.
        side: of the pictures to give.
        workers: processes that cut; 0 cuts in this one.
        limit: photographs that may be damaged or without a face.
        advance: told of the progress.
        template: where landmarks are brought, float32 [5, 2], pixels; None stands for the pack's.

    Raises:
        TooMuchDamageError: of more than ``limit`` photographs no face can be had.
        DataError: the folder holds something else, or cannot be written.
    """
    source = CutFaces(photographs, cut, side, template)
    return keep(source, Path(cut.keep).expanduser(), workers, limit, advance) if cut.keep else source


def keep(source: CutFaces, folder: Path, workers: int, limit: int, advance: Advance) -> KeptFaces:
    """The faces of ``source`` from ``folder``, cut and written there where that has not been done.

    Raises:
        TooMuchDamageError: of more than ``limit`` photographs no face can be had.
        DataError: the folder holds something else, or cannot be written.
    """
    digest = source.digest()
    told = _read_told(folder)
    if told is None or told.digest != digest:
        try:
            told = _write(source, folder, digest, workers, limit, advance)
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}; name another folder to keep faces in") from error
    else:
        advance(len(source.labels))
    return KeptFaces(source, folder, told)


def _write(source: CutFaces, folder: Path, digest: str, workers: int, limit: int, advance: Advance) -> _Told:
    _clear(folder)
    count = len(source.labels)
    pictures = Pictures(source, limit)
    # The row of a photograph without a face gets its neighbour's, and is never read.
    faces = np.lib.format.open_memmap(
        folder / "faces.npy", mode="w+", dtype=np.uint8, shape=(count, source.side, source.side, 3)
    )
    start = 0
    for images, _ in load(pictures, InOrder(count, _BATCH), workers):
        faces[start : start + len(images)] = images.numpy().transpose(0, 2, 3, 1)
        start += len(images)
        advance(len(images))
    faces.flush()
    bad = set(pictures.damage.items)
    if len(bad) == count:
        raise TooMuchDamageError(pictures.report())
    told = _Told(digest, [item for item in range(count) if item not in bad], pictures.report())
    partial = folder / f"{_TOLD}.partial"
    partial.write_bytes(msgspec.json.encode(told))
    partial.replace(folder / _TOLD)
    return told


def _read_told(folder: Path) -> _Told | None:
    """What the folder says of itself; None where it says nothing, or nothing that is understood."""
    try:
        return msgspec.json.decode((folder / _TOLD).read_bytes(), type=_Told)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _clear(folder: Path) -> None:
    """Make the folder, or remove from it what ``_write`` has written before."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = {"faces.npy", _TOLD, f"{_TOLD}.partial"}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in ours)
    if others:
        raise DataError(f"{folder}: holds {others[0]}, which is no kept face; name a folder of its own")
    for name in sorted(ours):  # what says that the faces are whole goes first
        (folder / name).unlink(missing_ok=True)


def usual_points(photographs: Photographs, pack: Path, most: int, side: int) -> Template | None:
    """Where the five points lie in the middle squares of photographs, float32 [5, 2]: medians over some of them.

    Args:
        photographs: some, spread over all, are looked at; those that cannot be read are passed over.
        pack: whose detector looks.
        most: photographs that are looked at.
        side: of the squares, pixels.

    Returns:
        Pixels; None where there is no face in any.

    Raises:
        PackError: the pack is missing or damaged.
        EngineError: a model does not load.
    """
    finder = FaceFinder(pack)
    count = len(photographs.labels)
    found = []
    for item in np.linspace(0, count - 1, min(most, count)).astype(int).tolist():
        try:
            face = finder.subject(fit(photographs.photograph(item), side))
        except UserError:
            continue
        if face is not None:
            found.append(face.landmarks)
    finder.close()
    return np.median(found, axis=0).astype(np.float32) if found else None


def square_about(
    image: Image, box: tuple[float, float, float, float], margin: float, side: int
) -> NDArray[np.uint8]:
    """The square about a box in another size: uint8 [side, side, 3]; what lies outside the image is black.

    Args:
        image: uint8 [height, width, 3].
        box: x1, y1, x2, y2 in pixels; finite, of some width or height.
        margin: added on each side, in parts of the box's longer side.
        side: of the result.

    Raises:
        ValueError: the box has no size.
    """
    x1, y1, x2, y2 = box
    longer = max(x2 - x1, y2 - y1)
    if not all(map(math.isfinite, box)) or longer <= 0:
        raise ValueError(f"a box of no size: {box}")
    width = longer * (1 + 2 * margin)
    left, top = (x1 + x2 - width) / 2, (y1 + y2 - width) / 2
    # What is far larger than the result is averaged down first, as in ``agent.perception.align``.
    shrink = max(1, int(width / side))
    if shrink > 1:
        size = (max(1, image.shape[1] // shrink), max(1, image.shape[0] // shrink))
        ratio = (size[0] / image.shape[1], size[1] / image.shape[0])
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    else:
        ratio = (1.0, 1.0)
    # From the middle of a pixel of the square to that of one of the image.
    steps = (width * ratio[0] / side, width * ratio[1] / side)
    inverse = np.array(
        [
            [steps[0], 0, left * ratio[0] + (steps[0] - 1) / 2],
            [0, steps[1], top * ratio[1] + (steps[1] - 1) / 2],
        ]
    )
    found = cv2.warpAffine(image, inverse, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(found, np.uint8)
