"""What the tasks share that train a backbone on faces of people, and judge it by pairs of others."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer import quantise
from trainer.backbones import Backbone
from trainer.common.distributed import World
from trainer.common.feed import Feed, share_of
from trainer.common.job import Advance, Batch, Say
from trainer.common.stepped import Stepped, start_whole
from trainer.common.synced_norm import synced
from trainer.data.augment import Augmentation, generator
from trainer.data.samplers import Shuffled
from trainer.tasks import shipping
from trainer.tasks.network import NetworkSettings, first_backbone
from trainer.tasks.people import People, PeopleSettings
from trainer.tasks.verification import Judgement, judge_backbone


class FaceSettings(NetworkSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network that is trained, and on what.

    Attributes:
        quantise: fine-tune with weights and activations of 8 bits in powers of two (``trainer.quantise``); norm layers
            stay as they are. ``start`` must name a finished run that was not quantised. If that was of this task and
            these data, what stands behind the backbone begins as it ended there, too.
        people: the faces.
        augment: how far variants of them stray.
        ship: what an export is made with.
    """

    quantise: bool = False
    people: PeopleSettings = PeopleSettings()
    augment: Augmentation = Augmentation()
    ship: shipping.ShipSettings = shipping.ShipSettings()

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        if self.quantise and not self.start:
            raise ValueError(quantise.NO_START)


class FaceModule(nn.Module):
    """A backbone, and what reads it while it is trained.

    Attributes:
        backbone: what is left in the end.
    """

    backbone: Backbone

    def shipped(self) -> tuple[nn.Module, ...]:
        """The parts that an export has."""
        return (self.backbone,)


class FaceJob(Stepped):
    """A backbone on faces of people.

    Attributes:
        people: the faces.
        backbone: with its first weights, for ``train_module``.
        feed: of the faces to train on.
    """

    settings: FaceSettings
    module: FaceModule
    score = "pair_accuracy"

    def __init__(
        self, settings: FaceSettings, world: World, people: People, digests: Mapping[str, str] | None = None
    ) -> None:
        """Make the backbone.

        Args:
            settings: of the run.
            world: this process.
            people: the faces.
            digests: of further data.
        """
        super().__init__(settings, world, {"data_sha256": people.digest, **(digests or {})})
        self.elsewhere |= {"people", "ship"}  # which faces they are is in the digest
        self.people = people
        self.backbone = first_backbone(settings)
        self._start = ""
        sampler = Shuffled(len(people.training.labels), settings.batch, settings.seed, share_of(world))
        self.feed = Feed(people.training, sampler, settings.people.damaged, settings.workers, world.device)

    def train_module(self, module: nn.Module) -> None:
        """Train this, its norms over all processes; parameters that are ``sharded`` are known already.

        Raises:
            QuantisationError: it is to be trained for whole numbers, and cannot be.
        """
        if self.settings.quantise:
            assert isinstance(module, FaceModule)  # noqa: S101 - for the type checker
            self._start = "all of" if start_whole(module, self.settings.start, self) else "the backbone of"
            for part in module.shipped():
                quantise.prepare(part)
            side = module.backbone.side
            quantise.try_out(module.backbone, torch.zeros(1, 3, side, side))
        super().train_module(synced(module, self.world))

    def facts(self) -> list[tuple[str, str]]:
        """The faces and the backbone."""
        settings = self.settings
        tuned = [("fine-tuned for whole numbers", f"{self._start} {settings.start}")] if self._start else []
        return [*self.people.facts(), ("backbone", f"{settings.backbone}, {settings.side} pixels"), *tuned]

    def example(self) -> Batch:
        """The first batch."""
        return next(self.batches(0))

    def faces(self, interval: int) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """For each step of an interval faces, whose they are, and where random variants come from."""
        first = interval * self.course.steps
        for step, (images, labels) in enumerate(self.feed.take(first, self.course.steps), first):
            yield images, labels, generator(self.settings.seed, step)

    def judge(self, module: nn.Module) -> Judgement:
        """Pairs of people held out, by this module's backbone."""
        assert isinstance(module, FaceModule)  # noqa: S101 - for the type checker
        settings = self.settings
        return judge_backbone(
            module.backbone, self.people, settings.people.damaged, settings.workers, self.precision
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy on the pairs."""
        return self.judge(module).figures()

    def expression_head(self, module: nn.Module, advance: Advance, say: Say) -> nn.Module:
        """What reads expressions from the backbone in the export."""
        assert isinstance(module, FaceModule)  # noqa: S101 - for the type checker
        settings = self.settings
        return shipping.fit_expressions(
            module.backbone,
            settings.ship,
            self.people.template,
            settings.workers,
            self.precision,
            advance,
            say,
            quantised=settings.quantise,
        )


def finish(
    task: str, job: FaceJob, module: nn.Module, out: Path, export: Path | None, advance: Advance, say: Say
) -> None:
    """The ROC, and the export."""
    assert isinstance(module, FaceModule)  # noqa: S101 - for the type checker
    judgement = job.judge(module)
    if job.settings.quantise:
        say(f"with activations in whole numbers, {judgement.told}")
        judgement = job.judge(quantise.deployable(module)[0])  # as the agent runs it: only weights are
    judgement.tell(out / "roc.png", say)
    if export is not None:
        head = job.expression_head(module, advance, say).cpu()
        base = Path(job.settings.people.cut.pack).expanduser()
        shipping.ship(
            export,
            task,
            module.backbone.cpu(),
            {"emotion": head},
            base,
            job.people.template,
            job.settings.ship,
            judgement,
            job.people.digest,
        )
        say(f"written and proved against PyTorch: {export}")
