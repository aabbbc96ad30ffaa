"""All teachers of a run: what they answer, kept or anew, and how it is standardised."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from trainer.common.job import Advance
from trainer.common.settings import ConfigError
from trainer.data.augment import generator
from trainer.data.reading import Source
from trainer.losses.standardise import Moments, Standardiser, fit, merged, moments
from trainer.teachers.interface import LOGITS, SUMMARY, LayerPair, Teacher, TeacherSettings
from trainer.teachers.kept import Kept, ask, keep

_PROBED = 2  # pictures on which a teacher shows the shapes of its answers


def key(teacher: str, answer: str) -> str:
    """Under which a teacher's answer is in a batch."""
    return f"{teacher}/{answer}"


def answers_of(teacher: TeacherSettings, layers: Iterable[LayerPair]) -> tuple[str, ...]:
    """All that is wanted of a teacher."""
    inner = (pair.answer for pair in layers if pair.teacher == teacher.name)
    return (*teacher.answers, *dict.fromkeys(inner))


class Panel:
    """The teachers.

    Attributes:
        settings: of each.
        layers: that are to be reconstructed.
        teachers: by name.
        side: of the pictures that they are shown.
        shapes: of each answer for one face, [d] or [c, h, w], by its ``key``.
    """

    def __init__(
        self,
        settings: Sequence[TeacherSettings],
        layers: Sequence[LayerPair],
        teachers: Mapping[str, Teacher],
        side: int,
    ) -> None:
        """Ask each about some noise, to know the shapes of the answers.

        Raises:
            ConfigError: names do not fit together.
            TeacherError: a teacher does not say what is wanted.
        """
        self.settings, self.layers, self.teachers, self.side = settings, layers, teachers, side
        if len(teachers) < len(settings):
            raise ConfigError("two teachers have one name; give each its own")
        for pair in layers:
            if pair.teacher not in teachers:
                raise ConfigError(
                    f"layers: there is no teacher {pair.teacher!r}; there are {', '.join(sorted(teachers))}"
                )
        noise = torch.randint(0, 256, (_PROBED, 3, side, side), generator=generator(0), dtype=torch.uint8)
        self.shapes = {name: tuple(value.shape[1:]) for name, value in self.ask(noise).items()}

    def ask(self, pictures: Tensor) -> dict[str, Tensor]:
        """All answers for pictures uint8 RGB [n, 3, side, side], by ``key``, float32 on the pictures' device."""
        return {
            key(each.name, answer): value
            for each in self.settings
            for answer, value in ask(self.teachers[each.name], pictures, each.grid).items()
        }

    def keep(
        self, faces: Source, what: str, digest: str, root: Path, limit: int, workers: int, advance: Advance
    ) -> "KeptPanel":
        """All answers for a data set and its mirror images, from ``root`` or computed and written there.

        Args:
            faces: pictures of ``side``.
            what: they are called.
            digest: of them.
            root: folder.
            limit: faces that may be damaged.
            workers: processes that read.
            advance: told of the progress.

        Raises:
            TeacherError: the folder cannot be written, or what is there is not whole.
        """
        return KeptPanel(
            {
                each.name: keep(
                    self.teachers[each.name],
                    answers_of(each, self.layers),
                    faces,
                    digest,
                    each.grid,
                    {
                        "side": self.side,
                        "mean": each.mean,
                        "deviation": each.deviation,
                        "tensors": msgspec.to_builtins(each.tensors),
                    },
                    root,
                    f"{each.name}-{what}",
                    limit,
                    workers,
                    advance,
                )
                for each in self.settings
            }
        )

    def digests(self) -> dict[str, str]:
        """Of each teacher, as a checkpoint holds them."""
        return {f"teacher_{name}_sha256": teacher.sha256 for name, teacher in self.teachers.items()}

    def what_counts(self) -> list[dict[str, object]]:
        """The settings without the places of files: what is in those is in the digests."""
        places = {"source", "weights", "arguments"}
        return [
            {name: value for name, value in msgspec.to_builtins(each).items() if name not in places}
            for each in self.settings
        ]

    def facts(self) -> list[tuple[str, str]]:
        """What the plan says of them."""
        return [
            (
                f"teacher {each.name}",
                f"{each.source}: "
                + ", ".join(
                    f"{answer} {list(self.shapes[key(each.name, answer)])}"
                    for answer in answers_of(each, self.layers)
                ),
            )
            for each in self.settings
        ]


class KeptPanel:
    """All teachers' answers for a data set, on disk."""

    def __init__(self, kept: Mapping[str, Kept]) -> None:
        self._kept = kept

    def __call__(self, items: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """As ``Panel.ask``, for items int64 [n], of the mirror images where ``mirrored`` bool [n]."""
        return {
            key(name, answer): value
            for name, kept in self._kept.items()
            for answer, value in kept(items, mirrored).items()
        }


def taken_in(known: Mapping[str, Moments], answers: Mapping[str, Tensor]) -> dict[str, Moments]:
    """The moments of all answers but logits, which are never standardised, with a batch more."""
    found = dict(known)
    for name, value in answers.items():
        if not name.endswith(f"/{LOGITS}"):
            new = moments(value.cpu())
            found[name] = merged(found[name], new) if name in found else new
    return found


def fitted(teacher: TeacherSettings, answer: str, known: Moments, kept: int) -> Standardiser:
    """How an answer is standardised.

    Args:
        teacher: whose it is.
        answer: which.
        known: its moments.
        kept: principal axes that are kept; all of its length keeps all.

    Raises:
        ConfigError: it cannot be.
    """
    centred = teacher.centred or answer != SUMMARY
    try:
        return fit(known, kept if kept < len(known.mean) else 0, centred=centred)
    except ValueError as error:
        raise ConfigError(
            f"teacher {teacher.name}, {answer}: {error}; or set its standardise to false"
        ) from error
