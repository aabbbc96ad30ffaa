"""The task ``recognise``: a backbone that tells people apart, by a softmax over identities with or without a margin."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from trainer.backbones import Backbone, make
from trainer.common.distributed import World
from trainer.common.feed import Feed, share_of
from trainer.common.job import Advance, Batch, Say, Task
from trainer.common.precision import Precision
from trainer.common.settings import Count, NotNegative, Positive, RunSettings, Share
from trainer.common.stepped import Stepped, pixels, start_from
from trainer.common.synced_norm import synced
from trainer.data.augment import Augmentation, augment, generator
from trainer.data.samplers import Shuffled
from trainer.losses.margin import CENTRE_DEVIATION, ArcFace, Margin, Softmax
from trainer.losses.partial_fc import PartialFC, shard
from trainer.losses.schedules import ramp
from trainer.tasks import people, shipping
from trainer.tasks.people import People, PeopleSettings
from trainer.tasks.verification import Judgement, judge_backbone

_BLOCK = 4096  # classes whose first centres are drawn at once


class BackboneSettings(RunSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network that is trained, and where it starts.

    Attributes:
        backbone: a name in ``trainer.backbones.NAMES``.
        side: of its pictures, pixels.
        dim: length of the embedding.
        width: factor of all channels.
        start: a run, or its checkpoint, whose backbone is the start; empty: random weights.
    """

    backbone: str = "mobilefacenet"
    side: Annotated[int, Meta(ge=32, le=512)] = 112
    dim: Count = 128
    width: Positive = 1.0
    start: str = ""


