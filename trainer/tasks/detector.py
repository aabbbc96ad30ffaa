"""The task ``detector``: a small network that finds faces, from boxes or from what a pack's detector finds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from engines import pack
from trainer import quantise
from trainer.common import packs
from trainer.common.distributed import World
from trainer.common.feed import Stream, share_of
from trainer.common.job import Advance, Batch, Say, Task
from trainer.common.plots import precision_recall
from trainer.common.precision import Precision
from trainer.common.settings import NotNegative, Positive, RunSettings, Whole
from trainer.common.stepped import Stepped, pixels, start_from
from trainer.common.synced_norm import synced
from trainer.data.augment import Angle, Augmentation, Chance, Part, augment, generator
from trainer.data.canvas import FACE, NEITHER, Canvases, CanvasSettings
from trainer.data.samplers import Shuffled
from trainer.data.wider import Marked
from trainer.detector import judging
from trainer.detector.export import write_detector
from trainer.detector.network import TinySsd, all_anchors, flat, fused
from trainer.losses import detection
from trainer.tasks import marked
from trainer.tasks.marked import MarkedSettings, Pictures

_MATCHED = 0.5  # overlap from which an anchor is to find a face (Liu et al. 2016, section 2.2)
_DOUBTFUL = 0.4  # between this and that it is neither (as RetinaNet has it: Lin et al. 2017, section 4)
_NEAR = 0.3  # overlap with a face that is not to count, from which an anchor is neither


class Ship(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an export is made with.

    Attributes:
        name: of the pack.
        licence: of the weights.
        false_alarms: a picture: the least score with which there are no more among the pictures to choose by becomes
            0.5, the agent's own threshold.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)] = "own"
    licence: str = "unpublished"
    false_alarms: Annotated[float, Meta(ge=0, le=10)] = 0.05


class Light(Augmentation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far light and sensor stray, as ``Augmentation`` says; nothing moves."""

    flip: Chance = 0.0
    yaw: Angle = 0.0
    pitch: Angle = 0.0
    roll: Angle = 0.0
    scale: Part = 0.0
    shift: Part = 0.0
    erase: Chance = 0.0
    blur: Chance = 0.1
    coarse: Chance = 0.0
    noise: Chance = 0.2
    jpeg: Chance = 0.0


