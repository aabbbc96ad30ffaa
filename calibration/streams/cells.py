"""Run methods over streams. A cell is one method on one stream: a line of JSON, so that an interrupted run goes on.

All methods see a stream side by side, block by block: its chips are made once, and never all at a time.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.perception.types import Float32
from calibration.baselines.method import BLOCK, Method, Network, Source, embeddings
from calibration.material import Progress
from calibration.metrics import Labels
from calibration.streams.faces import Expressions, Faces, People, rendered
from calibration.streams.orders import CLEAN, HALF_HOUR, Stream, plan
from engines.errors import UserError

Floats = NDArray[np.float64]


class Run(Struct, frozen=True):
    """What all cells of a run have in common.

    Attributes:
        task: ``emotion`` or ``identity``.
        split: ``tune`` or ``report``.
        limit: faces of a stream; 0: all.
        pack: digest of the pack.
        batchwise: whether a block counts for its own answers.
    """

    task: str
    split: str
    limit: int
    pack: str
    batchwise: bool = False


class Cell(Struct, frozen=True, kw_only=True):
    """What one method answered on one stream, frame by frame.

    Attributes:
        run: what it was part of.
        stream: which.
        method: its name.
        variant: what else decides the method, such as its settings.
        cut: frames before the clean stretch.
        severities: of each frame, a digit.
        truth: the expression's number; or 1 where the pair shows one person, else 0.
        answers: the expression named; or the cosine to the enrolled face.
        reference: what the frozen source answers to the same faces unspoiled.
        seconds: what the method took.
        notes: what a method has to say of its decisions, counted.
        rises: for each frame, by how much more strictly the method judges people; empty: never.
    """

    run: Run
    stream: Stream
    method: str
    variant: str
    cut: int
    severities: str
    truth: list[int]
    answers: list[float]
    reference: list[float]
    seconds: float
    notes: dict[str, int] = {}
    rises: list[float] = []


class Bench(Protocol):
    """A task: its faces, and what an answer to them is."""

    @property
    def faces(self) -> Faces:
        """What streams are made of."""
        ...

    @property
    def truth(self) -> Labels:
        """Of each face, int64 [n]; see ``Cell.truth``."""
        ...

    @property
    def reference(self) -> Floats:
        """The frozen source's answer to each face unspoiled, float64 [n]."""
        ...

    @property
    def alone(self) -> Sequence[int]:
        """The faces of which one may be shown for half an hour."""
        ...

    def answers(self, items: Sequence[int], logits: Float32, found: Float32) -> list[float]:
        """See ``Cell.answers``."""
        ...


class ExpressionBench:
    """Which expression is it?"""

    def __init__(self, faces: Expressions, source: Source, neutral: int) -> None:
        """Ask the source about the clean faces; ``neutral`` is the number of that expression."""
        self.faces, self.truth = faces, faces.labels
        named = Network(source.model, source.outputs, source.threads).run(faces.clean())["emotion"].argmax(1)
        self.reference: Floats = named.astype(np.float64)
        self.alone = np.flatnonzero((named == faces.labels) & (faces.labels == neutral)).tolist()

    def answers(self, _items: Sequence[int], logits: Float32, _found: Float32) -> list[float]:
        """The expressions named."""
        return [float(label) for label in logits.argmax(1)]


class PeopleBench:
    """Is it the person who was enrolled? The enrolled side is embedded once, clean, by the frozen source."""

    alone: Sequence[int] = ()

    def __init__(self, faces: People, source: Source, show_done: Progress) -> None:
        """Embed both sides of every pair, clean."""
        self.faces = faces
        self.truth: Labels = faces.genuine.astype(np.int64)
        network = Network(source.model, source.outputs, source.threads)
        sides: list[Float32] = []
        for side in (faces.enrolled, lambda item: faces.chip(item, CLEAN, 0, 0, "")):
            rows: list[Float32] = []
            for start in range(0, len(faces.pairs), BLOCK):
                items = range(start, min(start + BLOCK, len(faces.pairs)))
                rows.append(embeddings(network.run(np.stack([side(item) for item in items]))))
                show_done("clean faces", len(sides) * len(faces.pairs) + items.stop, 2 * len(faces.pairs))
            sides.append(np.concatenate(rows))
        self._enrolled = sides[0]
        self.reference: Floats = np.array(self.answers(range(len(faces.pairs)), sides[1], sides[1]))

    def answers(self, items: Sequence[int], _logits: Float32, found: Float32) -> list[float]:
        """The cosines to the enrolled faces."""
        cosines = np.einsum("ij,ij->i", self._enrolled[list(items)], found)
        return [round(float(cosine), 5) for cosine in cosines]