class MarginSettings(BackboneSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The head over identities.

    Attributes:
        head: ``arcface`` on cosines with a margin, or the plain linear ``softmax`` that it is measured against.
        subcentres: of a class; above 1 it is sub-centre ArcFace.
        margin: radians, from ``margin_from`` on; before, it grows from 0.
        margin_from: share of the run.
        scale: of the cosines; with few identities less than the 64 of the paper (``trainer.losses.schedules``).
        doubt: cosine to the own class below which a label is doubted in the last part of the run; -1 doubts none.
        doubt_from: share of the run from which labels are doubted.
        softness: width in cosine over which doubt sets in; 0 drops doubted samples.
        class_share: of the classes that take part in a step, those of the batch always.
    """

    head: Literal["arcface", "softmax"] = "arcface"
    subcentres: Count = 1
    margin: Annotated[float, Meta(ge=0, le=1.5)] = 0.5
    margin_from: Share = 0.3
    scale: Positive = 32.0
    doubt: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    doubt_from: Share = 0.7
    softness: NotNegative = 0.0
    class_share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class RecogniseSettings(MarginSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer recognise`` makes.

    Attributes:
        people: the faces.
        augment: how far variants of them stray.
        ship: what an export is made with.
    """

    people: PeopleSettings = PeopleSettings()
    augment: Augmentation = Augmentation()
    ship: shipping.ShipSettings = shipping.ShipSettings()


class IdentityHead(nn.Module):
    """The head over identities, plain, with a margin, or with its classes spread over processes."""

    def __init__(self, settings: MarginSettings, classes: int, world: World) -> None:
        super().__init__()
        self.settings = settings
        self.layer: Softmax | ArcFace | PartialFC
        if settings.head == "softmax":
            self.layer = Softmax(classes, settings.dim)
            return
        if world.size > 1 or settings.class_share < 1:
            self.layer = PartialFC(classes, settings.dim, settings.subcentres, settings.class_share)
        else:
            self.layer = ArcFace(classes, settings.dim, settings.subcentres)
        own = shard(classes, world.rank, world.size)
        same_centres(self.layer.centres, own, classes, settings.seed)

    @property
    def sharded(self) -> list[nn.Parameter]:
        """Parameters of which every process has rows of its own."""
        return [self.layer.centres] if isinstance(self.layer, PartialFC) else []

    def forward(self, summary: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Mean loss float [] of summaries float [n, dim] and labels int64 [n], when so much of the run is done."""
        if isinstance(self.layer, Softmax):
            plain: Tensor = self.layer(summary.float(), labels)
            return plain
        loss: Tensor = self.layer(summary.float(), labels, self.margin(progress))
        return loss

    def margin(self, progress: float) -> Margin:
        """The margin softmax's settings at a place in the run."""
        settings = self.settings
        doubted = settings.doubt > -1 and progress >= settings.doubt_from
        return Margin(
            margin=ramp(progress, 0.0, settings.margin, 0.0, settings.margin_from),
            scale=settings.scale,
            doubt=settings.doubt if doubted else None,
            softness=settings.softness,
        )


def same_centres(centres: nn.Parameter, own: range, classes: int, seed: int) -> None:
    """Draw the first centres so that a class has the same ones however many processes share the classes.

    Args:
        centres: of the classes ``own``, filled here.
        own: this process's classes.
        classes: of all processes.
        seed: of the draws.
    """
    for start in range(0, classes, _BLOCK):
        block = range(max(start, own.start), min(start + _BLOCK, own.stop))
        if block:
            count = min(_BLOCK, classes - start)
            drawn = torch.randn(count, *centres.shape[1:], generator=generator(seed, start))
            rows = drawn[block.start - start : block.stop - start]
            centres.data[block.start - own.start : block.stop - own.start] = rows * CENTRE_DEVIATION


class Recognition(nn.Module):
    """Backbone and head."""

    def __init__(self, backbone: Backbone, head: IdentityHead, precision: Precision) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._precision = precision

    def forward(self, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """The losses of pictures uint8 [n, 3, side, side]."""
        with self._precision.autocast():
            summary = self.backbone(pixels(images)).summary
        return {"loss": self.head(summary, labels, progress)}


class RecogniseJob(Stepped):
    """Recognition of people, judged by pairs of others."""

    module: Recognition
    settings: RecogniseSettings
    score = "pair_accuracy"

    def __init__(self, settings: RecogniseSettings, world: World, faces: People) -> None:
        super().__init__(settings, world, {"data_sha256": faces.digest})
        self.elsewhere |= {"people", "ship"}  # what the faces are is in the digest
        self.people = faces
        backbone = make(settings.backbone, settings.side, settings.dim, settings.width)
        if settings.start:
            start_from(backbone, settings.start, "backbone")
        synced(backbone, world)
        head = IdentityHead(settings, faces.classes, world)
        self.train_module(Recognition(backbone, head, self.precision))
        self.sharded = head.sharded
        sampler = Shuffled(len(faces.training.labels), settings.batch, settings.seed, share_of(world))
        self.feed = Feed(faces.training, sampler, settings.people.damaged, settings.workers, world.device)

    def facts(self) -> list[tuple[str, str]]:
        """The faces and the backbone."""
        return [*self.people.facts(), ("backbone", f"{self.settings.backbone}, {self.settings.side} pixels")]

    def example(self) -> Batch:
        """The first batch."""
        return next(self.batches(0))

    def batches(self, interval: int) -> Iterator[Batch]:
        """Variants of faces, and whose they are."""
        first = interval * self.course.steps
        for step, (images, labels) in enumerate(self.feed.take(first, self.course.steps), first):
            draw = generator(self.settings.seed, step)
            yield {
                "images": augment(images, self.settings.augment, draw, share_of(self.world)),
                "labels": labels,
            }

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of the head."""
        losses: dict[str, Tensor] = module(batch["images"], batch["labels"], self.progress(step))
        return losses

    def judge(self, module: nn.Module) -> Judgement:
        """Pairs of people held out, by this module's backbone."""
        assert isinstance(module, Recognition)  # noqa: S101 - for the type checker
        return judge_backbone(
            module.backbone, self.people, self.settings.people.damaged, self.settings.workers, self.precision
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy on the pairs."""
        return self.judge(module).figures()


def build(settings: RecogniseSettings, world: World, advance: Advance) -> RecogniseJob:
    """The job, its faces found and cut."""
    faces = people.find(settings.people, settings.side, settings.workers, world, advance)
    return RecogniseJob(settings, world, faces)


def finish(
    job: RecogniseJob, module: nn.Module, out: Path, export: Path | None, advance: Advance, say: Say
) -> None:
    """The ROC, and the export."""
    assert isinstance(module, Recognition)  # noqa: S101 - for the type checker
    settings = job.settings
    judgement = job.judge(module)
    judgement.tell(out / "roc.png", say)
    if export is not None:
        backbone = module.backbone
        head = shipping.fit_expressions(
            backbone, settings.ship, settings.workers, job.precision, advance, say
        )
        base = Path(settings.people.cut.pack).expanduser()
        shipping.ship(
            export,
            "recognise",
            backbone.cpu(),
            {"emotion": head},
            base,
            settings.ship,
            judgement,
            job.people.digest,
        )
        say(f"written: {export}")


TASK = Task(RecogniseSettings, build, finish)
