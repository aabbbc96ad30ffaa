"""Samples from photographs: one good face a picture, and all of them of one person."""

import os
from collections.abc import Sequence
from pathlib import Path

from agent.enrolment import has_rival, strangers
from agent.gallery.types import Sample
from agent.guidance import ADVICE
from agent.images import read_image
from agent.perception.chain import FaceReader
from engines.errors import UserError


class PhotographError(UserError):
    """Photographs cannot be used; the message says which and why."""


def sample_of(reader: FaceReader, file: Path) -> Sample:
    """The sample that a photograph gives; it remembers where that is.

    Raises:
        ImageError: the file cannot be read.
        PhotographError: it does not show one good face.
    """
    image = read_image(file)
    faces = reader.find(image)
    if not faces:
        raise PhotographError(f"{file}: no face was found")
    if has_rival([face.area for face in faces]):
        raise PhotographError(
            f"{file}: {len(faces)} faces, and the largest is not by far the largest; cut out the one that is meant"
        )
    look = reader.look(image, faces[0])
    if not look.quality.good:
        raise PhotographError(f"{file}: {'; '.join(ADVICE[reason] for reason in look.quality.reasons)}")
    return Sample(look.embedding, look.quality, _place(file))


def others(name: str, taken: Sequence[tuple[Path, Sample]], floor: float) -> list[int]:
    """Which of the samples are not of the person whom the others show, as indices; less than half.

    Args:
        name: of the person, for the message.
        taken: each photograph with its sample.
        floor: see ``agent.enrolment.agreement_floor``.

    Raises:
        PhotographError: they are half or more, so that nobody can say who is meant.
    """
    odd = strangers([sample.embedding for _, sample in taken], floor)
    if 2 * len(odd) >= len(taken):
        raise PhotographError(
            f"{listed(taken, odd)}: not the same person as on the other images, and it cannot be told who is {name}, "
            "so nobody was enrolled; name images of one person"
        )
    return odd


def listed(taken: Sequence[tuple[Path, Sample]], which: Sequence[int]) -> str:
    """The names of some of the photographs."""
    return ", ".join(str(taken[index][0]) for index in which)


def _place(file: Path) -> str | None:
    """The absolute path; None where it is no text, for a file's name may be any bytes."""
    path = os.fsencode(file.resolve())
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return None
