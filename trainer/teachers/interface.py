"""What a teacher is, and what can be set about one."""

from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta
from torch import Tensor

from engines.errors import UserError
from engines.pack import FaceModel
from trainer.common.settings import Count, NotNegative, Positive, Whole

SUMMARY = "summary"
MAP = "map"
LOGITS = "logits"
LAYER = "layer:"
"""What a teacher answers: one vector a face, a feature map, logits of expressions, and inner layers by their names."""

Value = str | int | float | bool


class TeacherError(UserError):
    """A teacher cannot be used; the message names it and the remedy."""


class Tensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an ONNX teacher's answers are called in its graph; of inner tensors, too."""

    summary: str = "embedding"
    map: str = "features"
    logits: str = "emotion"


class TeacherSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One teacher: where it comes from, and how much is made of what it says.

    Attributes:
        name: how the metrics call it.
        source: ``onnx:PACK_OR_FILE``, ``timm:MODEL``, ``torchhub:REPOSITORY_OR_FILE`` (a local copy of a repository
            with a hubconf.py, such as RADIO's, or a TorchScript file), or ``backbone:RUN`` (a run of this trainer, or
            its checkpoint). Those of torchhub are programs: they can do whatever you can.
        weights: file of weights, safetensors or what ``torch.load(weights_only=True)`` reads. A model of timm needs
            one; ``random`` takes it untrained. A repository's model may load its own.
        entry: the function in a repository's hubconf.py.
        arguments: what it is given; RADIO's ``radio_model`` takes ``version``, name or local file of a checkpoint.
        side: of its pictures; 0 is its own, or 224 where it has none.
        mean: of the pixels, 0 to 1, which is subtracted; empty: the source's own.
        deviation: by which is divided then.
        tensors: names of an ONNX teacher's answers.
        summary_weight: lambda of its summary; 0 leaves it out.
        map_weight: gamma of its feature map; 0 leaves it out.
        expression_weight: of the divergence from its logits of expressions; 0 leaves them out.
        distances: weight of the relations of two between its summaries of a batch.
        angles: weight of the relations of three.
        adaptor: how the student's summary is compared with this one's. ``direct``: as it is, with the principal
            components of the teacher's if that is longer; ``linear`` or ``mlp``: through layers that only training has.
        reads: what a linear adaptor or an mlp reads of the student: its summary, or the mean over its map, which leaves
            the summary to others.
        hidden: width of the adaptors' inner layer.
        standardise: bring its answers to mean 0 and one deviation for all channels (PHI-S) first. Logits stay.
        centred: subtract the mean of its summaries in that. Where the summary is an embedding that is compared by its
            own cosines, and the student's is to be, too, leave the mean in: false.
        grid: most cells on a side of its maps; larger ones are averaged down.
    """

    name: Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
    source: str
    weights: str = ""
    entry: str = "radio_model"
    arguments: dict[str, Value] = {}
    side: Whole = 0
    mean: Annotated[tuple[float, ...], Meta(max_length=3)] = ()
    deviation: Annotated[tuple[float, ...], Meta(max_length=3)] = ()
    tensors: Tensors = Tensors()
    summary_weight: NotNegative = 1.0
    map_weight: NotNegative = 0.0
    expression_weight: NotNegative = 0.0
    distances: NotNegative = 0.0
    angles: NotNegative = 0.0
    adaptor: Literal["direct", "linear", "mlp"] = "mlp"
    reads: Literal["summary", "map"] = "summary"
    hidden: Count = 512
    standardise: bool = True
    centred: bool = True
    grid: Count = 16

    @property
    def answers(self) -> tuple[str, ...]:
        """What is wanted of it, inner layers aside."""
        wanted = {
            SUMMARY: self.summary_weight or self.distances or self.angles,
            MAP: self.map_weight,
            LOGITS: self.expression_weight,
        }
        return tuple(name for name, weight in wanted.items() if weight)


class LayerPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An inner layer of the student that is to say, through a 1×1 convolution, what one of a teacher says.

    Attributes:
        teacher: its name.
        theirs: the teacher's layer: a module's dotted name, or a tensor of an ONNX graph.
        ours: the dotted name of a module in the student's backbone.
        weight: of the mean squared error between standardised values.
    """

    teacher: str
    theirs: str
    ours: str
    weight: Positive = 1.0

    @property
    def answer(self) -> str:
        """What the teacher calls it."""
        return LAYER + self.theirs


class Teacher(Protocol):
    """A finished network.

    Attributes:
        side: of its pictures, pixels.
        sha256: of all that its answers depend on.
        face: what its pack says of it; None where it comes from none.
    """

    side: int
    sha256: str
    face: FaceModel | None

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """Its answers for pictures uint8 RGB [n, 3, side, side], float32 on the pictures' device.

        ``summary`` is [n, d], ``map`` and layers are [n, c, h, w], ``logits`` [n, labels].
        """
        ...
