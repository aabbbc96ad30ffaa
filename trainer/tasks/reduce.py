"""The task ``reduce``: a shorter embedding from a finished network's, by two layers of 1×1 convolutions behind it.

The recipe of the MAX7800x microcontrollers: the teacher stays as it is; D → D with norm and PReLU, then D → 64 with
norm are trained with sub-centre ArcFace (margin 28.6 degrees, scale 32). The teacher is asked once: training sees its
embeddings alone. The layers begin as the linear map that keeps most of the embeddings, see ``Reducer.begin``.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.layers import convolution
from trainer.common.distributed import World
from trainer.common.feed import share_of
from trainer.common.job import Advance, Batch, Say, Task
from trainer.common.settings import ConfigError, Count, Positive, RunSettings, Share
from trainer.common.stepped import Stepped
from trainer.common.synced_norm import synced
from trainer.data.reading import Source
from trainer.data.samplers import Endless, Shuffled, State, after
from trainer.tasks import people, reduced_pack
from trainer.tasks.identity_head import HeadSettings, IdentityHead
from trainer.tasks.people import People, PeopleSettings
from trainer.tasks.teacher import Teacher, kept, open_teacher
from trainer.tasks.verification import Judgement, judge


class ReduceSettings(RunSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that decides what ``python -m trainer reduce`` makes. Margin and scale are the recipe's.

    Attributes:
        teacher: a pack, whose face network stays as it is.
        dim: length of the new embedding, at most the teacher's.
        centring: how much of the mean over all faces is taken from an embedding at the start.
        head: how identities are told apart in training; 0.499 radians are 28.6 degrees.
        people: the faces.
        keep: folder in which the teacher's embeddings stay, which tell whose faces they are; empty: none.
        name: of the pack that an export makes.
    """

    teacher: str = "~/.local/share/cabinsense/packs/default"
    dim: Count = 64
    centring: Share = 0.5
    head: HeadSettings = HeadSettings(subcentres=3, margin=0.499, margin_from=0.0, scale=32.0)
    people: PeopleSettings = PeopleSettings(least=1)
    keep: str = ""
    name: str = "reduced"
    steps: Count = 300
    batch: Annotated[int, Meta(ge=2)] = 256
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Positive = 1e-3


class Reducer(nn.Module):
    """From the teacher's embedding to a shorter one.

    Attributes:
        first: D → D, with norm and PReLU.
        second: D → the new length, with norm.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = convolution(inputs, inputs)
        self.second = convolution(inputs, outputs, active=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [n, inputs] to [n, outputs], not normalised."""
        out: Tensor = self.second(self.first(embeddings[:, :, None, None]))
        return out.flatten(1)

    @torch.no_grad()
    def begin(self, embeddings: Tensor, centring: float) -> None:
        """Begin as the projection on the directions in which the embeddings are largest.

        The first layer passes everything on, less a share of the mean; the second has the first singular vectors of
        what it passes on. Norms have the moments of what they read, and give it back as it was.

        Args:
            embeddings: float32 [n, inputs], at least ``inputs`` of them.
            centring: the share of the mean, 0 to 1.
        """
        mean = embeddings.mean(0)
        passed = embeddings - centring * mean
        _, _, directions = torch.linalg.svd(passed.double(), full_matrices=False)
        projection = directions[: self.second.get_parameter("norm.weight").numel()].float()
        everything = torch.eye(embeddings.shape[1])
        self.first.get_parameter("conv.weight").copy_(everything[:, :, None, None])
        _give_back(self.first.get_submodule("norm"), embeddings, passed.mean(0))
        self.first.get_parameter("act.weight").fill_(1.0)
        self.second.get_parameter("conv.weight").copy_(projection[:, :, None, None])
        shorter = passed @ projection.T
        _give_back(self.second.get_submodule("norm"), shorter, shorter.mean(0))


def _give_back(norm: nn.Module, values: Tensor, mean: Tensor) -> None:
    """Let a norm that reads these values [n, channels] leave them as they are, but for their ``mean``."""
    assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - for the type checker
    assert norm.running_mean is not None  # noqa: S101
    assert norm.running_var is not None  # noqa: S101
    variance = values.var(0)
    norm.running_mean.copy_(values.mean(0))
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)


