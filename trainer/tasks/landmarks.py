"""The task ``landmarks``: a small network that reads five points from a chip about a face's box."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.lfw import person
from engines import pack
from trainer.common import packs
from trainer.common.distributed import World, wait
from trainer.common.feed import Stream, share_of
from trainer.common.job import Advance, Batch, Say, Task
from trainer.common.precision import Precision
from trainer.common.settings import ConfigError, Count, Decay, Positive, RunSettings, Share, Whole
from trainer.common.stepped import Stepped, pixels, start_from
from trainer.common.synced_norm import synced
from trainer.data.augment import Augmentation, augment, generator
from trainer.data.jitter import Chips, Jitter
from trainer.data.landmarks import Marked, find_faces
from trainer.data.reading import load
from trainer.data.samplers import InOrder, Shuffled
from trainer.data.split import by_share
from trainer.landmarks import export as exporting
from trainer.landmarks import judging
from trainer.landmarks.judging import Errors
from trainer.landmarks.network import HALVED, LandmarkNet
from trainer.losses.wing import wing_loss
from trainer.tasks.shipping import NamedSettings

_BATCH = 64
EXACT, JITTERED = "the detector's boxes", "jittered boxes"


class FacesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which faces, and where their points come from.

    Attributes:
        root: folder with a folder of photographs for each person; with ``points``, what its paths start from.
        points: list of points as CelebA has it, see ``trainer.data.point_list``; empty: those that the pack's detector
            finds.
        pack: whose detector finds the boxes, and the points where there is no list.
        keep: folder for the boxes and points that were found, numbers and no pictures; empty: found anew each time.
        held_out: share of the people who are not trained on and judge; without folders of people each photograph counts
            as a person of its own.
        damaged: photographs that may be unreadable or without a face.
        margin: of the square that a chip shows, on each side, in parts of the box's longer side.
    """

    root: str = "../shared/data/lfw"
    points: str = ""
    pack: str = "~/.local/share/cabinsense/packs/default"
    keep: str = "runs/points"
    held_out: Share = 0.1
    damaged: Whole = 100
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.1