class DetectorSettings(RunSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer detector`` makes.

    Attributes:
        width: factor of all channels.
        start: a run, or its checkpoint, whose network is the start; empty: random weights.
        quantise: fine-tune with weights and activations of 8 bits in powers of two (``trainer.quantise``). Batch norms
            are folded before, so ``start`` must name a finished run that was not quantised.
        negatives: at least so many anchors of each canvas learn that there is no face.
        pictures: to learn from and to judge by.
        canvas: how they are put together.
        augment: how far light and sensor stray. Faces are placed by ``canvas``; what moves them here stays 0.
        ship: what an export is made with.
    """

    steps: Annotated[int, Meta(ge=1)] = 4000
    batch: Annotated[int, Meta(ge=2)] = 32
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Positive = 3e-3
    weight_decay: NotNegative = 1e-3
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.998
    width: Positive = 1.0
    start: str = ""
    quantise: bool = False
    negatives: Whole = 12
    pictures: MarkedSettings = MarkedSettings()
    canvas: CanvasSettings = CanvasSettings()
    augment: Light = Light()
    ship: Ship = Ship()

    def __post_init__(self) -> None:
        """Refuse what types alone cannot."""
        moved = [
            name for name in ("flip", "yaw", "pitch", "roll", "scale", "shift") if getattr(self.augment, name)
        ]
        if moved:
            raise ValueError(f"augment.{moved[0]} would move faces from their boxes; canvas places them")
        if self.quantise and not self.start:
            raise ValueError(quantise.NO_START)


class Detection(nn.Module):
    """The network and its loss.

    Attributes:
        network: what is left in the end.
    """

    def __init__(self, network: nn.Module, negatives: int, precision: Precision) -> None:
        super().__init__()
        # Channels last: convolutions of this size take half as long on a processor.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # stubs lack it
        self._negatives = negatives
        self._precision = precision

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The losses of canvases uint8 [n, 3, side, side], as ``multibox_loss`` takes labels and targets."""
        with self._precision.autocast():
            planes = pixels(images).contiguous(memory_format=torch.channels_last)
            logits, offsets = flat(self.network(planes))
        # One logit is the odds against background: two classes of which one is always at 0.
        both = torch.stack([torch.zeros_like(logits), logits], 2)
        faces, places = detection.multibox_loss(both, offsets, labels, targets, self._negatives)
        return {"loss": faces + places, "faces": faces, "places": places}


class DetectorJob(Stepped):
    """A detector on canvases.

    Attributes:
        pictures: that they are put together from.
        stream: of canvases.
    """

    settings: DetectorSettings
    module: Detection
    score = "recall"

    def __init__(self, settings: DetectorSettings, world: World, pictures: Pictures) -> None:
        """Make the network.

        Raises:
            CheckpointError: what is to start from is no such network.
            DataError: the pictures do not fill a batch.
        """
        super().__init__(settings, world, {"data_sha256": pictures.digest})
        self.elsewhere |= {"pictures", "ship"}  # which pictures they are is in the digest
        self.pictures = pictures
        network = TinySsd(settings.width)
        if settings.start:
            start_from(network, settings.start, "network")
        if settings.quantise:
            quantise.prepare(fused(network))
        self.train_module(synced(Detection(network, settings.negatives, self.precision), world))
        canvases = Canvases(
            pictures.root, pictures.training, settings.canvas, settings.seed, settings.pictures.damaged
        )
        sampler = Shuffled(len(canvases), settings.batch, settings.seed, share_of(world), anew=True)
        self.stream = Stream(canvases, sampler, settings.workers, world.device)
        self._anchors = all_anchors(settings.canvas.side, settings.canvas.side).to(world.device)
        self._base = pack.verify(Path(settings.pictures.pack).expanduser())

    def facts(self) -> list[tuple[str, str]]:
        """The pictures and the network's input."""
        side = self.settings.canvas.side
        return [*self.pictures.facts(), ("canvas", f"{side} pixels, {len(self._anchors):,} anchors")]

    def example(self) -> Batch:
        """The first batch."""
        return next(self.batches(0))

    def batches(self, interval: int) -> Iterator[Batch]:
        """Canvases, and what each anchor is to say."""
        settings, first = self.settings, interval * self.course.steps
        for step, (images, boxes, kinds) in enumerate(self.stream.take(first, self.course.steps), first):
            draw = generator(settings.seed, step)
            wanted = [assign(*each, self._anchors) for each in zip(boxes, kinds, strict=True)]
            yield {
                "images": augment(images, settings.augment, draw, share_of(self.world)),
                "labels": torch.stack([labels for labels, _ in wanted]),
                "targets": torch.stack([targets for _, targets in wanted]),
            }

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Of faces and of places."""
        losses: dict[str, Tensor] = module(batch["images"], batch["labels"], batch["targets"])
        return losses

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Recall and false alarms of the exported network in the agent's code, on some pictures held out."""
        held = self.pictures.held_out
        some = held[:: max(1, len(held) // self.settings.pictures.judged)]
        network, _ = self.deployable(module)
        found = judging.judge(network, self._base, self.pictures.root, some)
        recall, alarms = found.at(0.5)
        return {"recall": recall, "false_alarms": alarms, "average_precision": found.average_precision}

    def deployable(self, module: nn.Module) -> tuple[TinySsd, dict[str, int]]:
        """The network of ``module`` as it is exported, and the bits behind the point of each layer's input.

        It is on the processor. Its weights are quantised where it was trained so; else there are no bits to tell of.
        """
        assert isinstance(module, Detection)  # noqa: S101 - for the type checker
        network, bits = quantise.deployable(module.network)
        assert isinstance(network, TinySsd)  # noqa: S101 - for the type checker
        return network.cpu(), bits


def assign(boxes: Tensor, kinds: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """What each anchor is to say of a canvas: labels int64 [a] and offsets float [a, 4], as ``multibox_loss`` has them.

    Args:
        boxes: float [m, 4], x1, y1, x2, y2.
        kinds: uint8 [m], see ``trainer.data.canvas``.
        anchors: float [a, 4].
    """
    faces, others = boxes[kinds == FACE], boxes[kinds == NEITHER]
    labels = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    targets = torch.zeros_like(anchors)
    around = detection.corners(anchors)
    for near, least in ((faces, _DOUBTFUL), (others, _NEAR)):
        if len(near):
            labels[detection.overlap(near, around).amax(0) > least] = detection.NEITHER
    found = detection.match(faces, anchors, _MATCHED)
    matched = found >= 0
    labels[matched] = 1
    targets[matched] = detection.encode(faces[found[matched]], anchors[matched])
    return labels, targets


def build(settings: DetectorSettings, world: World, advance: Advance) -> DetectorJob:
    """The job, its pictures found and marked."""
    return DetectorJob(settings, world, marked.find(settings.pictures, world, advance))


def finish(
    job: DetectorJob, module: nn.Module, out: Path, target: Path | None, advance: Advance, say: Say
) -> None:
    """Choose a threshold, judge by the other pictures that are held out, draw, and export."""
    pictures, ship = job.pictures, job.settings.ship
    base = pack.verify(Path(job.settings.pictures.pack).expanduser())
    network, bits = job.deployable(module)

    def judged(what: str, side: list[Marked], threshold: float) -> judging.Finding:
        return judging.judge(
            network, base, pictures.root, side, threshold, lambda count: advance(what, count, len(side))
        )

    threshold = judged("choosing a threshold", pictures.choosing, 0.5).threshold(ship.false_alarms)
    threshold = min(max(threshold, judging.LEAST), 1 - judging.LEAST)
    found = judged("judging", pictures.reporting, threshold)
    recall, alarms = found.at(0.5)
    told = (
        f"{100 * recall:.2f} % of {found.faces:,} faces on {found.pictures:,} pictures held out are found, "
        f"{alarms:.3f} false alarms a picture; average precision {100 * found.average_precision:.2f} %"
    )
    precision_recall(found, told, out / "precision-recall.png")
    say(told)
    if target is None:
        return
    source = f"`python -m trainer detector` on pictures of SHA-256 {pictures.digest}"
    notes = {f"bits.{layer}": str(count) for layer, count in bits.items()}
    packs.export(
        target,
        ship.name,
        base,
        "detector",
        lambda file: write_detector(file, network, threshold, ship.licence, source, notes),
    )
    say(f"written and proved against PyTorch: {target}")


TASK = Task(DetectorSettings, build, finish)
