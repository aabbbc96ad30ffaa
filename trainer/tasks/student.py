"""A student of several teachers: backbone, expression head, and the adaptors through which it is compared with each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.fer2013 import LABELS
from trainer.backbones import Backbone
from trainer.backbones.heads import ExpressionHead
from trainer.common.job import Batch
from trainer.common.precision import Precision
from trainer.common.settings import ConfigError
from trainer.common.stepped import pixels
from trainer.losses import distil
from trainer.losses.distil import Adaptor
from trainer.losses.processes import gather
from trainer.losses.relational import rkd_angle, rkd_distance
from trainer.losses.standardise import Standardiser
from trainer.tasks.face_job import FaceModule
from trainer.tasks.identity_head import IdentityHead
from trainer.teachers.interface import LOGITS, MAP, SUMMARY, LayerPair, TeacherSettings
from trainer.teachers.panel import answers_of, key

_NONE = -1  # the class of a face whose person or expression is not known


@dataclass(frozen=True)
class Weights:
    """Weights of what does not belong to one teacher."""

    identity: float
    labels: float
    temperature: float


class Student(FaceModule):
    """What is trained; ``backbone`` and ``expression`` are left in the end.

    Attributes:
        standards: how each answer is standardised; fitted before the first step.
        fitted: whether they have been, int64 [].
    """

    fitted: Tensor

    def __init__(
        self,
        backbone: Backbone,
        teachers: Sequence[TeacherSettings],
        layers: Sequence[LayerPair],
        shapes: Mapping[str, tuple[int, ...]],
        head: IdentityHead | None,
        weights: Weights,
        precision: Precision,
    ) -> None:
        """Make the adaptors.

        Args:
            backbone: of the student.
            teachers: their settings.
            layers: to be reconstructed.
            shapes: of each teacher's answers, one face: [d], or [c, h, w].
            head: over identities, where labels take part.
            weights: the rest.
            precision: of the backbone.

        Raises:
            ConfigError: lengths do not fit, or there is nothing to learn.
        """
        super().__init__()
        self.backbone = backbone
        self.expression = ExpressionHead(backbone.channels, len(LABELS))
        if head is not None:
            self.identity = head
        self._teachers, self._layers = tuple(teachers), tuple(layers)
        self._weights, self._precision = weights, precision
        self.standards = nn.ModuleDict()
        self.adaptors = nn.ModuleDict()
        self._seen: dict[str, Tensor] = {}
        for teacher in teachers:
            self._meet(teacher, shapes)
        inside = self._inner_channels()
        for number, pair in enumerate(layers):
            channels = shapes[key(pair.teacher, pair.answer)][0]
            self.standards[_plain(pair.teacher, pair.answer)] = Standardiser(channels)
            self.adaptors[f"layer{number}"] = nn.Conv2d(inside[pair.ours], channels, 1)
        learns = [
            t
            for t in teachers
            if any((t.summary_weight, t.map_weight, t.expression_weight, t.distances, t.angles))
        ]
        if not (learns or layers or head is not None or weights.labels):
            raise ConfigError("all weights are 0: there is nothing to learn")
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))

    def shipped(self) -> tuple[nn.Module, ...]:
        """See ``FaceModule``."""
        return self.backbone, self.expression

    def _meet(self, teacher: TeacherSettings, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make what stands between the student and one teacher."""
        backbone, name = self.backbone, teacher.name
        if SUMMARY in teacher.answers:
            (dim,) = shapes[key(name, SUMMARY)]
            kept = 0
            if teacher.adaptor == "direct" and dim != backbone.width:
                if dim < backbone.width or not teacher.standardise:
                    raise ConfigError(
                        f"teacher {name}: its summary has {dim} numbers, the student's {backbone.width}; set dim to "
                        'that, or adaptor = "mlp"; a longer one is cut to its principal axes if it is standardised'
                    )
                kept = backbone.width
            self.standards[_plain(name, SUMMARY)] = Standardiser(dim, kept)
            reads = backbone.width if teacher.reads == "summary" else backbone.channels
            if teacher.adaptor == "mlp":
                self.adaptors[f"{name}_summary"] = Adaptor(reads, dim, teacher.hidden)
            elif teacher.adaptor == "linear":
                self.adaptors[f"{name}_summary"] = nn.Linear(reads, dim)
        if MAP in teacher.answers:
            channels = shapes[key(name, MAP)][0]
            self.standards[_plain(name, MAP)] = Standardiser(channels)
            self.adaptors[f"{name}_map"] = Adaptor(backbone.channels, channels, teacher.hidden)
        if LOGITS in teacher.answers and shapes[key(name, LOGITS)] != (len(LABELS),):
            raise ConfigError(
                f"teacher {name}: its logits are {shapes[key(name, LOGITS)]}; expressions are {len(LABELS)}"
            )

    def _inner_channels(self) -> dict[str, int]:
        """Listen to the student's inner layers that are wanted; the channels of each."""
        modules = dict(self.backbone.named_modules())
        for pair in self._layers:
            if pair.ours not in modules:
                raise ConfigError(
                    f"layers: the student has no layer {pair.ours!r}; it has {', '.join(list(modules)[1:12])}, …"
                )

            def keep(_layer: nn.Module, _reads: object, out: Tensor, name: str = pair.ours) -> None:
                self._seen[name] = out

            modules[pair.ours].register_forward_hook(keep)
        if not self._layers:
            return {}
        training = self.backbone.training
        with torch.no_grad():
            self.backbone.eval()(torch.zeros(1, 3, self.backbone.side, self.backbone.side))
        self.backbone.train(training)
        flat = [name for name, out in self._seen.items() if out.ndim != 4]
        if flat:
            raise ConfigError(f"layers: what {flat[0]} makes is no map; name a layer of convolutions")
        return {name: out.shape[1] for name, out in self._seen.items()}

    def standard(self, teacher: TeacherSettings, answer: str) -> Standardiser | None:
        """How this answer is standardised; None where it is taken as it is."""
        if answer == LOGITS or not teacher.standardise:
            return None
        layer = self.standards[_plain(teacher.name, answer)]
        assert isinstance(layer, Standardiser)  # noqa: S101 - for the type checker
        return layer

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """All losses with a weight, and their weighted sum as ``loss``.

        Args:
            batch: ``pictures`` uint8 [n, 3, side, side]; ``labels`` and ``expressions`` int64 [n], -1 where not known;
                and the teachers' answers, see ``key``.
            progress: share of the run that is done.
        """
        with self._precision.autocast():
            features = self.backbone(pixels(batch["pictures"]))
            adapted = self._adapted(features.map, features.summary)
            logits = self.expression(features.map).float()
        self._seen.clear()  # what is kept of a step would be copied with the module
        summary = features.summary.float()
        found: dict[str, Tensor] = {}
        weighted: list[Tensor] = []

        def add(name: str, weight: float, value: Tensor) -> None:
            found[name] = value
            weighted.append(weight * value)

        wanted = {
            (teacher.name, answer): self._wanted(teacher, answer, batch[key(teacher.name, answer)])
            for teacher in self._teachers
            for answer in answers_of(teacher, self._layers)
        }
        for teacher in self._teachers:
            name = teacher.name
            if teacher.summary_weight:
                ours = adapted.get(f"{name}_summary", summary)
                loss = distil.cosine_distance(ours, wanted[name, SUMMARY])
                add(f"{name}_summary", teacher.summary_weight, loss)
            if teacher.map_weight:
                loss = distil.map_distance(adapted[f"{name}_map"], wanted[name, MAP])
                add(f"{name}_map", teacher.map_weight, loss)
            if teacher.expression_weight:
                loss = divergence(logits, wanted[name, LOGITS], self._weights.temperature)
                add(f"{name}_expression", teacher.expression_weight, loss)
            if teacher.distances or teacher.angles:
                everybody = functional.normalize(gather(summary), dim=1)
                theirs = functional.normalize(gather(wanted[name, SUMMARY]), dim=1)
                for kind, weight, relation in (
                    ("distances", teacher.distances, rkd_distance),
                    ("angles", teacher.angles, rkd_angle),
                ):
                    if weight:
                        add(f"{name}_{kind}", weight, relation(everybody, theirs))
        for number, pair in enumerate(self._layers):
            ours, theirs = distil.same_size(adapted[f"layer{number}"], wanted[pair.teacher, pair.answer])
            add(f"{pair.teacher}_layer{number}", pair.weight, functional.mse_loss(ours, theirs))
        if self._weights.labels:
            loss = functional.cross_entropy(logits, batch["expressions"], ignore_index=_NONE, reduction="sum")
            known = (batch["expressions"] != _NONE).sum().clamp(min=1)
            add("expressions", self._weights.labels, loss / known)
        if self._weights.identity:
            people = batch["labels"] != _NONE
            add(
                "identity",
                self._weights.identity,
                self.identity(summary[people], batch["labels"][people], progress),
            )
        return {"loss": torch.stack(weighted).sum(), **found}

    def _adapted(self, maps: Tensor, summary: Tensor) -> dict[str, Tensor]:
        """What the adaptors make of the student's features, float32 by the adaptors' names."""
        found = {}
        reads = {
            **{
                f"{t.name}_summary": summary if t.reads == "summary" else maps.mean((2, 3))
                for t in self._teachers
            },
            **{f"{t.name}_map": maps for t in self._teachers},
            **{f"layer{number}": self._seen.get(pair.ours) for number, pair in enumerate(self._layers)},
        }
        for name, adaptor in self.adaptors.items():
            found[name] = adaptor(reads[name]).float()
        return found

    def _wanted(self, teacher: TeacherSettings, answer: str, given: Tensor) -> Tensor:
        standard = self.standard(teacher, answer)
        return given if standard is None else standard(given)


def divergence(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of ``ours`` from ``theirs``, logits [n, labels], softened; mean over the faces.

    Times the square of the temperature, so that gradients keep their size (Hinton et al. 2015).
    """
    log_ours, log_theirs = (functional.log_softmax(each / temperature, dim=1) for each in (ours, theirs))
    loss = functional.kl_div(log_ours, log_theirs, reduction="batchmean", log_target=True)
    return loss * temperature**2


def _plain(teacher: str, answer: str) -> str:
    """A name for a module, which has no dots."""
    return f"{teacher}_{answer}".replace(".", "_")
