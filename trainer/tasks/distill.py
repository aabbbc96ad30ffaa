"""The task ``distill``: one small student of several finished networks at once.

Summaries and maps after AM-RADIO (Ranzinger et al., CVPR 2024), through an adaptor for each teacher, all teachers
standardised (PHI-S); precomputed features of both flips, a copied last layer and inner layers that are reconstructed
after the recipe that distils ResNet100 into ResNet50. The student has both heads of a pack: embedding and expression.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.fer2013 import LABELS
from calibration.plots import confusion
from trainer.backbones.count import parameters
from trainer.common.distributed import World, wait
from trainer.common.feed import Feed, share_of
from trainer.common.job import Advance, Batch, Say, Task
from trainer.common.settings import Count, NotNegative, Positive, Whole
from trainer.data.augment import Augmentation, augment
from trainer.data.fer import FerPictures
from trainer.data.reading import Pictures, load
from trainer.data.samplers import Shuffled
from trainer.losses.standardise import Moments
from trainer.metrics import Metrics
from trainer.tasks import expressions, face_job, people
from trainer.tasks.beginning import copy_last, freeze, start_at
from trainer.tasks.face_job import FaceJob, FaceSettings
from trainer.tasks.identity_head import HeadSettings, IdentityHead
from trainer.tasks.people import Part, People, PeopleSettings
from trainer.tasks.student import Student, Weights
from trainer.teachers.interface import LOGITS, SUMMARY, LayerPair, TeacherSettings
from trainer.teachers.kept import at_side
from trainer.teachers.panel import KeptPanel, Panel, answers_of, fitted, key, taken_in
from trainer.teachers.sources import open_teacher

PACK = "~/.local/share/cabinsense/packs/default"
_FIT_BATCH = 32


class DistillSettings(FaceSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer distill`` makes.

    Attributes:
        dim: length of the student's embedding.
        teachers: whom it learns from, ``[[teachers]]``; see ``trainer/teachers/interface.py``. None, and an
            ``identity_weight``, make the same student of names alone, to compare with.
        layers: inner layers to reconstruct, ``[[layers]]``; see there, too.
        copied: name of a teacher ``backbone:`` whose last layer is the student's at the start: both are of one backbone
            and end in the same shape. The student then learns the teacher's own values: ``adaptor = "direct"``,
            ``standardise = false``.
        frozen: parts of the student whose parameters stay as they are, by the beginning of their names:
            ``backbone.head``. Batch norms in them still take moments from the batches.
        cache: folder for the teachers' features of all faces and their mirror images, computed once; it may be deleted
            at any time. An embedding is biometric: the files are yours alone. Empty: nothing is kept, and the teachers
            see in every step the very variants that the student sees, which takes as long as they take.
        fit_faces: faces on which the teachers are standardised.
        identity_weight: of the softmax over identities beside the teachers.
        head: how identities are told apart there.
        fer2013: faces with expressions, ``.npz`` or ``.csv``; they have no names, and the teachers need none.
        fer_faces: of its training split, spread over it; 0 takes all.
        fer_batch: of them in a step, over all processes, beside ``batch`` faces of people; 0 leaves them out.
        label_weight: of the cross-entropy to their labels, beside what teachers say of expressions.
        temperature: of the divergence between logits of expressions.
        judged_expressions: of the validation split, at an evaluation; behind the last step it is all of it.
    """

    dim: Count = 64
    teachers: tuple[TeacherSettings, ...] = (
        TeacherSettings(
            name="pack",
            source=f"onnx:{PACK}",
            adaptor="direct",
            centred=False,
            summary_weight=10.0,
            expression_weight=1.0,
        ),
    )
    layers: tuple[LayerPair, ...] = ()
    copied: str = ""
    frozen: tuple[str, ...] = ()
    cache: str = "runs/features"
    fit_faces: Annotated[int, Meta(ge=2)] = 2048
    identity_weight: NotNegative = 0.0
    head: HeadSettings = HeadSettings(scale=24.0, margin=0.3)
    fer2013: str = "../shared/data/fer2013.npz"
    fer_faces: Whole = 0
    fer_batch: Whole = 16
    label_weight: NotNegative = 0.5
    temperature: Positive = 2.0
    judged_expressions: Count = 500
    people: PeopleSettings = PeopleSettings(least=1)
    augment: Augmentation = Augmentation(yaw=8.0, pitch=5.0, roll=5.0, erase=0.1)


