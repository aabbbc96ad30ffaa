"""What a student is told by its teachers: summaries, feature maps, embeddings, and a last layer to start from.

Summary and spatial loss are AM-RADIO's (Ranzinger et al., CVPR 2024): several teachers at once, each through an adaptor
of its own, so that the student's features need not be any teacher's. Standardise the teachers first (``standardise``):
otherwise the one with the largest values is heard the most. Teachers' tensors get no gradient.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.precision import wide

COSINE_SHARE = 0.9  # alpha and beta of AM-RADIO's spatial loss
SMOOTH_L1_SHARE = 0.1


class Adaptor(nn.Module):
    """Two linear layers, a LayerNorm and a GELU between them: from the student's features to one teacher's (AM-RADIO).

    One for a teacher's summary and one for its map; only training has them, an export leaves them out.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, outputs)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Summaries float [n, inputs] to [n, outputs], or maps float [n, inputs, h, w] to [n, outputs, h, w]."""
        out: Tensor = self.layers(features.movedim(1, -1)).movedim(-1, 1)
        return out


def summary_loss(
    students: Mapping[str, Tensor], teachers: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """The sum over teachers of lambda (1 - cos), each the mean over the batch.

    Args:
        students: the student's summaries by teacher, adapted, float [n, d of that teacher].
        teachers: theirs, float of the same shapes.
        weights: lambda of each teacher, at least 0.

    Returns:
        float [], 0..2 times the sum of weights.

    Raises:
        ValueError: the three do not name the same teachers, or none.
    """
    names = _names(students, teachers, weights)
    return _total([weights[name] * cosine_distance(students[name], teachers[name]) for name in names])


def spatial_loss(
    students: Mapping[str, Tensor], teachers: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """The sum over teachers of gamma (0.9 (1 - cos) + 0.1 smooth-L1) of maps, each the mean over batch and places.

    Args:
        students: the student's maps by teacher, adapted, float [n, channels of that teacher, h, w].
        teachers: theirs, float [n, channels, h', w'].
        weights: gamma of each teacher, at least 0.

    Returns:
        float [], at least 0.

    Raises:
        ValueError: the three do not name the same teachers, or none.
    """
    names = _names(students, teachers, weights)
    return _total([weights[name] * map_distance(students[name], teachers[name]) for name in names])


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean of 1 - cos along the second axis: float [], 0..2, of float [n, d, ...]."""
    return 1.0 - functional.cosine_similarity(wide(student), wide(teacher.detach()), dim=1).mean()


def map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """0.9 (1 - cos) over channels + 0.1 smooth-L1 (threshold 1) over values, means: float [] of maps [n, c, h, w].

    Maps of different sizes are brought to the smaller height and the smaller width first.
    """
    student, teacher = same_size(wide(student), wide(teacher.detach()))
    near = functional.smooth_l1_loss(student, teacher)
    return COSINE_SHARE * cosine_distance(student, teacher) + SMOOTH_L1_SHARE * near


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps [n, c, h, w] at the smaller of their heights and of their widths, bilinear.

    The larger is made smaller, never the smaller larger, which would add places that say nothing new. The filter widens
    with the factor (antialiasing), so that every place of the larger map counts.
    """
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    first, second = (
        x if x.shape[2:] == size else functional.interpolate(x, size, mode="bilinear", antialias=True)
        for x in (a, b)
    )
    return first, second


def normalised_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between the values of vectors brought to length 1: the MAX7800x recipe's only loss.

    It is (2 - 2 cos) / d: in high dimensions it is small, and its weight or the learning rate has to be large. Of
    feature maps, flattened, it is a reconstruction loss for intermediate features.

    Args:
        student: float [n, ...], any length.
        teacher: float of the same shape; gets no gradient.

    Returns:
        float [], 0..4 / d, d the number of values of a sample.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in shape")
    a, b = (functional.normalize(wide(x).flatten(1), dim=1) for x in (student, teacher.detach()))
    return functional.mse_loss(a, b)


def copy_layer(student: nn.Module, teacher: nn.Module) -> None:
    """Give a layer of the student the teacher's weights, in place: the recipe's copied last layer.

    The student then starts in the teacher's embedding space. Freeze it with ``student.requires_grad_(False)``.

    Raises:
        ValueError: their tensors differ in name or shape.
    """
    ours, theirs = (
        {key: tuple(t.shape) for key, t in layer.state_dict().items()} for layer in (student, teacher)
    )
    if ours != theirs:
        raise ValueError(f"the teacher's layer has {theirs}, the student's {ours}: they must have one shape")
    student.load_state_dict(teacher.state_dict())


def _names(*mappings: Mapping[str, object]) -> list[str]:
    """The names that all mappings share."""
    names = list(mappings[0])
    if not names or any(mapping.keys() != mappings[0].keys() for mapping in mappings):
        raise ValueError(
            f"student, teachers and weights name {[sorted(m) for m in mappings]}: one set is needed"
        )
    return names


def _total(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], start=terms[0])
