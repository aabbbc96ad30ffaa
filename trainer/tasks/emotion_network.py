"""The task ``emotion`` with a ``backbone``: a whole network for expressions, learnt from the pictures of FER2013."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.fer2013 import LABELS
from calibration.plots import confusion
from engines import pack
from engines.model import read_model
from engines.pack import file_digest
from trainer import card
from trainer.backbones import Backbone, count
from trainer.backbones.heads import ExpressionHead
from trainer.common.distributed import World
from trainer.common.feed import Feed, share_of
from trainer.common.job import Advance, Batch, Course, Say, Task
from trainer.common.precision import Precision
from trainer.common.settings import Count, Decay, NotNegative, Positive, Whole
from trainer.common.stepped import Stepped, pixels
from trainer.common.synced_norm import synced
from trainer.data.augment import Augmentation, augment, generator
from trainer.data.fer import FerPictures
from trainer.data.samplers import Shuffled
from trainer.losses.targets import mixed, smoothed
from trainer.map_sources import spread
from trainer.metrics import Metrics, best_temperature, measure
from trainer.tasks import emotion_pack, expressions
from trainer.tasks.emotion_pack import Expressions
from trainer.tasks.face_job import FaceModule
from trainer.tasks.network import NetworkSettings, first_backbone
from trainer.tasks.people import Part
from trainer.tasks.shipping import NamedSettings

_HEAD = "head"  # what every backbone calls its last layer, from map to summary


class EmotionNetworkSettings(NetworkSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer emotion --set backbone=NAME`` makes.

    Attributes:
        data: FER2013, ``.npz`` or Kaggle's ``.csv``.
        limit: use only so many images of each split, spread over it; 0: all (for trials).
        label_smoothing: share of each target that is spread over all expressions.
        mixup: Beta parameter of mixed pictures (Zhang et al. 2018); 0 turns it off.
        dropout: of what the last layer reads.
        augment: how far variants of the pictures stray.
        pack: beside whose recognition the export puts the network.
        ship: what an export is made with.
    """

    steps: Count = 10_000
    interval: Count = 100
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.05
    ema: Decay = 0.998
    data: str = "../shared/data/fer2013.npz"
    limit: Whole = 0
    label_smoothing: Decay = 0.1
    mixup: NotNegative = 0.2
    dropout: Decay = 0.3
    augment: Augmentation = Augmentation()
    pack: str = "~/.local/share/cabinsense/packs/default"
    ship: NamedSettings = NamedSettings()