class Reduction(nn.Module):
    """Reducer and head."""

    def __init__(self, reducer: Reducer, head: IdentityHead) -> None:
        super().__init__()
        self.reducer = reducer
        self.head = head

    def forward(self, embeddings: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """``Identified``, by name, of the teacher's embeddings [n, D], classes int64 [n], at a place in the run."""
        return self.head.identify(self.reducer(embeddings), labels, progress)._asdict()


class ReduceJob(Stepped):
    """Layers behind a teacher."""

    settings: ReduceSettings
    score = "pair_accuracy"

    def __init__(
        self, settings: ReduceSettings, world: World, faces: People, teacher: Teacher, advance: Advance
    ) -> None:
        super().__init__(settings, world, {"data_sha256": faces.digest, "teacher_sha256": teacher.sha256})
        self.elsewhere |= {"people", "teacher", "keep", "name"}
        self.people, self.teacher = faces, teacher
        self._advance = advance
        head = IdentityHead(settings.head, faces.classes, settings.dim, settings.seed, world)
        self.train_module(synced(Reduction(Reducer(teacher.dim, settings.dim), head), world))
        self.sharded = head.sharded
        self._sampler = Shuffled(
            2 * len(faces.training.labels), settings.batch, settings.seed, share_of(world)
        )

    @cached_property
    def labels(self) -> Tensor:
        """Whose the faces and, behind them, their mirror images are."""
        return torch.from_numpy(np.tile(self.people.training.labels, 2)).to(self.world.device)

    @cached_property
    def embedded(self) -> Tensor:
        """The teacher's embeddings of all faces, and behind them of their mirror images."""
        faces = self.people.training
        both = (self._embeddings(faces, "faces"), self._embeddings(faces, "mirrored faces", mirrored=True))
        return torch.from_numpy(np.concatenate(both)).to(self.world.device)

    @cached_property
    def judged(self) -> NDArray[np.float32]:
        """The teacher's embeddings of the faces that judge."""
        return self._embeddings(self.people.judged, "faces to judge by")

    def _embeddings(self, faces: Source, what: str, *, mirrored: bool = False) -> NDArray[np.float32]:
        keep = self.settings.keep and Path(self.settings.keep).expanduser()
        return kept(
            self.teacher, faces, self.people.digest, keep or None, what, self._advance, mirrored=mirrored
        )

    def begin(self) -> None:
        """The reducer as a projection, and each person's centres near the mean of their reduced faces."""
        assert isinstance(self.module, Reduction)  # noqa: S101 - for the type checker
        self.module.reducer.begin(self.embedded, self.settings.centring)
        with torch.no_grad():
            vectors = functional.normalize(self.module.reducer.eval()(self.embedded), dim=1)
        self.module.head.begin(vectors, self.labels)

    def facts(self) -> list[tuple[str, str]]:
        """The faces and the teacher."""
        return [
            *self.people.facts(),
            ("teacher", f"{self.settings.teacher}, {self.teacher.dim} numbers a face"),
        ]

    def example(self) -> Batch:
        """Noise: the cost is the same, and the teacher need not be asked."""
        count = self.settings.batch // self.world.size
        vectors = functional.normalize(torch.randn(count, self.teacher.dim), dim=1)
        return {
            "embeddings": vectors.to(self.world.device),
            "labels": torch.zeros(count, dtype=torch.int64, device=self.world.device),
        }

    def batches(self, interval: int) -> Iterator[Batch]:
        """Embeddings of faces and mirrored faces, and whose they are."""
        start = after(self._sampler, State(), interval * self.course.steps)
        for chosen in islice(Endless(self._sampler, start), self.course.steps):
            yield {"embeddings": self.embedded[chosen], "labels": self.labels[chosen]}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of the head."""
        losses: dict[str, Tensor] = module(batch["embeddings"], batch["labels"], self.progress(step))
        return losses

    def judge(self, module: nn.Module) -> Judgement:
        """Pairs of people held out, by the shorter embedding."""
        assert isinstance(module, Reduction)  # noqa: S101 - for the type checker
        with torch.inference_mode():
            shorter = module.reducer(torch.from_numpy(self.judged).to(self.world.device))
        return judge(self.people, functional.normalize(shorter, dim=1).cpu().numpy())

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Accuracy on the pairs, and the teacher's own."""
        own = judge(self.people, self.judged)
        return {
            **self.judge(module).figures(),
            **{f"teacher_{name}": value for name, value in own.figures().items()},
        }


def build(settings: ReduceSettings, world: World, advance: Advance) -> ReduceJob:
    """The job, its faces found and cut as the teacher wants them.

    Raises:
        ConfigError: the embedding would not become shorter.
    """
    teacher = open_teacher(settings.teacher, settings.threads)
    if settings.dim > teacher.dim:
        raise ConfigError(f"dim = {settings.dim}, and the teacher's embedding has {teacher.dim} numbers")
    found = people.find(settings.people, teacher.side, settings.workers, world, advance)
    people.check_alignment(f"the teacher {settings.teacher}", teacher.pack.manifest.face, found)
    return ReduceJob(settings, world, found, teacher, advance)


def finish(
    job: ReduceJob, module: nn.Module, out: Path, export: Path | None, _advance: Advance, say: Say
) -> None:
    """The ROC, and a pack with the layers behind the teacher's own."""
    assert isinstance(module, Reduction)  # noqa: S101 - for the type checker
    judgement = job.judge(module)
    judgement.tell(out / "roc.png", say)
    own = judge(job.people, job.judged)
    say(f"the teacher itself: {100 * own.accuracy:.2f} %")
    if export is not None:
        reduced_pack.write(export, job.settings.name, job.teacher.pack, module.reducer.cpu(), judgement)
        say(f"written and proved against PyTorch: {export}")


TASK = Task(ReduceSettings, build, finish)
