"""What a method of adaptation is to the evaluation, and the one that does nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.perception.types import Float32
from engines.engine import NormParameters
from engines.norms import write_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

BLOCK = 16
"""Frames that are answered together: more would make a method slower to follow, fewer the evaluation slower to run."""
UPDATE = 32
"""Frames from one update of a baseline to the next. The papers have 64 to 200, on streams ten to a hundred times as
long."""

Chips = NDArray[np.uint8]
Answer = tuple[Float32, Float32]
"""Logits float32 [n, labels], and embeddings float32 [n, dim] (dim 0 where only expressions are asked for)."""


class Method(Protocol):
    """Answers frame by frame, and may learn from what it has answered."""

    def step(self, chips: Chips, tracks: NDArray[np.int64], times: NDArray[np.float64]) -> Answer:
        """Answer a block with what was learnt from earlier ones, then learn from it.

        Args:
            chips: uint8 BGR [n, side, side, 3], at most ``BLOCK``.
            tracks: int64 [n].
            times: float64 [n], seconds.
        """
        ...


@dataclass(frozen=True)
class Source:
    """What a method starts from.

    Attributes:
        model: the pack's face network.
        chips: uint8 [n, side, side, 3]: clean faces such as the network was made for, for methods that look at some.
        identity: whether embeddings are asked for; else the trunk behind the expression branch need not run.
        threads: of one run.
        batchwise: let a block count for its own answers, as the papers do: learn from it first. No figure of ours
            comes from that; it shows what the rule of this evaluation costs a method.
    """

    model: onnx.ModelProto
    chips: Chips
    identity: bool = False
    threads: int = 1
    batchwise: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the network that are needed."""
        return ("emotion", "embedding") if self.identity else ("emotion",)


class Network:
    """The face network on ONNX Runtime, with chosen outputs."""

    def __init__(
        self, model: onnx.ModelProto, outputs: Sequence[str], threads: int, block: int = BLOCK
    ) -> None:
        """Load ``model``, to run on so many chips at a time; any of its tensors may be an output."""
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        del cut.graph.output[:]
        cut.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        self._model, self._threads, self._block = cut, threads, block
        self._engine = self._load(cut)

    def run(self, chips: Chips) -> dict[str, Float32]:
        """The outputs for any number of chips; copies."""
        buffer = self._engine.buffer("chip")
        found: list[dict[str, Float32]] = []
        for start in range(0, len(chips), self._block):
            block = chips[start : start + self._block]
            buffer[: len(block)] = block
            found.append({name: value[: len(block)].copy() for name, value in self._engine.run().items()})
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    def write_norms(self, params: NormParameters) -> None:
        """Run with these norm parameters in place of the source's from now on."""
        new = self._load(write_norms(self._model, params))
        self._engine.close()
        self._engine = new

    def _load(self, model: onnx.ModelProto) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(model, SessionSettings(threads=self._threads, dims={"N": self._block}))


def embeddings(answers: dict[str, Float32]) -> Float32:
    """The embeddings among a network's answers; of length 0 where they were not asked for."""
    return answers.get("embedding", np.empty((len(answers["emotion"]), 0), np.float32))


class Frozen:
    """The source model as it is."""

    def __init__(self, source: Source) -> None:
        self._network = Network(source.model, source.outputs, source.threads)

    def step(self, chips: Chips, _tracks: NDArray[np.int64], _times: NDArray[np.float64]) -> Answer:
        """See ``Method.step``."""
        answers = self._network.run(chips)
        return answers["emotion"], embeddings(answers)
