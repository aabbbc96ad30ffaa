"""The task ``relate``: a small network learns a finished one's embedding, by its values or by its relations.

The recipe of the MAX7800x microcontrollers takes the mean squared error between normalised embeddings and nothing else;
relational distillation (distances and angles) stands beside it. The teacher is any pack.
"""

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from trainer.backbones import Backbone
from trainer.common.distributed import World
from trainer.common.feed import share_of
from trainer.common.job import Advance, Batch, Task
from trainer.common.precision import Precision
from trainer.common.settings import ConfigError, NotNegative
from trainer.common.stepped import pixels
from trainer.data.augment import Augmentation, augment
from trainer.losses.distil import normalised_mse
from trainer.losses.processes import gather
from trainer.losses.relational import rkd_angle, rkd_distance
from trainer.tasks import face_job, people
from trainer.tasks.face_job import FaceJob, FaceModule, FaceSettings
from trainer.tasks.people import People, PeopleSettings
from trainer.tasks.teacher import Teacher, open_teacher


class RelateSettings(FaceSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer relate`` makes.

    Attributes:
        teacher: a pack, whose face network is learnt from.
        values: weight of the squared error between embeddings of length 1, times their length; ``dim`` must then be
            the teacher's.
        distances: weight of the relations of two, between the faces of a batch.
        angles: weight of the relations of three; memory grows with the third power of the batch.
    """

    teacher: str = "~/.local/share/cabinsense/packs/default"
    values: NotNegative = 1.0
    distances: NotNegative = 0.0
    angles: NotNegative = 0.0
    people: PeopleSettings = PeopleSettings(least=1)
    augment: Augmentation = Augmentation(yaw=10.0, pitch=5.0)


class Relation(FaceModule):
    """A student."""

    def __init__(self, settings: RelateSettings, backbone: Backbone, precision: Precision) -> None:
        super().__init__()
        self.backbone = backbone
        self._weights = {
            name: weight
            for name in ("values", "distances", "angles")
            if (weight := getattr(settings, name)) > 0
        }
        self._precision = precision

    def forward(self, images: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """The losses of pictures uint8 [n, 3, side, side] whose embeddings the teacher has as float32 [n, d]."""
        with self._precision.autocast():
            summary = self.backbone(pixels(images)).summary.float()
        found: dict[str, Tensor] = {}
        if "values" in self._weights:
            found["values"] = normalised_mse(summary, wanted) * wanted.shape[1]
        everybody, theirs = gather(summary), gather(wanted)
        directions = nn.functional.normalize(everybody, dim=1)
        if "distances" in self._weights:
            found["distances"] = rkd_distance(directions, theirs)
        if "angles" in self._weights:
            found["angles"] = rkd_angle(directions, theirs)
        total = torch.stack([self._weights[name] * value for name, value in found.items()]).sum()
        return {"loss": total, **found}


class RelateJob(FaceJob):
    """A student and its teacher's embeddings."""

    settings: RelateSettings

    def __init__(
        self,
        settings: RelateSettings,
        world: World,
        faces: People,
        teacher: Teacher,
        shown: People,
        advance: Advance,
    ) -> None:
        """Build the student.

        Args:
            settings: of the run.
            world: this process.
            faces: of the student's side.
            teacher: answers when it is first needed.
            shown: the same faces, of the teacher's side.
            advance: told of the teacher's progress.

        Raises:
            ConfigError: there is nothing to learn, or the lengths do not fit.
        """
        super().__init__(settings, world, faces, {"teacher_sha256": teacher.sha256})
        self.elsewhere |= {"teacher"}
        if not settings.values + settings.distances + settings.angles:
            raise ConfigError("values, distances and angles are all 0: there is nothing to learn")
        if settings.values and settings.dim != teacher.dim:
            raise ConfigError(
                f"dim = {settings.dim}, but the teacher's embedding has {teacher.dim} numbers; set dim to that, or "
                "values = 0"
            )
        self.teacher, self._shown, self._advance = teacher, shown, advance
        self.train_module(Relation(settings, self.backbone, self.precision))

    @cached_property
    def wanted(self) -> Tensor:
        """The teacher's embeddings of the faces to train on."""
        found = self.teacher.embeddings(self._shown.training, "faces", self._advance)
        return torch.from_numpy(found).to(self.world.device)

    def facts(self) -> list[tuple[str, str]]:
        """The faces, the backbone and the teacher."""
        return [*super().facts(), ("teacher", f"{self.settings.teacher}, {self.teacher.dim} numbers a face")]

    def example(self) -> Batch:
        """The first pictures, with noise for the teacher's answers."""
        images, _, _ = next(self.faces(0))
        wanted = torch.randn(len(images), self.teacher.dim, device=self.world.device)
        return {"images": images, "wanted": wanted}

    def batches(self, interval: int) -> Iterator[Batch]:
        """Variants of faces, and what the teacher makes of the faces themselves."""
        for images, items, draw in self.faces(interval):
            variants = augment(images, self.settings.augment, draw, share_of(self.world))
            yield {"images": variants, "wanted": self.wanted[items]}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Whatever has a weight."""
        losses: dict[str, Tensor] = module(batch["images"], batch["wanted"])
        return losses


def build(settings: RelateSettings, world: World, advance: Advance) -> RelateJob:
    """The job; the faces are cut twice, as the student and as the teacher wants them."""
    teacher = open_teacher(settings.teacher, settings.threads)
    shown = people.find(settings.people, teacher.side, settings.workers, world, advance)
    faces = people.find(settings.people, settings.side, settings.workers, world, advance)
    people.check_alignment(f"the teacher {settings.teacher}", teacher.pack.manifest.face, shown)
    if not np.array_equal(shown.training.numbers, faces.training.numbers):
        raise ConfigError(
            "teacher and student would not see the same faces; delete the folder people.cut.keep"
        )
    numbered = people.numbered(faces)
    return RelateJob(settings, world, numbered, teacher, shown, advance)


TASK = Task(RelateSettings, build, partial(face_job.finish, "relate"))
