"""The task ``simclr``: a backbone that learns from faces without names, by telling two views of one from all others."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from trainer.backbones import Backbone
from trainer.backbones.heads import ProjectionHead
from trainer.common.distributed import World
from trainer.common.feed import share_of
from trainer.common.job import Advance, Batch, Task
from trainer.common.precision import Precision
from trainer.common.settings import Count
from trainer.common.stepped import pixels
from trainer.data.augment import two_views
from trainer.losses.contrastive import nt_xent
from trainer.losses.processes import gather
from trainer.tasks import face_job, people
from trainer.tasks.face_job import FaceJob, FaceModule, FaceSettings
from trainer.tasks.people import People, PeopleSettings

Temperature = Annotated[float, Meta(gt=0, le=10)]


class SimclrSettings(FaceSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer simclr`` makes.

    Attributes:
        temperature: of the cosines.
        projection: length of the vectors on which the loss is computed.
    """

    temperature: Temperature = 0.1
    projection: Count = 128
    people: PeopleSettings = PeopleSettings(least=1)


class Contrast(FaceModule):
    """Backbone and projection."""

    def __init__(self, backbone: Backbone, projection: int, temperature: float, precision: Precision) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = ProjectionHead(backbone.width, projection)
        self._temperature = temperature
        self._precision = precision

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """The loss of two views, uint8 [n, 3, side, side] each; the other processes' faces are negatives, too."""
        with self._precision.autocast():
            vectors = self.projection(self.backbone(pixels(torch.cat([first, second]))).summary)
        one, other = (gather(view.float()) for view in vectors.chunk(2))
        return {"loss": nt_xent(one, other, self._temperature)}


class SimclrJob(FaceJob):
    """Faces without names."""

    def __init__(self, settings: SimclrSettings, world: World, faces: People) -> None:
        super().__init__(settings, world, faces)
        self.train_module(Contrast(self.backbone, settings.projection, settings.temperature, self.precision))

    def batches(self, interval: int) -> Iterator[Batch]:
        """Two variants of each face."""
        for images, _, draw in self.faces(interval):
            first, second = two_views(images, self.settings.augment, draw, share_of(self.world))
            yield {"first": first, "second": second}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """NT-Xent."""
        losses: dict[str, Tensor] = module(batch["first"], batch["second"])
        return losses


def build(settings: SimclrSettings, world: World, advance: Advance) -> SimclrJob:
    """The job, its faces found and cut."""
    found = people.find(settings.people, settings.side, settings.workers, world, advance)
    return SimclrJob(settings, world, found)


TASK = Task(SimclrSettings, build, partial(face_job.finish, "simclr"))
