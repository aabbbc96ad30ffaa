"""However the nearest people are found, the answer is the one of a loop over everybody."""

import logging
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.gallery import index
from agent.gallery.index import ROUNDING, Index, ProductIndex, best_index

faiss_index = pytest.importorskip("agent.gallery.faiss_index", reason="FAISS is not installed")

BACKENDS = [ProductIndex, faiss_index.FaissIndex]


def units(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def random(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return units(rng.normal(size=(count, dim)))


def squeezed(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """As the default network's: all cosines are high."""
    return units(1 + 0.4 * rng.normal(size=(count, dim)))


def twins(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """A few faces, each of them many people's."""
    return random(rng, 3, dim)[rng.integers(0, 3, count)]


def all_alike(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Nearer to each other than a byte a number can tell."""
    return units(random(rng, 1, dim) + 1e-4 * rng.normal(size=(count, dim)))


def few_directions(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Whole numbers: cosines tie exactly, and some rows are nothing at all."""
    return units(rng.integers(-1, 2, size=(count, dim)).astype(np.float64))


def uneven(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """One row spoils the range of every column."""
    rows = squeezed(rng, count, dim)
    rows[0] = units(-rows[:1] * rng.normal(size=(1, dim)))
    return rows


KINDS = (random, squeezed, twins, all_alike, few_directions, uneven)


def owners_of(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """Who owns so many rows; nobody has more than ``most``."""
    sizes = rng.integers(1, most + 1, count)
    return np.repeat(np.arange(count), sizes)[:count].astype(np.intp)


def by_loop(
    templates: np.ndarray, owners: np.ndarray, asked: np.ndarray, without: list[int]
) -> dict[int, float]:
    """The cosine of everybody's nearest template."""
    best: dict[int, float] = {}
    for row, owner in zip(templates.astype(np.float64), owners.tolist(), strict=True):
        if owner not in without:
            best[owner] = max(best.get(owner, -np.inf), float(row @ asked.astype(np.float64)))
    return best


def check(found: index.Nearest, best: dict[int, float]) -> None:
    ranked = [*sorted(best.values(), reverse=True), -np.inf, -np.inf]
    assert found.score == pytest.approx(ranked[0], abs=ROUNDING)
    assert found.second == pytest.approx(ranked[1], abs=ROUNDING)
    if not best:
        assert found.person == -1
    elif ranked[0] - ranked[1] > 2 * ROUNDING:
        assert best[found.person] == ranked[0]
    else:  # a tie: either is right
        assert best[found.person] >= ranked[0] - 2 * ROUNDING


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 700),
    dim=st.integers(1, 40),
    most=st.sampled_from([1, 3, 150, 10_000]),
    near=st.booleans(),
)
def test_both_indexes_agree_with_a_loop_over_everybody(backend, kind, seed, count, dim, most, near):
    rng = np.random.default_rng(seed)
    templates, owners = kind(rng, count, dim), owners_of(rng, count, most)
    made: Index = backend(templates, owners)
    for _ in range(3):
        asked = templates[rng.integers(count)] + 0.05 * rng.normal(size=dim) if near else rng.normal(size=dim)
        asked = units(asked[None])[0]
        nobody_else: list[int] = []
        check(made.nearest(asked), by_loop(templates, owners, asked, nobody_else))
        ruled_out = sorted(set(rng.choice(owners, min(count, 3)).tolist()))
        check(made.nearest(asked, ruled_out), by_loop(templates, owners, asked, ruled_out))
        everybody = sorted(set(owners.tolist()))
        check(made.nearest(asked, everybody), {})


def test_faiss_alone_settles_what_is_asked_of_a_gallery_of_ordinary_faces():
    rng = np.random.default_rng(0)
    templates, owners = squeezed(rng, 30_000, 128), owners_of(rng, 30_000, 3)
    product, faiss = ProductIndex(templates, owners), faiss_index.FaissIndex(templates, owners)
    asked = np.concatenate(
        [squeezed(rng, 20, 128), units(templates[:20] + 0.02 * rng.normal(size=(20, 128)))]
    )
    for each in asked:
        found, expected = faiss.nearest(each), product.nearest(each)
        assert found.person == expected.person
        assert (found.score, found.second) == pytest.approx((expected.score, expected.second), abs=1e-6)
    assert faiss.fallbacks == 0


def test_what_a_byte_a_number_cannot_tell_apart_is_left_to_the_product():
    rng = np.random.default_rng(0)
    templates = all_alike(rng, 2000, 128)
    faiss = faiss_index.FaissIndex(templates, np.arange(2000))
    product = ProductIndex(templates, np.arange(2000))
    assert faiss.nearest(templates[1234]) == product.nearest(templates[1234])
    assert faiss.fallbacks == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_asking_twice_gives_the_same_answer_whatever_was_asked_in_between(backend):
    rng = np.random.default_rng(0)
    templates = squeezed(rng, 1000, 16)
    made = backend(templates, np.arange(1000))
    first = made.nearest(templates[7])
    made.nearest(templates[8], [7, 8])
    made.nearest(np.full(16, np.nan, np.float32))
    assert made.nearest(templates[7]) == first


def test_a_small_gallery_gets_the_product_and_a_large_one_faiss(monkeypatch):
    rng = np.random.default_rng(0)
    templates = random(rng, 300, 8)
    assert isinstance(best_index(templates, np.arange(300)), ProductIndex)
    monkeypatch.setattr(index, "PRODUCT_ROWS", 299)
    assert isinstance(best_index(templates, np.arange(300)), faiss_index.FaissIndex)


def test_without_faiss_a_large_gallery_is_matched_all_the_same_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(index, "PRODUCT_ROWS", 299)
    monkeypatch.setitem(sys.modules, "agent.gallery.faiss_index", None)  # importing it fails
    index._say_what_is_missing.cache_clear()
    templates = random(np.random.default_rng(0), 300, 8)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            made = best_index(templates, np.arange(300))
    assert made.nearest(templates[42]).person == 42
    (said,) = (record.getMessage() for record in caplog.records)
    assert "cabinsense[faiss]" in said