class DistillJob(FaceJob):
    """A student, its teachers, and the faces that all of them see."""

    settings: DistillSettings
    module: Student

    def __init__(
        self,
        settings: DistillSettings,
        world: World,
        seen: People,
        judged: People,
        panel: Panel,
        advance: Advance,
    ) -> None:
        """Build the student.

        Args:
            settings: of the run.
            world: this process.
            seen: faces of the largest side that anybody sees.
            judged: the same ones, of the student's side.
            panel: the teachers.
            advance: told of their progress.

        Raises:
            ConfigError: the settings contradict each other.
            UserError: what a part of them cannot do.
        """
        self.panel, self._advance = panel, advance
        numbered = people.numbered(seen)
        digests = panel.digests()
        self._fer: Part | None = None
        self._known: NDArray[np.int64] = np.empty(0, np.int64)
        if settings.fer_batch:
            fer = FerPictures(Path(settings.fer2013).expanduser(), "train", panel.side, seen.template)
            chosen = _spread(len(fer.labels), settings.fer_faces)
            self._fer = Part(fer, chosen, np.arange(len(chosen), dtype=np.int64))
            self._known = fer.labels[chosen]
            digests["fer2013_sha256"] = fer.digest()
        self._digests = seen.digest, digests.get("fer2013_sha256", "")
        # The feed of the parent reads the faces that everybody sees; the pairs judge with those of the student's side.
        super().__init__(settings, world, numbered, digests)
        self.people = replace(judged, training=numbered.training)
        self.elsewhere |= {"cache", "fer2013", "teachers"}
        self.identity = {
            **self.identity,
            "features": "kept" if settings.cache else "new in each step",
            "teachers": panel.what_counts(),
        }
        self._classes = torch.from_numpy(seen.training.labels)
        head = None
        if settings.identity_weight:
            head = IdentityHead(settings.head, seen.classes, settings.dim, settings.seed, world)
        if settings.copied:
            copy_last(self.backbone, settings.copied, settings.teachers)
        weights = Weights(
            settings.identity_weight,
            settings.label_weight if settings.fer_batch else 0.0,
            settings.temperature,
        )
        student = Student(
            self.backbone, settings.teachers, settings.layers, panel.shapes, head, weights, self.precision
        )
        freeze(student, settings.frozen)
        self.sharded = head.sharded if head is not None else []
        self.train_module(student)
        self._fer_feed: Feed | None = None
        if self._fer is not None:
            sampler = Shuffled(len(self._fer.labels), settings.fer_batch, settings.seed, share_of(world))
            self._fer_feed = Feed(self._fer, sampler, 0, settings.workers, world.device)

    def facts(self) -> list[tuple[str, str]]:
        """The faces, the student and its teachers."""
        extra = [("faces with expressions", f"{len(self._known):,}")] if self._fer is not None else []
        size = parameters(self.module.backbone) + parameters(self.module.expression)
        return [
            *super().facts(),
            *extra,
            ("the student", f"{size:,} parameters, embedding and expressions"),
            *self.panel.facts(),
            ("the teachers' features", self.settings.cache or "made anew in each step"),
        ]

    def example(self) -> Batch:
        """The first pictures, with noise for the teachers' answers."""
        images, items, fer_images, fer_items, _ = next(self._pictures(0))
        pictures = torch.cat([images, fer_images])
        noise = {
            name: torch.randn(len(pictures), *shape, device=self.world.device)
            for name, shape in self.panel.shapes.items()
        }
        return self._batch(at_side(pictures, self.settings.side), items, fer_items, noise)

    def batches(self, interval: int) -> Iterator[Batch]:
        """Variants of faces, and what the teachers make of the faces, or of the very variants."""
        settings, share = self.settings, share_of(self.world)
        # What is read for this draws from PyTorch's generator, which is to be left as it is in a run that goes on, or
        # that finds its features kept.
        with torch.random.fork_rng(devices=[]):
            self._fit()
            if settings.cache:
                _ = self.kept
        for images, items, fer_images, fer_items, draw in self._pictures(interval):
            pictures = torch.cat([images, fer_images])
            mirrored = _coins(
                len(images), len(fer_images), settings.augment.flip, draw, share.ranks, share.rank
            )
            turned = mirrored.to(pictures.device)[:, None, None, None]
            pictures = torch.where(turned, pictures.flip(-1), pictures)
            still = msgspec.structs.replace(settings.augment, flip=0)
            # Both parts of a batch are drawn as one process would draw them, whatever the number of processes.
            faces = augment(pictures[: len(images)], still, draw, share)
            others = augment(pictures[len(images) :], still, draw, share)
            pictures = torch.cat([faces, others])
            answers = (
                self._kept_answers(items, fer_items, mirrored) if settings.cache else self.panel.ask(pictures)
            )
            yield self._batch(at_side(pictures, settings.side), items, fer_items, answers)

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Whatever has a weight."""
        losses: dict[str, Tensor] = module(batch, self.progress(step))
        return losses

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy on the pairs, and on some expressions of the validation split."""
        found = super().evaluate(module)
        if self._fer is not None:
            metrics = self.expressions(module, self.settings.judged_expressions)
            found["expression_accuracy"] = metrics.accuracy
        return found

    def expressions(self, module: nn.Module, limit: int) -> Metrics:
        """How well a module tells at most ``limit`` expressions of the validation split; 0: all of them."""
        assert isinstance(module, Student)  # noqa: S101 - for the type checker
        path = Path(self.settings.fer2013).expanduser()
        faces = FerPictures(path, "validation", self.settings.side, self.people.template)
        chosen = _spread(len(faces.labels), limit)
        part = Part(faces, chosen, faces.labels[chosen])
        return expressions.measured(
            module.backbone, module.expression, part, self.settings.workers, self.precision
        )

    def expression_head(self, module: nn.Module, advance: Advance, say: Say) -> nn.Module:
        """The one that was trained, or, where no teacher and no label has spoken of expressions, a fitted one."""
        assert isinstance(module, Student)  # noqa: S101 - for the type checker
        taught = any(LOGITS in teacher.answers for teacher in self.settings.teachers)
        if taught or (self._fer is not None and self.settings.label_weight):
            return module.expression
        return super().expression_head(module, advance, say)

    @cached_property
    def kept(self) -> tuple[KeptPanel, KeptPanel | None]:
        """The teachers' answers for the faces of people, and for those with expressions."""
        if not self.world.first:
            wait(self.world)  # until the first has written them
        faces = self._keep(self.people.training, "faces", self._digests[0])
        fer = self._keep(self._fer, "fer2013", self._digests[1]) if self._fer is not None else None
        if self.world.first:
            wait(self.world)
        return faces, fer

    def _keep(self, faces: Part, what: str, digest: str) -> KeptPanel:
        settings = self.settings
        root = Path(settings.cache).expanduser()
        return self.panel.keep(
            faces, what, digest, root, settings.people.damaged, settings.workers, self._advance
        )

    def _kept_answers(self, items: Tensor, fer_items: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        faces, fer = self.kept
        count = len(items)
        answers = faces(items.cpu(), mirrored[:count])
        if fer is not None:
            others = fer(fer_items.cpu(), mirrored[count:])
            answers = {name: torch.cat([value, others[name]]) for name, value in answers.items()}
        return {name: value.to(self.world.device) for name, value in answers.items()}

    def _pictures(self, interval: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, torch.Generator]]:
        """Faces and their numbers, faces with expressions and theirs, and where random variants come from."""
        steps = self.course.steps
        none = torch.empty(0, dtype=torch.int64, device=self.world.device)
        others = self._fer_feed.take(interval * steps, steps) if self._fer_feed is not None else None
        for images, items, draw in self.faces(interval):
            fer_images, fer_items = (images[:0], none) if others is None else next(others)
            yield images, items, fer_images, fer_items, draw

    def _batch(
        self, pictures: Tensor, items: Tensor, fer_items: Tensor, answers: Mapping[str, Tensor]
    ) -> Batch:
        """A batch; nobody knows whose the faces with expressions are, nor what the others' expressions are."""
        known = torch.from_numpy(self._known)[fer_items.cpu()]
        device = self.world.device
        return {
            "pictures": pictures,
            "labels": torch.cat([self._classes[items.cpu()], torch.full_like(known, -1)]).to(device),
            "expressions": torch.cat([torch.full((len(items),), -1), known]).to(device),
            **answers,
        }

    def _fit(self) -> None:
        """Standardise the teachers, once in a run: a checkpoint holds how."""
        student = self.module
        if student.fitted:
            return
        found: dict[str, Moments] = {}
        for answers in self._sample():
            found = taken_in(found, answers)
        for teacher in self.panel.settings:
            for answer in answers_of(teacher, self.panel.layers):
                standard = student.standard(teacher, answer)
                if standard is None:
                    continue
                known = found[key(teacher.name, answer)]
                standard.load_state_dict(fitted(teacher, answer, known, len(standard.rotation)).state_dict())
                if answer == SUMMARY and teacher.adaptor == "direct":
                    start_at(student.backbone, standard(known.mean.float().to(self.world.device)[None])[0])
        student.fitted.fill_(1)

    def _sample(self) -> Iterator[dict[str, Tensor]]:
        """The teachers' answers for some of the faces, and for their mirror images where those are kept."""
        settings, faces = self.settings, self.people.training
        chosen = _spread(len(faces.labels), settings.fit_faces)
        batches = [chosen[start : start + _FIT_BATCH].tolist() for start in range(0, len(chosen), _FIT_BATCH)]
        if settings.cache:
            for rows in batches:
                for mirrored in (False, True):
                    yield self.kept[0](torch.tensor(rows), torch.full((len(rows),), mirrored))
            return
        for images, _ in load(Pictures(faces, settings.people.damaged), batches, settings.workers):
            yield self.panel.ask(images)
            self._advance("teachers, to standardise them", len(images), len(chosen))


