"""PHI-S: teachers' features turned and scaled so that every channel has the same spread, without distortion.

Ranzinger et al. 2024, PHI-S: Distribution Balancing for Label-Free Multi-Teacher Distillation: a rotation into the
principal axes, then one by a Hadamard matrix, whose entries are all equally large, so that every new axis carries the
same share of every principal one; then one scale for all. Distances keep their ratios, and what the student learns can
be turned back into the teacher's own space.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Moments:
    """What is known of a teacher's features so far: number, mean float64 [d], sum of outer products about it [d, d]."""

    count: int
    mean: Tensor
    scatter: Tensor


def moments(features: Tensor) -> Moments:
    """The moments of one batch of summaries float [n, d], or of all places of maps float [n, d, h, w]."""
    rows = features.detach().movedim(1, -1).flatten(0, -2).double()
    mean = rows.mean(0)
    centred = rows - mean
    return Moments(len(rows), mean, centred.T @ centred)


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of both together, as if measured at once (Chan et al. 1979); for batches and for processes."""
    count = a.count + b.count
    step = b.mean - a.mean
    scatter = a.scatter + b.scatter + torch.outer(step, step) * (a.count * b.count / count)
    return Moments(count, a.mean + step * (b.count / count), scatter)


class Standardiser(nn.Module):
    """A fitted PHI-S: buffers only, saved with a checkpoint, nothing to train.

    Attributes:
        mean: float32 [d], the features' mean, or zeros where cosines are to stay.
        rotation: float32 [k, d], its rows orthogonal, from features to standardised ones; k is d, or fewer principal
            axes.
        scale: float32 [], the spread about its mean of every channel after the rotation.
    """

    mean: Tensor
    rotation: Tensor
    scale: Tensor

    def __init__(self, dim: int, kept: int = 0) -> None:
        """Of ``dim`` channels, to load a state into; ``fit`` makes a real one. ``kept`` of them are left, 0: all."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("rotation", torch.eye(dim)[: kept or dim])
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise float [n, d] or [n, d, h, w]: fitted data get deviation 1 in all channels, mean 0 if centred."""
        rows = features.movedim(1, -1)
        return ((rows - self.mean) @ self.rotation.T / self.scale).movedim(-1, 1)

    def inverse(self, standardised: Tensor) -> Tensor:
        """The features that ``forward`` makes this of; where axes were left out, the nearest such features."""
        rows = standardised.movedim(1, -1)
        return (rows * self.scale @ self.rotation + self.mean).movedim(-1, 1)


def fit(known: Moments, kept: int = 0, *, centred: bool = True) -> Standardiser:
    """The PHI-S of what was measured.

    Args:
        known: the moments.
        kept: principal axes that are kept, those with the greatest spread; 0 keeps all.
        centred: subtract the mean. Where not, the axes are those about the origin, and cosines stay what they were.

    Raises:
        ValueError: there is no Hadamard matrix here for this dimension, or the features do not vary.
    """
    covariance = known.scatter / known.count
    _, axes = torch.linalg.eigh(covariance if centred else covariance + torch.outer(known.mean, known.mean))
    if kept:
        axes = axes[:, -kept:]  # the greatest come last
    variance = (axes.T @ covariance @ axes).diagonal().clamp_min(0.0).mean()  # rounding can take one below 0
    if not variance > 0.0:
        raise ValueError("the teacher's features do not vary: measure more and different images")
    left = axes.shape[1]
    rotation = hadamard(left).to(axes) / left**0.5 @ axes.T
    out = Standardiser(len(known.mean), left).to(axes.device)
    mean = known.mean if centred else torch.zeros_like(known.mean)
    out.load_state_dict({"mean": mean, "rotation": rotation, "scale": variance.sqrt()})
    return out


def hadamard(n: int) -> Tensor:
    """A matrix of +1 and -1 with orthogonal rows, float64 [n, n].

    Sylvester's doubling of 1, or of one of Paley's matrices of size q + 1 or 2 (q + 1) for a prime q (Paley 1933): 384,
    768, 960, 1152, 1280 and 1792 are among them. Matrices are believed to exist for every multiple of 4; the smallest
    that this does not make is 52.

    Raises:
        ValueError: no such matrix is made here for n.
    """
    core, doublings = n, 0
    while core >= 1:
        made = _paley(core)
        if made is not None:
            double = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
            for _ in range(doublings):
                made = torch.kron(double, made)
            return made
        if core % 2:
            break
        core, doublings = core // 2, doublings + 1
    raise ValueError(
        f"no Hadamard matrix of size {n} is known here: let the adaptor end in another number of channels"
    )


def _paley(n: int) -> Tensor | None:
    """Paley's first or second construction, or the matrix of 1; None where neither fits n."""
    if n == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if n % 4 == 0 and _is_prime(n - 1):  # q = 3 mod 4: I + S, S skew
        jacobsthal = _jacobsthal(n - 1)
        skew = torch.zeros(n, n, dtype=torch.float64)
        skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1.0, -1.0, jacobsthal
        return skew + torch.eye(n, dtype=torch.float64)
    if n % 4 == 0 and n % 8 and _is_prime(n // 2 - 1):  # q = 1 mod 4: from a symmetric conference matrix
        half = n // 2
        conference = torch.zeros(half, half, dtype=torch.float64)
        conference[0, 1:], conference[1:, 0], conference[1:, 1:] = 1.0, 1.0, _jacobsthal(half - 1)
        off = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        diagonal = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(conference, off) + torch.kron(torch.eye(half, dtype=torch.float64), diagonal)
    return None


def _jacobsthal(q: int) -> Tensor:
    """Whether i - j is a square modulo the prime q: 1, or -1 where not, 0 where it is 0; float64 [q, q]."""
    character = torch.full((q,), -1.0, dtype=torch.float64)
    character[torch.arange(1, q) ** 2 % q] = 1.0
    character[0] = 0.0
    places = torch.arange(q)
    return character[(places[:, None] - places[None, :]) % q]


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % factor for factor in range(2, int(n**0.5) + 1))