class LandmarkSettings(RunSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer landmarks`` makes.

    Attributes:
        side: of the chips, pixels.
        width: factor of the network's channels.
        start: a run, or its checkpoint, whose network is the start; empty: random weights.
        loss: ``wing``, or the mean of absolute (``l1``) or squared (``l2``) errors, all in the chip's pixels.
        wing_width: w of the wing loss, pixels: where it goes over to a straight line.
        wing_curvature: e of the wing loss, pixels.
        faces: which.
        jitter: how far the chips lie from the detector's boxes; the same for the jittered chips that judge.
        augment: light, occlusion, lens, sensor and file; where the face lies is ``jitter``'s matter, so its mirror, its
            angles, its scale and shift do not count here.
        overview: faces held out on a picture with their points, ``points.png``. It shows people, so there is none
            unless it is asked for.
        ship: what an export is made with.
    """

    steps: Count = 4000
    interval: Count = 100
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Positive = 0.002
    warmup: Share = 0.03
    ema: Decay = 0.998
    side: Annotated[int, Meta(ge=32, le=256, multiple_of=HALVED)] = 96
    width: Positive = 1.0
    start: str = ""
    loss: Literal["wing", "l1", "l2"] = "wing"
    wing_width: Positive = 10.0
    wing_curvature: Positive = 2.0
    faces: FacesSettings = FacesSettings()
    jitter: Jitter = Jitter()
    augment: Augmentation = Augmentation()
    overview: Whole = 0
    ship: NamedSettings = NamedSettings()


class Reading(nn.Module):
    """The network and its loss."""

    def __init__(self, settings: LandmarkSettings, network: LandmarkNet, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self._settings, self._precision = settings, precision

    def forward(self, images: Tensor, points: Tensor) -> dict[str, Tensor]:
        """The loss on chips uint8 [n, 3, side, side] whose points are float32 [n, 5, 2]."""
        with self._precision.autocast():
            found = self.network(pixels(images))
        found, settings = found.float().reshape(points.shape), self._settings
        if settings.loss == "wing":
            loss = wing_loss(found, points, settings.wing_width, settings.wing_curvature)
        else:
            loss = (functional.l1_loss if settings.loss == "l1" else functional.mse_loss)(found, points)
        eyes = (points[:, 0] - points[:, 1]).norm(dim=1)
        return {"loss": loss, "error": ((found.detach() - points).norm(dim=2) / eyes[:, None]).mean()}


class LandmarkJob(Stepped):
    """A landmark network on marked faces.

    Attributes:
        training: faces to train on.
        judging: faces of people held out.
    """

    settings: LandmarkSettings
    module: Reading
    score = "nme"

    def __init__(
        self, settings: LandmarkSettings, world: World, training: Marked, judging_faces: Marked, left_out: str
    ) -> None:
        """Make the network.

        Args:
            settings: of the run.
            world: this process.
            training: faces to train on.
            judging_faces: faces of others.
            left_out: which photographs could not be used.
        """
        digests = {"training_sha256": training.digest(), "held_out_sha256": judging_faces.digest()}
        super().__init__(settings, world, digests)
        self.elsewhere |= {"ship", "overview"}
        self.training, self.judging, self._left_out = training, judging_faces, left_out
        self._plain = msgspec.structs.replace(
            settings.augment, flip=0.0, yaw=0.0, pitch=0.0, roll=0.0, scale=0.0, shift=0.0
        )
        chips = self._chips(training, settings.jitter)
        exact = self._chips(training, None)
        some = np.linspace(0, len(exact) - 1, min(_BATCH, len(exact))).astype(int)
        usual = np.mean([exact[int(item)][1].numpy() for item in some], axis=0)
        network = LandmarkNet(settings.side, settings.width, usual)
        if settings.start:
            start_from(network, settings.start, "network")
        self.train_module(synced(Reading(settings, network, self.precision), world))
        sampler = Shuffled(len(chips), settings.batch, settings.seed, share_of(world), anew=True)
        self._stream = Stream(chips, sampler, settings.workers, world.device)

    def facts(self) -> list[tuple[str, str]]:
        """The faces and where their points come from."""
        source = self.settings.faces.points or "the pack's detector"
        return [
            ("faces to train on", f"{len(self.training.photos):,}"),
            ("faces to judge by", f"{len(self.judging.photos):,}, of people held out"),
            ("points", f"of {source}"),
            *([("left out", self._left_out)] if self._left_out else []),
        ]

    def example(self) -> Batch:
        """The first batch."""
        return next(self.batches(0))

    def batches(self, interval: int) -> Iterator[Batch]:
        """Chips and their points."""
        first = interval * self.course.steps
        for step, (images, points) in enumerate(self._stream.take(first, self.course.steps), first):
            draw = generator(self.settings.seed, step)
            yield {
                "images": augment(images, self._plain, draw, share_of(self.world)),
                "points": points,
            }

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:  # noqa: ARG002 - no schedule
        """The loss, and the normalised mean error of the batch."""
        losses: dict[str, Tensor] = module(batch["images"], batch["points"])
        return losses

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Errors on people held out, in the chips that the agent would cut."""
        assert isinstance(module, Reading)  # noqa: S101 - for the type checker
        parts, true = [], []
        with torch.inference_mode():
            for images, points in self.held_out(jittered=False):
                with self.precision.autocast():
                    found = module.network(pixels(images.to(self.world.device)))
                parts.append(found.float().cpu().numpy().reshape(-1, 5, 2))
                true.append(points.numpy())
        found_errors = judging.errors(np.concatenate(parts), np.concatenate(true))
        return {"nme": found_errors.mean, "failures": found_errors.failures}

    def held_out(self, *, jittered: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of chips of people held out and their points; jittered ones are the same each time."""
        jitter = msgspec.structs.replace(self.settings.jitter, flip=0.0) if jittered else None
        chips = self._chips(self.judging, jitter)
        yield from load(chips, InOrder(len(chips), _BATCH), self.settings.workers)

    def _chips(self, faces: Marked, jitter: Jitter | None) -> Chips:
        settings = self.settings
        return Chips(
            faces,
            settings.side,
            settings.faces.margin,
            jitter=jitter,
            seed=settings.seed,
            limit=settings.faces.damaged,
        )


def build(settings: LandmarkSettings, world: World, advance: Advance) -> LandmarkJob:
    """The job, its faces found and divided."""
    faces = settings.faces
    root = Path(faces.root).expanduser()
    if not world.first:
        wait(world)  # until the first has written what it found
    found = find_faces(
        root,
        Path(faces.points).expanduser() if faces.points else None,
        Path(faces.pack).expanduser(),
        Path(faces.keep).expanduser() if faces.keep else None,
        workers=settings.workers,
        limit=faces.damaged,
        advance=partial(advance, "faces found"),
    )
    if world.first:
        wait(world)
    people = [person(photo) for photo in found.photos]
    held_out = set(by_share(people, faces.held_out).held_out)
    outside = np.array([name in held_out for name in people], np.bool_)
    if outside.all() or not outside.any():
        raise ConfigError(
            "nobody is left to train on or to judge by; another faces.held_out, or more people, help"
        )
    return LandmarkJob(settings, world, found.part(~outside), found.part(outside), found.left_out)


def finish(
    job: LandmarkJob, module: nn.Module, out: Path, export: Path | None, _advance: Advance, say: Say
) -> None:
    """The errors of what is exported, in ONNX Runtime; the pictures; the export."""
    assert isinstance(module, Reading)  # noqa: S101 - for the type checker
    settings = job.settings
    graph = exporting.landmark_graph(module.network)
    exporting.prove(graph, module.network)
    found: dict[str, Errors] = {}
    for name, jittered in ((EXACT, False), (JITTERED, True)):
        images, points = (
            torch.cat(parts).numpy() for parts in zip(*job.held_out(jittered=jittered), strict=True)
        )
        chips: NDArray[np.uint8] = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        own = exporting.answers(graph, np.ascontiguousarray(chips[..., ::-1])).reshape(-1, 5, 2)
        found[name] = judging.errors(own, points)
        say(f"people held out, {name}: {found[name].told()}")
        if jittered and settings.overview:
            some = slice(settings.overview)
            judging.overview(chips[some], own[some], points[some], out / "points.png")
    judging.cumulative(found, out / "errors.png")
    if export is not None:
        base = pack.verify(Path(settings.faces.pack).expanduser())
        source = (
            f"`python -m trainer landmarks` on {len(job.training.photos)} faces, points of "
            f"{'a list' if settings.faces.points else 'the detector ' + base.manifest.detector.sha256[:12]}; on people "
            f"held out {found[EXACT].told()}"
        )
        write = partial(
            exporting.write_landmarks,
            graph=graph,
            margin=settings.faces.margin,
            licence=settings.ship.licence,
            source=source,
        )
        packs.export(export, settings.ship.name, base, "landmarks", write)
        say(f"written and proved against PyTorch: {export}")


TASK = Task(LandmarkSettings, build, finish)