def build(settings: DistillSettings, world: World, advance: Advance) -> DistillJob:
    """The job; where a teacher's pictures are larger than the student's, faces are cut twice."""
    teachers = {
        each.name: open_teacher(
            each, answers_of(each, settings.layers), max(1, settings.threads), world.device
        )
        for each in settings.teachers
    }
    largest = max([settings.side, *(teacher.side for teacher in teachers.values())])
    seen = people.find(settings.people, largest, settings.workers, world, advance)
    for name, teacher in teachers.items():
        if teacher.face is not None:
            people.check_alignment(f"teacher {name}", teacher.face, seen)
    judged = (
        seen
        if largest == settings.side
        else people.find(settings.people, settings.side, settings.workers, world, advance)
    )
    panel = Panel(settings.teachers, settings.layers, teachers, largest)
    return DistillJob(settings, world, seen, judged, panel, advance)


def finish(
    job: DistillJob, module: nn.Module, out: Path, export: Path | None, advance: Advance, say: Say
) -> None:
    """ROC, confusion of the expressions, and the export."""
    if job.settings.fer_batch:
        metrics = job.expressions(module, 0)
        confusion(metrics.confusion, LABELS, "validation", out / "confusion-validation.png")
        say(f"expressions: {100 * metrics.accuracy:.2f} % on the validation split")
    face_job.finish("distill", job, module, out, export, advance, say)


TASK = Task(DistillSettings, build, finish)


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Numbers of at most ``wanted`` things of ``count``, spread over them; 0 wants all."""
    return np.linspace(0, count - 1, min(wanted or count, count)).astype(np.int64)


def _coins(faces: int, others: int, chance: float, draw: torch.Generator, ranks: int, rank: int) -> Tensor:
    """Which of this process's pictures are mirrored, bool [faces + others]; all processes draw for all."""
    parts = [
        (torch.rand(count * ranks, generator=draw) < chance)[rank * count : (rank + 1) * count]
        for count in (faces, others)
    ]
    return torch.cat(parts)
