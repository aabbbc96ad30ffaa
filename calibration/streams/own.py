"""The project's own adaptation as a method of the evaluation: the daemon's adapter, driven frame by frame."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from agent.adaptation.types import Adapts, Sample
from calibration.baselines.lame import softmax
from calibration.baselines.method import Answer, Chips, Network, Source, embeddings


class Cabinsense:
    """Shows each answered chip to the adapter and asks it for a proposal after every block, about every three seconds.

    What surrounds the adapter in the daemon is left out: the quality gate, as every method is to see the same frames,
    and the triggers, as a stream has one camera and no names.

    Attributes:
        notes: decisions of the adapter, counted.
    """

    def __init__(self, source: Source, adapter: Adapts) -> None:
        self._network = Network(source.model, source.outputs, source.threads)
        self._adapter = adapter
        self.notes: Counter[str] = Counter()

    def step(self, chips: Chips, tracks: NDArray[np.int64], times: NDArray[np.float64]) -> Answer:
        """See ``Method.step``."""
        answers = self._network.run(chips)
        probabilities = softmax(answers["emotion"]).tolist()
        for chip, each, track, at in zip(chips, probabilities, tracks.tolist(), times.tolist(), strict=True):
            self._adapter.observe(Sample(chip, tuple(each), track, at))
        proposal = self._adapter.propose()
        if proposal is not None:
            self.notes[f"{'accepted' if proposal.accepted else 'refused'}: {proposal.reason}"] += 1
            if proposal.accepted:
                self._network.write_norms(proposal.norms)
        return answers["emotion"], embeddings(answers)
