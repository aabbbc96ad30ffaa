"""The tier ``gradient``: what the bank proposes, refined by gradient on the chips of this car; with torch."""

import numpy as np
import onnx
import torch
from torch import Tensor

from agent.adaptation.adapter import Adapter
from agent.adaptation.bank import Bank
from agent.adaptation.gradient import Learner, collect, configure
from agent.adaptation.guard import Limits, judge
from agent.adaptation.memory import Memory
from agent.adaptation.network import FaceNetwork, FilteredNetwork
from agent.adaptation.relative import unit
from agent.adaptation.types import Norms, Proposal, Sample
from agent.config import AdaptationSettings

LIMITS = Limits(cosine=0.97, fall=0.25, top_share=0.2, tracks=1, changed=0.35)
"""What is learnt must keep to, beside the mixture: nearer than what the mixture must keep to, for nothing was tried
beforehand. SAR's sign of a collapse is that answers become sure (Niu et al., ICLR 2023); here, surer by so much. They
may become less sure by as much as anywhere: the mean over views is less sure, too."""

_FEWEST = 8  # chips to learn from at least
_SHIFT = 3  # pixels of 150
_WORTH = 0.01  # distance from what runs that is worth a new engine


class Refined:
    """An ``Adapter`` whose mixture is where a ``Learner`` begins. See ``Adapts``.

    Whenever the mixture changes, what was learnt is forgotten and the new mixture runs. Otherwise a few steps are taken
    at each proposal, on chips drawn from the memory; what comes of them runs if the guard allows it beside the source
    and beside the mixture. If it does not, the mixture runs, and nothing is learnt until the memory holds other chips.

    Not thread-safe. The same samples and seed lead to the same proposals.
    """

    def __init__(self, model: onnx.ModelProto, bank: Bank, settings: AdaptationSettings, seed: int) -> None:
        """Adapt ``model``, for which ``bank`` was made.

        Raises:
            EngineError: the bank's layers are not in the model, or torch cannot run it.
        """
        torch.set_num_threads(settings.threads)
        self._mixture = Adapter(model, bank, settings)
        self._settings = settings.gradient
        self._network = FilteredNetwork(FaceNetwork(model))
        configure(self._network)
        self._learner = Learner(collect(self._network), self._answer, _views, settings.gradient)
        self._memory = Memory(settings.gradient.memory, settings.gradient.age_s)
        self._seed = seed
        self._start_over()

    def _start_over(self) -> None:
        self._random = np.random.default_rng(self._seed)
        self._at = self._rests_until = float("-inf")
        self._begin({}, 0.0)

    def _begin(self, norms: Norms, rise: float) -> None:
        """Learn from this mixture on, whose rise is also that of what is learnt: the guard lets it move but little."""
        self._network.write_norms(self._mixture.source | norms)
        self._learner.begin()
        self._memory.clear()  # seen in another light
        self._runs: Norms = norms
        self._mixed = norms
        self._rise = rise

    def observe(self, sample: Sample) -> None:
        """Take in a chip; what the mixture holds aside to judge by is not learnt from."""
        self._at = max(self._at, sample.at)
        if not self._mixture.take(sample) and np.isfinite(sample.probabilities).all():
            self._memory.add(sample)

    def propose(self) -> Proposal | None:
        """The mixture's decision where that changes something; else what was learnt."""
        proposal = self._mixture.propose()
        if proposal is not None and proposal.accepted and proposal.reason != "confirmed":
            self._begin(proposal.norms, proposal.rise)
            return proposal
        if proposal is None or not proposal.accepted:
            return proposal
        if not self._mixed or self._at < self._rests_until or len(self._memory) < _FEWEST:
            return self._proposal("confirmed", proposal.figures)
        return self._refine(proposal.figures)

    def reset(self, reason: str) -> Proposal:
        """Back to the source, and forget what was seen."""
        proposal = self._mixture.reset(reason)
        self._start_over()
        return proposal

    def _refine(self, figures: dict[str, float]) -> Proposal:
        for _ in range(self._settings.steps):
            figures = figures | self._learner.step(self._batch())
        norms = self._network.read_norms()
        if _apart(norms, self._runs or self._mixture.source) < _WORTH:
            return self._proposal("confirmed", figures)
        why, judged = self._judge(norms)
        figures = figures | judged
        if not why:
            self._runs = norms
            return self._proposal("refined", figures)
        self._learner.reset()
        self._rests_until = self._at + self._settings.age_s
        if self._runs is self._mixed:
            return Proposal(False, {}, why, figures)
        self._runs = self._mixed
        return self._proposal(f"rollback:{why}", figures)

    def _proposal(self, reason: str, figures: dict[str, float]) -> Proposal:
        """What runs is accepted."""
        return Proposal(True, self._runs, reason, figures, self._rise)

    def _judge(self, norms: Norms) -> tuple[str, dict[str, float]]:
        """Why these must not run, empty if they may; and the figures beside the mixture."""
        tracks = len({sample.track for sample in self._mixture.held})
        after = self._mixture.answers(norms)
        far, _ = judge(self._mixture.answers({}), after, tracks, Limits())
        why, figures = judge(self._mixture.answers(self._mixed), after, tracks, LIMITS)
        return far or why, figures

    def _batch(self) -> Tensor:
        """Some chips of the memory, uint8 [n, side, side, 3]."""
        held = list(self._memory)
        drawn = self._random.permutation(len(held))[: self._settings.batch]
        return torch.from_numpy(np.stack([held[index].chip for index in drawn]))

    def _answer(self, chips: Tensor) -> tuple[Tensor, Tensor]:
        found = self._network(chips)
        return found["emotion"], found["embedding"]


def _views(chips: Tensor) -> list[Tensor]:
    """The mirror image, and both a little aside, as another detection would cut them out."""
    mirrored = chips.flip(2)
    return [mirrored, chips.roll((_SHIFT, _SHIFT), (1, 2)), mirrored.roll((-_SHIFT, _SHIFT), (1, 2))]


def _apart(one: Norms, other: Norms) -> float:
    """The greatest distance of two arrays of one name, relative to their size, as ``Learner`` has it."""
    return max(
        float(np.sqrt(np.square(value - other[name]).mean())) / unit(name, other[name])
        for name, value in one.items()
    )
