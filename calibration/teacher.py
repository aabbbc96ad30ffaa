"""The teacher of a norm bank: the network itself, on faces in good light."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.perception.types import Float32
from calibration.corruptions import SEVERITIES, corrupt
from calibration.material import Progress
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings


@dataclass(frozen=True)
class Teacher:
    """Faces in good light and what the network makes of them.

    Attributes:
        chips: uint8 BGR [n, side, side, 3].
        labels: int64 [n]; -1 where the expression is not known, and those come last.
        people: int64 [n]: whose they are; -1 where that is not known.
        embeddings: float32 [n, dim].
        logits: float32 [n, labels].
        template: float32 [5, 2]: where the landmarks lie in a chip.
    """

    chips: NDArray[np.uint8]
    labels: NDArray[np.int64]
    people: NDArray[np.int64]
    embeddings: Float32
    logits: Float32
    template: Float32

    def divide(self, share: float) -> tuple["Teacher", "Teacher"]:
        """All but the last ``share`` of the faces of known expression, and of the others; and those."""
        known = int((self.labels >= 0).sum())
        ends = round(known * (1 - share)), known + round((len(self.labels) - known) * (1 - share))
        last = np.zeros(len(self.labels), np.bool_)
        last[ends[0] : known] = last[ends[1] :] = True
        return self._some(~last), self._some(last)

    def _some(self, chosen: NDArray[np.bool_]) -> "Teacher":
        return Teacher(
            self.chips[chosen],
            self.labels[chosen],
            self.people[chosen],
            self.embeddings[chosen],
            self.logits[chosen],
            self.template,
        )

    def of_people(self) -> "Teacher":
        """The faces whose people are known, or all where none is; their expressions do not count any more."""
        known = self.people >= 0
        faces = self._some(known) if known.any() else self
        return replace(faces, labels=np.full_like(faces.labels, -1))

    def batch(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Random faces, three in four of known expression where there are such."""
        known = int((self.labels >= 0).sum())
        if known in {0, len(self.labels)}:
            return rng.integers(0, len(self.labels), size)
        first = size * 3 // 4
        return np.concatenate(
            [rng.integers(0, known, first), rng.integers(known, len(self.labels), size - first)]
        )

    def others(
        self, chosen: NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> tuple[Float32, NDArray[np.bool_]]:
        """Embeddings of random faces, float32 [m, dim]; and which are of other people, bool [len(chosen), m].

        Faces whose people are known where there are such, at most ``count``.
        """
        known = np.flatnonzero(self.people >= 0)
        drawn = rng.permutation(known if len(known) else len(self.people))[:count]
        same = (self.people[chosen][:, None] == self.people[drawn]) & (self.people[drawn] >= 0)
        same |= chosen[:, None] == drawn
        return self.embeddings[drawn], ~same

    def suffering(
        self, chosen: NDArray[np.int64], kinds: Sequence[str], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Some of the chips, each with one of the corruptions at a random severity; without kinds as they are."""
        if not kinds:
            return self.chips[chosen]
        return np.stack(
            [
                corrupt(
                    self.chips[index],
                    str(rng.choice(np.array(kinds))),
                    int(rng.choice(SEVERITIES)),
                    int(rng.integers(1 << 30)),
                    landmarks=self.template,
                )
                for index in chosen
            ]
        )


def teach(
    model: onnx.ModelProto,
    chips: NDArray[np.uint8],
    labels: NDArray[np.int64],
    people: NDArray[np.int64],
    template: Float32,
    threads: int,
    tell: Progress,
) -> Teacher:
    """What ``model`` makes of chips in good light; see ``Teacher``."""
    engine = OnnxRuntimeEngine(model, SessionSettings(threads, dims={"N": 1}))
    embeddings, logits = [], []
    for number, chip in enumerate(chips):
        answers = engine.run({"chip": chip[None]})
        embeddings.append(answers["embedding"][0].copy())
        logits.append(answers["emotion"][0].copy())
        tell("clean faces", number + 1, len(chips))
    engine.close()
    return Teacher(chips, labels, people, np.stack(embeddings), np.stack(logits), template)