@dataclass(frozen=True)
class Contender:
    """A method by name: how it is made for a seed, and what else decides it."""

    make: Callable[[int], Method]
    variant: str = ""


class ResultsError(UserError):
    """A file of results cannot be read or written; the message names it and the remedy."""


def load(file: Path) -> tuple[list[Cell], int]:
    """The cells in a file of results, none where there is no file; and how many of its lines are no cell.

    Such lines are passed over: one that was cut off, or that another version has written.

    Raises:
        ResultsError: the file cannot be read.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise ResultsError(f"{file}: {error.strerror}; name another folder") from error
    cells, others = [], 0
    for line in filter(None, lines):
        try:
            cell = msgspec.json.decode(line, type=Cell)
        except msgspec.DecodeError:
            others += 1
            continue
        if _is_whole(cell):
            cells.append(cell)
        else:
            others += 1
    return cells, others


def _is_whole(cell: Cell) -> bool:
    """It has every frame's truth, answer and severity."""
    frames = len(cell.answers)
    each = len(cell.truth), len(cell.reference), len(cell.severities)
    rises = len(cell.rises) in {0, frames}
    return (
        each == (frames,) * 3 and rises and 0 < cell.cut <= frames and set(cell.severities) <= set("012345")
    )


def append(file: Path, cell: Cell) -> None:
    """Add a cell to a file of results, in one write: several runs may share one.

    A line of its own, also behind one that was cut off.

    Raises:
        ResultsError: the file cannot be written.
    """
    try:
        with file.open("ab") as results:
            results.write(b"\n" + msgspec.json.encode(cell) + b"\n")
    except OSError as error:
        raise ResultsError(f"{file}: {error.strerror}; what was finished before is in it") from error


def key(cell: Cell) -> tuple[Run, Stream, str, str]:
    """What a cell is the result of."""
    return cell.run, cell.stream, cell.method, cell.variant


def measure(
    run: Run,
    streams: Iterable[Stream],
    contenders: Mapping[str, Contender],
    bench: Bench,
    done: Iterable[Cell],
    show_done: Progress,
) -> Iterator[Cell]:
    """The cells that are not done, stream by stream.

    Args:
        run: what they have in common.
        streams: to be shown.
        contenders: the methods by name.
        bench: the task.
        done: cells of earlier runs.
        show_done: told of frames.
    """
    known = {key(cell) for cell in done}
    for stream in streams:
        missing = {
            name: contender
            for name, contender in contenders.items()
            if (run, stream, name, contender.variant) not in known
        }
        if missing:
            yield from _on_stream(run, stream, missing, bench, show_done)


def _on_stream(
    run: Run, stream: Stream, contenders: Mapping[str, Contender], bench: Bench, show_done: Progress
) -> Iterator[Cell]:
    labels, looks_alone = bench.faces.labels, run.limit or HALF_HOUR
    frames = plan(stream.order, labels, stream.severity, stream.seed, bench.alone, looks_alone)
    methods = {name: contender.make(stream.seed) for name, contender in contenders.items()}
    answers: dict[str, list[float]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    what = f"{stream.order} {stream.shift} {stream.seed}"
    for start in range(0, len(frames), BLOCK):
        block = frames[start : start + BLOCK]
        chips = rendered(bench.faces, block, stream.shift, stream.seed)
        tracks = np.array([frame.track for frame in block], np.int64)
        times = np.array([frame.at for frame in block])
        for name, method in methods.items():
            began = time.perf_counter()
            logits, found = method.step(chips, tracks, times)
            seconds[name] += time.perf_counter() - began
            answers[name] += bench.answers([frame.item for frame in block], logits, found)
        show_done(what, start + len(block), len(frames))
    items = [frame.item for frame in frames]
    for name, method in methods.items():
        yield Cell(
            run=run,
            stream=stream,
            method=name,
            variant=contenders[name].variant,
            cut=sum(frame.part == "stream" for frame in frames),
            severities="".join(str(frame.severity) for frame in frames),
            truth=bench.truth[items].tolist(),
            answers=answers[name],
            reference=bench.reference[items].tolist(),
            seconds=round(seconds[name], 3),
            notes=dict(getattr(method, "notes", {})),
            rises=list(getattr(method, "rises", [])) if run.task == "identity" else [],
        )
