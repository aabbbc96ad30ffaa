"""A gallery of its own for each test, people to put into it, and processes that die while they change it."""

import itertools
import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from agent.gallery.store import Gallery
from agent.gallery.types import Sample
from agent.perception.types import Pose, Quality

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data" / "gallery.db"


@pytest.fixture
def gallery(path) -> Iterator[Gallery]:
    with Gallery.open(path) as opened:
        yield opened


@pytest.fixture
def taken() -> Callable[..., list[Sample]]:
    """Samples of somebody: the same for the same number."""

    def take(seed: int, count: int = 3, dim: int = 128) -> list[Sample]:
        vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        quality = Quality(40.0, 100.0, 120.0, 50.0, Pose(1.0, 2.0, 3.0))
        return [Sample(vector, quality, f"/photos/{seed}.jpg") for vector in vectors]

    return take


@pytest.fixture
def change(path) -> Callable[..., None]:
    """Changes the file as any other program can."""

    def execute(*statements: str) -> None:
        with closing(sqlite3.connect(path)) as raw:
            for statement in statements:
                raw.execute(statement)
            raw.commit()

    return execute


@pytest.fixture
def content() -> Callable[[Gallery, str], object]:
    """All that a gallery gives out, in a form that can be compared."""

    def read(gallery: Gallery, pack: str) -> object:
        snapshot = gallery.snapshot(pack)
        return (
            gallery.people(),
            [gallery.samples(person.name) for person in gallery.people()],
            (snapshot.names, snapshot.skipped, snapshot.calibrated),
            [array.tolist() for array in (snapshot.templates, snapshot.owners, snapshot.anchors)],
        )

    return read


@pytest.fixture
def dying(path) -> Callable[[Callable[[Gallery], object], int], bool]:
    """Runs something on the gallery in a process that is killed at its n-th step; says whether it came to that.

    A step is an SQL statement, or the opening, renaming, linking or removal of a file.
    """

    def run(what: Callable[[Gallery], object], moment: int) -> bool:
        def child() -> None:
            steps = itertools.count(1)

            def step(*_: object) -> None:
                if next(steps) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

            with Gallery.open(path) as gallery:
                gallery._vault.file.db.conn.set_trace_callback(step)
                watched = {"open", "os.rename", "os.link", "os.remove"}
                sys.addaudithook(lambda event, _: step() if event in watched else None)
                what(gallery)

        process = FORK.Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode in {0, -signal.SIGKILL}, "it failed for another reason"
        return process.exitcode != 0

    return run
