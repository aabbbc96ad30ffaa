"""What a teacher makes of faces and of their mirror images, computed once and kept on disk.

Each data set and teacher has a folder, named by a digest of the faces, the teacher and what it was asked: other faces
or another teacher never find it. Features are not pictures, but an embedding tells who somebody is: folder and files
are the user's alone (0700, 0600), and theirs to delete. A folder appears whole or not at all.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.common.job import Advance
from trainer.data.reading import Pictures, Source, load
from trainer.data.samplers import InOrder
from trainer.teachers.interface import LAYER, MAP, Teacher, TeacherError

_FORMAT = 1  # part of what a folder is known by: raise it when the meaning of its files changes
_BATCH = 32


def at_side(pictures: Tensor, side: int) -> Tensor:
    """Pictures uint8 [n, 3, s, s] in another size: what is made smaller is averaged over areas."""
    if pictures.shape[-1] == side:
        return pictures
    found = functional.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)
    return found.round().clamp(0, 255).to(torch.uint8)


def ask(teacher: Teacher, pictures: Tensor, grid: int) -> dict[str, Tensor]:
    """A teacher's answers for pictures uint8 RGB [n, 3, s, s] of any side, maps at most ``grid`` cells a side."""
    found = teacher(at_side(pictures, teacher.side))
    return {name: _coarse(answer, grid) if answer.ndim == 4 else answer for name, answer in found.items()}


def _coarse(maps: Tensor, grid: int) -> Tensor:
    height, width = (min(grid, size) for size in maps.shape[2:])
    return (
        maps if (height, width) == maps.shape[2:] else functional.adaptive_avg_pool2d(maps, (height, width))
    )


class Kept:
    """The answers for a data set.

    Attributes:
        folder: where they are.
    """

    def __init__(self, folder: Path, names: Sequence[str], count: int) -> None:
        """Open what ``keep`` has written.

        Raises:
            TeacherError: a file is not what it should be.
        """
        self.folder = folder
        self._arrays: dict[str, NDArray[Any]] = {}
        for name in names:
            path = folder / _file(name)
            try:
                found = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise TeacherError(f"{path} cannot be read ({error}); delete its folder") from error
            if found.shape[:2] != (2, count) or found.dtype != _type(name):
                raise TeacherError(f"{path} is {found.dtype} {list(found.shape)}; delete its folder")
            self._arrays[name] = found

    def __call__(self, items: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """Answers float32 for items int64 [n], of the mirror images where ``mirrored`` bool [n]."""
        side, rows = mirrored.long().numpy(), items.numpy()
        return {
            name: torch.from_numpy(np.asarray(array[side, rows], np.float32))
            for name, array in self._arrays.items()
        }


def keep(
    teacher: Teacher,
    names: Sequence[str],
    faces: Source,
    digest: str,
    grid: int,
    settings: Mapping[str, object],
    root: Path,
    what: str,
    limit: int,
    workers: int,
    advance: Advance,
) -> Kept:
    """The teacher's answers for all faces and their mirror images, from ``root`` or computed and written there.

    Args:
        teacher: who is asked.
        names: what is asked.
        faces: pictures.
        digest: of them.
        grid: most cells on a side of maps.
        settings: whatever else the answers depend on.
        root: folder for the folders of answers.
        what: this teacher and these faces are called.
        limit: faces that may be damaged; the row of a damaged one holds its neighbour's answers and is never read.
        workers: processes that read.
        advance: told of the progress.

    Raises:
        TeacherError: the folder cannot be written, or what is there is not whole.
    """
    count = len(faces.labels)
    decisive = (_FORMAT, digest, count, teacher.sha256, teacher.side, sorted(names), grid, dict(settings))
    key = hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()[:24]
    folder = root / f"{what}-{key}"
    if folder.is_dir():
        advance(f"teacher {what}", count, count)
        return Kept(folder, names, count)
    partial = root / f".{folder.name}.{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        _write(teacher, faces, grid, partial, what, limit, workers, advance)
        partial.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process may have been quicker: then its answers are as good
            raise TeacherError(f"{root}: {error.strerror}; name another folder for the features") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Kept(folder, names, count)


def _write(
    teacher: Teacher,
    faces: Source,
    grid: int,
    folder: Path,
    what: str,
    limit: int,
    workers: int,
    advance: Advance,
) -> None:
    count = len(faces.labels)
    arrays: dict[str, NDArray[Any]] = {}
    start = 0
    for images, _ in load(Pictures(faces, limit), InOrder(count, _BATCH), workers):
        for mirrored, shown in enumerate((images, images.flip(-1))):
            for name, answer in ask(teacher, shown, grid).items():
                if name not in arrays:
                    arrays[name] = _new(folder / _file(name), _type(name), (2, count, *answer.shape[1:]))
                arrays[name][mirrored, start : start + len(images)] = answer.numpy()
        start += len(images)
        advance(f"teacher {what}", len(images), count)
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined] # mapped ones are flushed


def _new(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A new array in a file that only the user can read."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _type(name: str) -> np.dtype[Any]:
    """Maps are many: half precision is enough for what a student is to come near to."""
    return np.dtype(np.float16 if name == MAP or name.startswith(LAYER) else np.float32)


def _file(name: str) -> str:
    """A layer's name may hold anything: its digest is the file's name."""
    plain = name if name.isidentifier() else "layer-" + hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{plain}.npy"
