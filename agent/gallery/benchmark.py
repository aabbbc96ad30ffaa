"""Measure how long it takes to find a person among many, beside what the memory allows."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.gallery.index import Index, ProductIndex
from agent.gallery.matcher import Matcher
from agent.gallery.types import Snapshot
from agent.perception.types import Float32

Float64 = NDArray[np.float64]

DIM = 128  # of the default pack's embeddings
SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_ROUND_S = 200e-6  # least time of one measurement: quicker things are done several times
_ASKED = 32  # different embeddings, half of them of people in the gallery
_BLOCK = 65_536  # rows made at a time
_THRESHOLD, _MARGIN = 0.93, 0.005
_SPARE = 256 * 2**20  # bytes of memory that must stay free

# Strangers' cosines as the default pack's on Labeled Faces in the Wild: 0.83 on average, and spread over as many
# directions as 32 equal ones would be (participation ratio of the covariance's eigenvalues).
_MEAN_COSINE, _DECAY = 0.83, 0.94


class Timing(msgspec.Struct, frozen=True):
    """Microseconds of one call: median and quartiles over the rounds."""

    median: float
    low: float
    high: float


class BackendTiming(msgspec.Struct, frozen=True):
    """One backend on one gallery.

    Attributes:
        match: ``match()``, all of it.
        over_product: its time over that of the bare product in the same round: median and quartiles.
        over_read: likewise over one read of the templates.
        fallbacks: share of questions that FAISS could not settle alone, 0 to 1.
        build_s: seconds to make the index.
    """

    match: Timing
    over_product: Timing
    over_read: Timing
    fallbacks: float
    build_s: float


class Row(msgspec.Struct, frozen=True):
    """One size of gallery.

    Attributes:
        templates: how many.
        megabytes: 10⁶ bytes of them.
        read: reading every template once, by the product of the matrix, as one vector, with itself.
        product: the bare product ``templates @ embedding``.
        backends: ``product`` and, where it is installed, ``faiss``.
    """

    templates: int
    megabytes: float
    read: Timing
    product: Timing
    backends: dict[str, BackendTiming]


class GalleryReport(msgspec.Struct, frozen=True):
    """How long matching takes.

    Attributes:
        dim: numbers in an embedding.
        rounds: measurements behind each figure; all subjects are measured in every round, in changing order.
        rows: by size.
        left_out: sizes for which there is not enough memory.
    """

    dim: int
    rounds: int
    rows: tuple[Row, ...]
    left_out: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Subject:
    """Something that is timed, ``times`` calls at once."""

    call: Callable[[Float32], object]
    times: int


def backends() -> dict[str, Callable[[Snapshot], Index]]:
    """How to make each kind of index that can be made here."""
    made: dict[str, Callable[[Snapshot], Index]] = {
        "product": lambda people: ProductIndex(people.templates, people.owners)
    }
    try:
        from agent.gallery.faiss_index import FaissIndex  # noqa: PLC0415  # an extra
    except ImportError:
        return made
    return {**made, "faiss": lambda people: FaissIndex(people.templates, people.owners)}


def measure(sizes: Sequence[int], rounds: int) -> Iterator[Row]:
    """Measure galleries of so many templates, one after the other."""
    rng = np.random.default_rng(0)
    templates = faces(rng, max(sizes))
    for size in sizes:
        yield _row(templates[:size], rounds, rng)


def fitting(sizes: Sequence[int], available: int) -> list[int]:
    """Those of ``sizes`` that can be measured with ``available`` bytes of memory, of which some are left to others."""
    return [size for size in sizes if needed(size) + _SPARE <= available]


def needed(size: int) -> int:
    """Bytes that measuring a gallery of ``size`` templates takes."""
    floats, codes, others = 4 * DIM, DIM, 4 + 8 + 8 + 64  # others: cosine, owner, and a name with its place
    return size * (floats + codes + others) + 4 * _BLOCK * DIM * 4


def faces(rng: np.random.Generator, count: int) -> Float32:
    """Embeddings of ``count`` people, float32 [count, DIM], spread as those of the default pack."""
    scale = _DECAY ** (np.arange(DIM, dtype=np.float32) / 2)
    scale *= np.sqrt((1 - _MEAN_COSINE) / (_MEAN_COSINE * (scale**2).sum()))
    common = np.full(DIM, DIM**-0.5, np.float32)
    made = np.empty((count, DIM), np.float32)
    for start in range(0, count, _BLOCK):
        block = made[start : start + _BLOCK]
        rng.standard_normal(dtype=np.float32, out=block)
        block *= scale
        block += common
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return made


def _row(templates: Float32, rounds: int, rng: np.random.Generator) -> Row:
    count = len(templates)
    people = Snapshot(tuple(map(str, range(count))), templates, np.arange(count))
    flat = templates.reshape(-1)
    subjects: dict[str, Callable[[Float32], object]] = {
        "read": lambda _: np.dot(flat, flat),
        "bare": lambda embedding: templates @ embedding,
    }
    indexes: dict[str, tuple[Index, float]] = {}
    for name, make in backends().items():
        began = time.perf_counter()
        index = make(people)
        indexes[name] = index, time.perf_counter() - began
        subjects[name] = _asker(Matcher(people, index))
    asked = _questions(templates, rng)
    seconds = _time({name: _calibrated(call, asked[0]) for name, call in subjects.items()}, asked, rounds)
    return Row(
        count,
        round(templates.nbytes / 1e6, 3),
        _timing(1e6 * seconds["read"]),
        _timing(1e6 * seconds["bare"]),
        {
            name: BackendTiming(
                _timing(1e6 * seconds[name]),
                _timing(seconds[name] / seconds["bare"]),
                _timing(seconds[name] / seconds["read"]),
                _fallbacks(index, asked),
                round(build_s, 3),
            )
            for name, (index, build_s) in indexes.items()
        },
    )


def _asker(matcher: Matcher) -> Callable[[Float32], object]:
    return lambda embedding: matcher.match(embedding, _THRESHOLD, _MARGIN)


def _questions(templates: Float32, rng: np.random.Generator) -> Float32:
    """Embeddings to ask for: strangers, and people of the gallery as another look might show them."""
    strangers = faces(rng, _ASKED // 2)
    known = templates[rng.integers(0, len(templates), _ASKED // 2)]
    looks = known + np.float32(0.02) * rng.standard_normal(known.shape, np.float32)
    made: Float32 = np.concatenate([strangers, looks / np.linalg.norm(looks, axis=1, keepdims=True)])
    return made


def _calibrated(call: Callable[[Float32], object], embedding: Float32) -> _Subject:
    call(embedding)  # the first call allocates
    began = time.perf_counter()
    call(embedding)
    return _Subject(call, max(1, round(_ROUND_S / (time.perf_counter() - began))))


def _time(subjects: dict[str, _Subject], asked: Float32, rounds: int) -> dict[str, Float64]:
    """Seconds a call of each subject in each round. They take turns, so that a disturbance hits all alike."""
    seconds: dict[str, Float64] = {name: np.empty(rounds, np.float64) for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            subject = subjects[name]
            embeddings = [asked[(number + i) % len(asked)] for i in range(subject.times)]
            began = time.perf_counter()
            for embedding in embeddings:
                subject.call(embedding)
            seconds[name][number] = (time.perf_counter() - began) / subject.times
    return seconds


def _timing(values: Float64) -> Timing:
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Timing(round(median, 3), round(low, 3), round(high, 3))


def _fallbacks(index: Index, asked: Float32) -> float:
    before = index.fallbacks
    for embedding in asked:
        index.nearest(embedding)
    return (index.fallbacks - before) / len(asked)
