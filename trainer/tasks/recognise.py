"""The task ``recognise``: a backbone that tells people apart, by a softmax over identities with or without a margin."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from trainer.backbones import Backbone
from trainer.common.distributed import World
from trainer.common.feed import share_of
from trainer.common.job import Advance, Batch, Task
from trainer.common.precision import Precision
from trainer.common.stepped import pixels
from trainer.data.augment import augment
from trainer.tasks import face_job, people
from trainer.tasks.face_job import FaceJob, FaceModule, FaceSettings
from trainer.tasks.identity_head import HeadSettings, IdentityHead
from trainer.tasks.people import People


class RecogniseSettings(FaceSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer recognise`` makes.

    Attributes:
        head: how identities are told apart.
    """

    head: HeadSettings = HeadSettings()


class Recognition(FaceModule):
    """Backbone and head."""

    def __init__(self, backbone: Backbone, head: IdentityHead, precision: Precision) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._precision = precision

    def forward(self, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """``Identified``, by name, of pictures uint8 [n, 3, side, side], classes int64 [n], at a place in the run."""
        with self._precision.autocast():
            summary = self.backbone(pixels(images)).summary
        return self.head.identify(summary, labels, progress)._asdict()


class RecogniseJob(FaceJob):
    """Recognition of people."""

    def __init__(self, settings: RecogniseSettings, world: World, faces: People) -> None:
        super().__init__(settings, world, faces)
        head = IdentityHead(settings.head, faces.classes, settings.dim, settings.seed, world)
        self.sharded = head.sharded
        self.train_module(Recognition(self.backbone, head, self.precision))

    def batches(self, interval: int) -> Iterator[Batch]:
        """Variants of faces, and whose they are."""
        for images, labels, draw in self.faces(interval):
            variants = augment(images, self.settings.augment, draw, share_of(self.world))
            yield {"images": variants, "labels": labels}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of the head."""
        losses: dict[str, Tensor] = module(batch["images"], batch["labels"], self.progress(step))
        return losses


def build(settings: RecogniseSettings, world: World, advance: Advance) -> RecogniseJob:
    """The job, its faces found and cut."""
    found = people.find(settings.people, settings.side, settings.workers, world, advance)
    return RecogniseJob(settings, world, found)


TASK = Task(RecogniseSettings, build, partial(face_job.finish, "recognise"))
