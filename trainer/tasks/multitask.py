"""The task ``multitask``: one backbone learns people by a margin, faces by contrast and expressions, by schedule.

The objectives are weighed against each other in every step, or take turns.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional

from calibration.fer2013 import LABELS
from calibration.plots import confusion
from trainer.backbones import Backbone
from trainer.backbones.heads import ExpressionHead, ProjectionHead
from trainer.common.distributed import World
from trainer.common.feed import Feed, share_of
from trainer.common.job import Advance, Batch, Say, Task
from trainer.common.precision import Precision
from trainer.common.settings import Count, Decay, NotNegative, Positive
from trainer.common.stepped import pixels
from trainer.data.augment import augment, generator
from trainer.data.fer import FerPictures
from trainer.data.samplers import Shuffled
from trainer.losses.contrastive import nt_xent
from trainer.losses.processes import gather
from trainer.losses.schedules import ramp
from trainer.metrics import Metrics
from trainer.tasks import expressions, face_job, people
from trainer.tasks.face_job import FaceJob, FaceModule, FaceSettings
from trainer.tasks.identity_head import HeadSettings, IdentityHead
from trainer.tasks.people import People

Objective = Literal["recognition", "contrast", "expression"]
Weight = Annotated[tuple[NotNegative, NotNegative], Meta(description="at the first step, at the last")]


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Weight of each objective at the first and at the last step, a straight line between them."""

    recognition: Weight = (1.0, 1.0)
    contrast: Weight = (1.0, 0.2)
    expression: Weight = (0.5, 1.0)