class EmotionNetwork(FaceModule):
    """A backbone, and a linear layer on the mean over its map."""

    def __init__(self, backbone: Backbone, dropout: float, precision: Precision) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.get_submodule(_HEAD).requires_grad_(False)  # nobody asks for the summary
        self.expression = ExpressionHead(backbone.channels, len(LABELS), dropout)
        self._precision = precision

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 [n, expressions] of pictures, float32 RGB [n, 3, side, side] in -1..1."""
        with self._precision.autocast():
            logits: Tensor = self.expression(self.backbone(images).map)
        return logits.float()


class EmotionNetworkJob(Stepped):
    """A whole network on the pictures of FER2013.

    Attributes:
        digest: SHA-256 of the pictures to learn from, all of them.
        images: how many are learnt from.
    """

    settings: EmotionNetworkSettings
    score = "validation_accuracy"

    def __init__(self, settings: EmotionNetworkSettings, world: World) -> None:
        """Read the pictures and make the network.

        Raises:
            Fer2013Error: the data set is missing or wrong.
            DataError: there are fewer pictures than in a batch.
            BackboneError: there is no such backbone.
            CheckpointError: the run to start from has none of this shape.
        """
        fer = Path(settings.data).expanduser()
        training = FerPictures(fer, "train", settings.side)
        self.digest = training.digest()
        super().__init__(settings, world, {"data_sha256": self.digest})
        self.elsewhere |= {"data", "pack", "ship"}  # which pictures they are is in the digest
        chosen = _some(training, settings.limit)
        self.images = len(chosen.labels)
        self._validation = _some(FerPictures(fer, "validation", settings.side), settings.limit)
        sampler = Shuffled(self.images, settings.batch, settings.seed, share_of(world))
        self._feed = Feed(chosen, sampler, 0, settings.workers, world.device)
        network = EmotionNetwork(first_backbone(settings), settings.dropout, self.precision)
        self.train_module(synced(network, world))

    def facts(self) -> list[tuple[str, str]]:
        """The pictures and the backbone."""
        settings = self.settings
        return [
            ("data", f"{settings.data}, SHA-256 {self.digest[:16]}…"),
            ("images", f"{self.images:,}, {len(self._validation.labels):,} to judge by"),
            ("backbone", f"{settings.backbone}, {settings.side} pixels"),
        ]

    def example(self) -> Batch:
        """The first batch."""
        return next(self.batches(0))

    def batches(self, interval: int) -> Iterator[Batch]:
        """Variants of pictures, mixed, and what they are to be taken for."""
        settings, share, first = self.settings, share_of(self.world), interval * self.course.steps
        for step, (images, labels) in enumerate(self._feed.take(first, self.course.steps), first):
            varied = augment(images, settings.augment, generator(settings.seed, step), share)
            targets = smoothed(labels, len(LABELS), settings.label_smoothing)
            rng = np.random.default_rng((settings.seed, step, self.world.rank))
            faces, targets = mixed(pixels(varied), targets, settings.mixup, rng)
            yield {"faces": faces, "targets": targets}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:  # noqa: ARG002 - no schedule
        """Cross-entropy, nats."""
        return {"loss": functional.cross_entropy(module(batch["faces"]), batch["targets"])}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy and likelihood on the validation split."""
        metrics = measure(*self.validated(module))
        return {
            "validation_accuracy": metrics.accuracy,
            "validation_balanced_accuracy": metrics.balanced_accuracy,
            "validation_nll": metrics.nll,
        }

    def validated(self, module: nn.Module) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits and labels of the validation split."""
        assert isinstance(module, EmotionNetwork)  # noqa: S101 - for the type checker
        workers = self.settings.workers
        return expressions.logits_of(
            module.backbone, module.expression, self._validation, workers, self.precision
        )


def build(settings: EmotionNetworkSettings, world: World, _advance: Advance) -> EmotionNetworkJob:
    """The job."""
    return EmotionNetworkJob(settings, world)


def finish(
    job: EmotionNetworkJob,
    module: nn.Module,
    out: Path,
    export: Path | None,
    advance: Advance,
    say: Say,
) -> None:
    """Measure on the validation split; if asked, export, and measure on the test what was exported."""
    assert isinstance(module, EmotionNetwork)  # noqa: S101 - for the type checker
    logits, labels = job.validated(module)
    validation = measure(logits, labels)
    confusion(validation.confusion, LABELS, "validation", out / "confusion-validation.png")
    say(f"validation accuracy {100 * validation.accuracy:.2f} %")
    if export is None:
        return
    test = _ship(job, module.cpu(), best_temperature(logits, labels), export, advance)
    confusion(test.confusion, LABELS, "test", out / "confusion-test.png")
    say(f"test accuracy {100 * test.accuracy:.2f} % through {export}")


def _some(source: FerPictures, limit: int) -> Part:
    """So many of the pictures, spread over them; all where the limit is 0."""
    rows = spread(len(source.labels), limit)
    return Part(source, rows, source.labels[rows])


def _ship(
    job: EmotionNetworkJob, module: EmotionNetwork, temperature: float, target: Path, advance: Advance
) -> Metrics:
    """Write what was trained, and its card; what the exported network reaches on the test split."""
    settings = job.settings
    base = pack.verify(Path(settings.pack).expanduser())
    network = read_model(base.face)
    found = Expressions(module.backbone, module.expression, temperature)
    graph = emotion_pack.beside(network, found.graph())
    difference = emotion_pack.prove(graph, network, found)
    measured = {}
    for split, name in zip(("validation", "test"), card.IMAGES[2:], strict=True):
        source = FerPictures(Path(settings.data).expanduser(), split, base.manifest.face.side)
        faces = _some(source, settings.limit)
        told = emotion_pack.logits_through(graph, faces, partial(advance, f"the export on {split}"))
        measured[name] = measure(told, faces.labels)
    test = measured[card.IMAGES[3]]
    emotion_pack.write(
        target,
        settings.ship.name,
        base,
        graph,
        licence=settings.ship.licence,
        source=f"`python -m trainer emotion --set backbone={settings.backbone}` on FER2013 of SHA-256 {job.digest}, "
        f"private test {100 * test.accuracy:.2f} %",
    )
    face = target if target.suffix == ".onnx" else pack.verify(target).face
    facts = [
        ("file", f"`{face.name}`, {face.stat().st_size:,} bytes, those for the embedding among them"),
        ("SHA-256", f"`{file_digest(face)}`"),
        *_interface(settings.side, base.manifest.face.side),
        *_costs(module),
        ("temperature", f"{temperature:.3f}, chosen on validation, folded into the last layer"),
        ("PyTorch against ONNX", f"logits differ by at most {difference:.1e}"),
        ("training data", f"{card.IMAGES[0]}, training split, {job.images:,} {card.IMAGES[1]}"),
        ("SHA-256 of the training split", f"`{job.digest}`"),
        ("embedding", f"of the pack `{base.manifest.name}`, face network `{base.manifest.face.sha256}`"),
        ("seed", str(settings.seed)),
    ]
    text = card.sheet(
        "Expression network",
        "Reads the expression from the chip, beside the network that tells people apart: one run gives both.\n"
        "Trained with `python -m trainer emotion`; embeddings are to the bit what they were.",
        facts,
        card.IMAGES[:2],
        measured,
        LABELS,
        _recipe(settings, job.course),
    )
    card.write(target.with_name(f"{target.name.removesuffix('.onnx')}.md"), text)
    return test


def _interface(side: int, chip: int) -> list[tuple[str, str]]:
    """What a network for pictures of a side reads and gives in a pack with chips of another, or of the same."""
    resize = "" if side == chip else f", brought to {side}×{side} by two matrix products"
    return [
        ("input", f"`chip` uint8 BGR [N, {chip}, {chip}, 3]{resize}"),
        ("output", f"`emotion` float32 [N, {len(LABELS)}]: logits of {', '.join(LABELS)}"),
        ("norm layers", "named Mul and Add with `norm.emotion.LAYER.scale` and `.shift`, float32"),
    ]


def _costs(module: EmotionNetwork) -> list[tuple[str, str]]:
    """What all that the logits depend on costs."""
    used = copy.deepcopy(module)
    setattr(used.backbone, _HEAD, nn.Identity())  # of which the export has nothing
    products = count.multiply_adds(used, module.backbone.side)
    return [
        ("parameters", f"{count.parameters(used):,}, beside those for the embedding"),
        ("multiply-adds a face", f"{products / 1e6:.1f} million, beside those for the embedding"),
    ]


def _recipe(settings: EmotionNetworkSettings, course: Course) -> str:
    """How the weights came about, in a few sentences."""
    began = "the weights of another run" if settings.start else "random weights"
    kept = f"averaged weights (decay {settings.ema:g} a step)" if settings.ema else "last weights"
    return (
        f"{settings.backbone} of width {settings.width:g} at {settings.side}×{settings.side} pixels, begun with "
        f"{began}. {course.intervals * course.steps:,} steps of {settings.batch} pictures; {settings.optimizer}, peak "
        f"rate {settings.learning_rate:g}, weight decay {settings.weight_decay:g}, warm-up over "
        f"{100 * settings.warmup:g} % of the steps, then a cosine to zero; label smoothing "
        f"{settings.label_smoothing:g}; mixup {settings.mixup:g}; dropout {settings.dropout:g}; each picture varied "
        f"anew in each step (see `trainer/data/augment.py`). The {kept} of the last step are shipped; no step was "
        "picked by its score."
    )


TASK = Task(EmotionNetworkSettings, build, finish)
