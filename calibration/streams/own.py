"""The project's own adaptation as a method of the evaluation: the daemon's adapter, driven frame by frame."""

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agent.adaptation.bank import SOURCE, Bank
from agent.adaptation.chip_filter import apply, divide
from agent.adaptation.types import Adapts, Sample
from agent.perception.types import Float32
from agent.perception.vote import softmax
from calibration.baselines.catalogue import MethodError
from calibration.baselines.method import Answer, Chips, Network, Source, embeddings


class Cabinsense:
    """Shows each chip to the adapter once it is answered, and asks for a proposal as often as the daemon's worker does.

    It goes frame by frame: what is accepted answers from the next frame on. What surrounds the adapter in the daemon is
    left out: the quality gate, as every method is to see the same frames, and the triggers, as a stream has one camera
    and no names.

    Attributes:
        notes: decisions of the adapter, counted.
        rises: for each frame, by how much more strictly people are judged; see ``agent.adaptation.rise``.
    """

    def __init__(self, source: Source, adapter: Adapts, every_s: float) -> None:
        """Ask ``adapter`` every so many seconds of the stream."""
        self._network = Network(source.model, source.outputs, source.threads, block=1)
        self._adapter, self._every_s = adapter, every_s
        self._due = every_s
        self._filter: Float32 | None = None
        self._rise = 0.0
        self.notes: Counter[str] = Counter()
        self.rises: list[float] = []

    def step(self, chips: Chips, tracks: NDArray[np.int64], times: NDArray[np.float64]) -> Answer:
        """See ``Method.step``."""
        answers: list[Answer] = []
        for index, (track, at) in enumerate(zip(tracks.tolist(), times.tolist(), strict=True)):
            found = self._network.run(self._filtered(chips[index])[None])
            answers.append((found["emotion"], embeddings(found)))
            self.rises.append(round(self._rise, 5))
            probabilities = tuple(softmax(found["emotion"][0]).tolist())
            self._adapter.observe(Sample(chips[index], probabilities, track, at))
            if at >= self._due:
                self._due = at + self._every_s
                self._decide()
        logits, vectors = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(vectors)

    def _decide(self) -> None:
        proposal = self._adapter.propose()
        if proposal is None:
            return
        self.notes[f"{'accepted' if proposal.accepted else 'refused'}: {proposal.reason}"] += 1
        if proposal.accepted:
            norms, self._filter = divide(proposal.norms)
            self._network.write_norms(norms)
            self._rise = proposal.rise

    def _filtered(self, chip: Chips) -> Chips:
        return chip if self._filter is None else apply(chip, self._filter)


def untaught(bank: Bank, condition: str) -> Bank:
    """The bank without a condition, as if it were one of those that nobody thought of.

    What the classifier says of the others is what it said where it was none of that condition: the quotients of their
    probabilities stay.

    Raises:
        MethodError: the bank has no such condition.
    """
    taught = bank.conditions[1:]
    if condition not in taught:
        raise MethodError(
            f"no condition {condition!r} in the pack's norm bank; there are {', '.join(taught)}"
        )
    number = bank.conditions.index(condition)
    return replace(
        bank,
        conditions=(SOURCE, *(name for name in taught if name != condition)),
        weight=np.delete(bank.weight, number, axis=1),
        bias=np.delete(bank.bias, number),
        rises=np.delete(bank.rises, number),
        norms={name: norms for name, norms in bank.norms.items() if name != condition},
    )
