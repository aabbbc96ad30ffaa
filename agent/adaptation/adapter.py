"""From chips to proposals: which condition holds, the norms for it, and whether they may run. See ``Adapts``."""

from collections.abc import Iterable

import numpy as np
import onnx

from agent.adaptation.bank import Bank
from agent.adaptation.chip_filter import adaptable, adapted
from agent.adaptation.evidence import Evidence, distance
from agent.adaptation.guard import Limits, judge
from agent.adaptation.memory import Memory
from agent.adaptation.probe import Probe
from agent.adaptation.types import Norms, Proposal, Sample
from agent.config import AdaptationSettings
from agent.perception.types import Float32
from engines.engine import Engine
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

_HELD_CHIPS, _HELD_S = 12, 60.0  # held aside at most, and for how long: older ones were seen in another light
_ASIDE = 3  # every third chip is held aside: what judges a proposal has not been part of it
# Least change of the shares that is worth a new engine: half the sum of the absolute differences.
_STEP = 0.25


class Adapter:
    """Adapts by conditions: no torch, no gradient, and the expressions it sees do not teach it anything.

    Not thread-safe. The same samples lead to the same proposals.

    Attributes:
        source: all that may be set, as the pack has it.
        held: the chips held aside to judge by.
    """

    def __init__(self, model: onnx.ModelProto, bank: Bank, settings: AdaptationSettings) -> None:
        """Adapt ``model``, for which ``bank`` was made.

        Raises:
            EngineError: the bank's layers are not in the model.
        """
        self._bank = bank
        self.source = adaptable(model)
        self._probe = Probe(model, bank.layers, settings.threads)
        self._engine: Engine = OnnxRuntimeEngine(model, SessionSettings(settings.threads, dims={"N": 1}))
        self.held = Memory(_HELD_CHIPS, _HELD_S)
        self._limits = Limits()
        self._start_over()

    def _start_over(self) -> None:
        self.held.clear()
        self._evidence = Evidence(len(self._bank.conditions))
        self._running = np.eye(len(self._bank.conditions), dtype=np.float32)[0]
        self._refused: Float32 | None = None
        self._count = 0

    def observe(self, sample: Sample) -> None:
        """Take in a chip; see ``take``."""
        self.take(sample)

    def take(self, sample: Sample) -> bool:
        """Take in a chip: some are held aside to judge by (True), the moments of the others are evidence."""
        self._count += 1
        aside = self._count % _ASIDE == 0
        if aside:
            self.held.add(sample)
        else:
            self._evidence.add(self._bank.log_posterior(self._probe.moments(sample.chip)), sample.at)
        return aside

    def propose(self) -> Proposal | None:
        """The norms for the conditions that hold, if they are others than those that run."""
        shares = self._evidence.shares()
        if shares is None:
            return None
        if distance(shares, self._running) < _STEP:
            return self._proposal(True, self._running, "confirmed", self._figures(self._running))
        if self._refused is not None and distance(shares, self._refused) < _STEP:
            return None  # refused before
        figures = self._figures(shares)
        norms = self._norms(shares)
        if norms:
            tracks = len({sample.track for sample in self.held})
            why, judged = judge(self.answers({}), self.answers(norms), tracks, self._limits)
            figures |= judged
            if why:
                if why != "too_few":
                    self._refused = shares
                return self._proposal(False, shares, why, figures)
        self._running, self._refused = shares, None
        return self._proposal(True, shares, "better" if norms else "source", figures)

    def reset(self, reason: str) -> Proposal:
        """Back to the source, and forget what was seen."""
        self._start_over()
        return Proposal(True, {}, f"reset:{reason}", {})

    def _proposal(self, accepted: bool, shares: Float32, reason: str, figures: dict[str, float]) -> Proposal:
        norms = self._norms(shares)
        return Proposal(accepted, norms, reason, figures, self._bank.rise(shares) if norms else 0.0)

    def _norms(self, shares: Float32) -> Norms:
        """Nothing where the source has nearly all."""
        return self._bank.mix(shares, self.source) if shares[0] < 1 - _STEP else {}

    def answers(self, norms: Norms) -> tuple[Float32, Float32]:
        """What the network with these norms makes of the chips held aside."""
        engine = adapted(self._engine, norms) if norms else self._engine
        try:
            embeddings, logits = [], []
            for sample in self.held:
                answers = engine.run({"chip": sample.chip[None]})
                embeddings.append(answers["embedding"][0].copy())
                logits.append(answers["emotion"][0].copy())
        finally:
            if norms:
                engine.close()
        return _stacked(embeddings), _stacked(logits)

    def _figures(self, shares: Float32) -> dict[str, float]:
        named = zip(self._bank.conditions, shares.tolist(), strict=True)
        return {condition: round(share, 4) for condition, share in named}


def _stacked(rows: Iterable[Float32]) -> Float32:
    found = list(rows)
    return np.stack(found) if found else np.empty((0, 0), np.float32)