class MultitaskSettings(FaceSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer multitask`` makes.

    Attributes:
        head: how identities are told apart.
        weights: of the objectives.
        turns: objectives of the steps, over and over, such as ``["recognition", "contrast", "expression"]``; empty:
            all in every step.
        temperature: of the contrast's cosines.
        projection: length of the vectors on which the contrast is computed.
        fer2013: faces with expressions, ``.npz`` or ``.csv``.
        fer_batch: of them in a step, over all processes.
        label_smoothing: of the expressions.
        dropout: before the expressions' layer.
    """

    head: HeadSettings = HeadSettings()
    weights: Weights = Weights()
    turns: tuple[Objective, ...] = ()
    temperature: Positive = 0.1
    projection: Count = 128
    fer2013: str = "../shared/data/fer2013.npz"
    fer_batch: Annotated[int, Meta(ge=2)] = 32
    label_smoothing: Decay = 0.1
    dropout: Decay = 0.3


class Multitask(FaceModule):
    """A backbone with three readers."""

    def __init__(
        self, settings: MultitaskSettings, backbone: Backbone, head: IdentityHead, precision: Precision
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.identity = head
        self.projection = ProjectionHead(backbone.width, settings.projection)
        self.expression = ExpressionHead(backbone.channels, len(LABELS), settings.dropout)
        self._settings = settings
        self._precision = precision

    def shipped(self) -> tuple[nn.Module, ...]:
        """See ``FaceModule``."""
        return self.backbone, self.expression

    def forward(self, batch: Batch, weights: dict[Objective, float], progress: float) -> dict[str, Tensor]:
        """The objectives with a weight, their weighted sum as ``loss``, and the recognition without its margin.

        Args:
            batch: ``first``, ``second``: two views of faces, with ``labels``; ``faces`` with ``expressions``. Pictures
                are uint8 [n, 3, side, side], classes int64 [n].
            weights: of the objectives of this step.
            progress: share of the run that is done.
        """
        settings = self._settings
        pictures = {
            "first": "recognition" in weights or "contrast" in weights,
            "second": "contrast" in weights,
            "faces": "expression" in weights,
        }
        names = [name for name, wanted in pictures.items() if wanted]
        sizes = [len(batch[name]) for name in names]
        # One pass for all, so that the norms see what they will meet in use: every kind of picture.
        with self._precision.autocast():
            maps, summaries = self.backbone(pixels(torch.cat([batch[name] for name in names])))
            map_of = dict(zip(names, maps.split(sizes), strict=True))
            summary_of = dict(zip(names, summaries.split(sizes), strict=True))
            found: dict[str, Tensor] = {}
            if "contrast" in weights:
                both = self.projection(torch.cat([summary_of["first"], summary_of["second"]]))
                one, other = (gather(view.float()) for view in both.chunk(2))
            if "expression" in weights:
                logits = self.expression(map_of["faces"]).float()
        told: dict[str, Tensor] = {}
        if "recognition" in weights:
            told = self.identity.identify(summary_of["first"], batch["labels"], progress)._asdict()
            found["recognition"] = told.pop("loss")
        if "contrast" in weights:
            found["contrast"] = nt_xent(one, other, settings.temperature)
        if "expression" in weights:
            found["expression"] = functional.cross_entropy(
                logits, batch["expressions"], label_smoothing=settings.label_smoothing
            )
        total = torch.stack([weight * found[name] for name, weight in weights.items()]).sum()
        return {"loss": total, **found, **told}


class MultitaskJob(FaceJob):
    """People, faces and expressions."""

    settings: MultitaskSettings

    def __init__(self, settings: MultitaskSettings, world: World, faces: People) -> None:
        fer = Path(settings.fer2013).expanduser()
        expressive = FerPictures(fer, "train", settings.side, faces.template)
        super().__init__(settings, world, faces, {"fer2013_sha256": expressive.digest()})
        self.elsewhere |= {"fer2013"}
        self._validation = FerPictures(fer, "validation", settings.side, faces.template)
        sampler = Shuffled(len(expressive.labels), settings.fer_batch, settings.seed, share_of(world))
        self._expressions = Feed(expressive, sampler, 0, settings.workers, world.device)
        head = IdentityHead(settings.head, faces.classes, settings.dim, settings.seed, world)
        self.sharded = head.sharded
        self.train_module(Multitask(settings, self.backbone, head, self.precision))

    def facts(self) -> list[tuple[str, str]]:
        """The faces, and those with expressions."""
        known = f"{len(self._expressions.items):,}, {len(self._validation.labels):,} to judge by"
        return [*super().facts(), ("faces with expressions", known)]

    def batches(self, interval: int) -> Iterator[Batch]:
        """Two variants of each face, whose it is, and variants of faces with expressions."""
        steps = self.course.steps
        share, settings = share_of(self.world), self.settings.augment
        others = self._expressions.take(interval * steps, steps)
        for number, (images, labels, draw) in enumerate(self.faces(interval)):
            expressive, known = next(others)
            another = generator(self.settings.seed, interval * steps + number, 1)
            yield {
                "first": augment(images, settings, draw, share),
                "second": augment(images, settings, draw, share),
                "labels": labels,
                "faces": augment(expressive, settings, another, share),
                "expressions": known,
            }

    def weights(self, step: int) -> dict[Objective, float]:
        """The objectives of a step with their weights; those of weight 0 are left out.

        The first objective of a step stays whatever its weight, so that there is something to descend.
        """
        turns = self.settings.turns
        objectives: tuple[Objective, ...] = (
            (turns[step % len(turns)],) if turns else ("recognition", "contrast", "expression")
        )
        progress = self.progress(step)
        found = {name: ramp(progress, *getattr(self.settings.weights, name)) for name in objectives}
        return {name: weight for name, weight in found.items() if weight > 0} or {objectives[0]: 0.0}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """All objectives of the step."""
        losses: dict[str, Tensor] = module(batch, self.weights(step), self.progress(step))
        return losses

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy on the pairs, and on the expressions of the validation split."""
        metrics = self.expressions(module)
        return {
            **super().evaluate(module),
            "expression_accuracy": metrics.accuracy,
            "expression_balanced_accuracy": metrics.balanced_accuracy,
        }

    def expressions(self, module: nn.Module) -> Metrics:
        """How well a module tells the expressions of the validation split."""
        assert isinstance(module, Multitask)  # noqa: S101 - for the type checker
        return expressions.measured(
            module.backbone, module.expression, self._validation, self.settings.workers, self.precision
        )

    def expression_head(self, module: nn.Module, advance: Advance, say: Say) -> nn.Module:  # noqa: ARG002
        """The one that was trained."""
        assert isinstance(module, Multitask)  # noqa: S101 - for the type checker
        return module.expression


def build(settings: MultitaskSettings, world: World, advance: Advance) -> MultitaskJob:
    """The job, its faces found and cut."""
    found = people.find(settings.people, settings.side, settings.workers, world, advance)
    return MultitaskJob(settings, world, found)


def finish(
    job: MultitaskJob, module: nn.Module, out: Path, export: Path | None, advance: Advance, say: Say
) -> None:
    """ROC, confusion of the expressions, and the export."""
    metrics = job.expressions(module)
    confusion(metrics.confusion, LABELS, "validation", out / "confusion-validation.png")
    say(f"expressions: {100 * metrics.accuracy:.2f} % on the validation split")
    face_job.finish("multitask", job, module, out, export, advance, say)


TASK = Task(MultitaskSettings, build, finish)
