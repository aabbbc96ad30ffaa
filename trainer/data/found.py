"""Pictures marked by a pack's detector: every face that it finds in a folder, for a detector that is to learn it.

To find the faces takes longer than all the rest, so they can be kept: a line for each picture in a file that is named
after the detector, the picture known by the SHA-256 of its content. Such a file holds places, no pictures; a run that
is killed goes on behind its last line, and a picture that moves is still known.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from calibration.faces import SUFFIXES, Detector, FaceFinder, decode_image
from engines.errors import UserError
from trainer.common.job import Advance
from trainer.data.reading import DataError, TooMuchDamageError
from trainer.data.wider import Marked

DOUBTFUL = 0.3
"""From this score on the detector suspects a face. Below the agent's own threshold it is neither to be found nor to be
missed: it may be one."""
_MOST = 64  # faces of a picture, the largest
_NAMED = 10  # damaged pictures that an error lists

Coordinate = Annotated[float, Meta(ge=-1e6, le=1e6)]
Face = tuple[Coordinate, Coordinate, Coordinate, Coordinate, Annotated[float, Meta(ge=0, le=1)]]


class _Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a picture.

    Attributes:
        sha256: of its file's content.
        faces: x1, y1, x2, y2 in pixels, and the score.
    """

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    faces: tuple[Face, ...]


def pictures_below(root: Path) -> list[str]:
    """Paths of all pictures below ``root``, with slashes, sorted.

    Raises:
        DataError: there is none.
    """
    found = sorted(
        file.relative_to(root).as_posix()
        for file in (root.rglob("*") if root.is_dir() else ())
        if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    if not found:
        raise DataError(f"{root}: no pictures here; name a folder that holds some, at any depth")
    return found


def find_faces(
    root: Path,
    names: Sequence[str],
    pack: Path,
    sure: float,
    *,
    keep: Path | None,
    limit: int,
    advance: Advance,
) -> tuple[list[Marked], str]:
    """Mark pictures by a pack's detector.

    Args:
        root: the folder that the names start from.
        names: of the pictures.
        pack: whose detector finds the faces.
        sure: score from which a face is one; those from ``DOUBTFUL`` on are marked as ignored.
        keep: folder for what was found; None keeps nothing.
        limit: pictures that may be unreadable.
        advance: told of the progress.

    Returns:
        The pictures that can be read, and which cannot; empty when all can.

    Raises:
        TooMuchDamageError: more than ``limit`` pictures cannot be read.
        DataError: what is kept cannot be read or written.
        PackError: the pack is missing or damaged.
    """
    finder = FaceFinder(pack, finding=Detector(threshold=DOUBTFUL, max_faces=_MOST))
    file = keep / f"faces-{finder.digest[:16]}.jsonl" if keep is not None else None
    known = _known(file) if file is not None else {}
    marked, damaged = [], []
    try:
        for name in names:
            advance("faces found", 1, len(names))
            try:
                data = (root / name).read_bytes()
                key = hashlib.sha256(data).hexdigest()
                if key not in known:
                    known[key] = _look(finder, data, root / name)
                    if file is not None:
                        _append(file, _Found(key, known[key]))
            except (OSError, UserError) as error:
                if isinstance(error, DataError):
                    raise
                damaged.append(
                    f"{root / name}: {error.strerror}" if isinstance(error, OSError) else str(error)
                )
                continue
            table = np.array(known[key], np.float32).reshape(-1, 5)
            marked.append(Marked(name, table[:, :4], table[:, 4] < sure))
    finally:
        finder.close()
    told = _told(damaged, len(names), limit)
    if len(damaged) > limit or not marked:
        raise TooMuchDamageError(told)
    return marked, told


def _look(finder: FaceFinder, data: bytes, name: Path) -> tuple[Face, ...]:
    found = finder.find(decode_image(data, name))
    return tuple(
        (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2), round(face.score, 4))
        for face in found
        for x1, y1, x2, y2 in [face.box]
    )


def _known(file: Path) -> dict[str, tuple[Face, ...]]:
    """What the file holds; of its last line, which a killed run may have left unfinished, as far as it is whole."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    whole = text[: text.rfind(b"\n") + 1]
    try:
        if whole != text:
            with file.open("r+b") as stream:
                stream.truncate(len(whole))
        lines = msgspec.json.Decoder(_Found).decode_lines(whole)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be used ({error}); delete it, and the faces are found anew"
        ) from error
    return {line.sha256: line.faces for line in lines}


def _append(file: Path, found: _Found) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(msgspec.json.encode(found) + b"\n")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; name another folder to keep faces in") from error


def _told(damaged: Sequence[str], count: int, limit: int) -> str:
    if not damaged:
        return ""
    lines = [f"{len(damaged)} of {count} pictures cannot be read; at most {limit} are passed over"]
    lines += [f"  {each}" for each in damaged[:_NAMED]]
    if len(damaged) > _NAMED:
        lines.append(f"  and {len(damaged) - _NAMED} more")
    return "\n".join(lines)
