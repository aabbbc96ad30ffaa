"""A worker with a small adapter of its own: it lights up the input as far as the chips are dark. Started by tests.

What is named on the command line goes wrong on purpose.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from agent.adaptation import worker
from agent.adaptation.messages import Beat, frame
from agent.adaptation.types import Norms, Proposal, Sample
from agent.config import AdaptationSettings
from engines.model import read_model
from engines.norms import read_norms

LIGHT = (
    200.0  # mean of a chip that is bright enough: brighter than any, so that there is always something to do
)


class Scaled:
    """Multiplies the scale of the input by what the mean of the newest chips lacks."""

    def __init__(self, face: Path, settings: AdaptationSettings, fault: str) -> None:
        self._norms = read_norms(read_model(face))
        self._keep = 8
        self._fault = fault
        self._means: list[float] = []
        self._decided = False

    def observe(self, sample: Sample) -> None:
        assert sample.chip.shape == (150, 150, 3)
        assert abs(sum(sample.probabilities) - 1) < 1e-4
        self._means = [*self._means, float(sample.chip.mean())][-self._keep :]

    def propose(self) -> Proposal | None:
        if self._fault == "raises":
            raise ArithmeticError("the sum of the angles of a triangle")
        if self._fault == "stands still":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._fault == "never decides":
            time.sleep(1e6)
        if self._fault == "decides once":
            if self._decided:
                return None
            self._decided = True
        if self._fault == "prefers the source":
            return Proposal(True, {}, "better", {})
        gain = round(LIGHT / float(np.mean(self._means)), 3)
        norms: Norms = {"norm.input.scale": self._norms["norm.input.scale"] * np.float32(gain)}
        if self._fault == "not finite":
            norms["norm.input.scale"][0] = np.nan
        elif self._fault == "another size":
            norms["norm.input.scale"] = np.ones(7, np.float32)
        elif self._fault == "unknown name":
            norms = {"norm.elsewhere.scale": np.ones(3, np.float32)}
        elif self._fault == "refuses":
            return Proposal(False, {}, "no_gain", {"gain": gain})
        rise = 0.25 if self._fault == "raises the threshold" else 0.0
        return Proposal(True, norms, "better", {"gain": gain, "chips": float(len(self._means))}, rise)

    def reset(self, reason: str) -> Proposal:
        self._means = []
        return Proposal(True, {}, f"reset:{reason}", {})


def main() -> None:
    fault = sys.argv[1] if len(sys.argv) > 3 else ""
    if fault == "talks nonsense":
        with contextlib.suppress(OSError):
            os.write(int(sys.argv[-2]), b"\x08\0\0\0nonsense" * 100)
        time.sleep(1e6)
    if fault == "talks without end":
        message = frame(Beat(0.0, True))
        with contextlib.suppress(OSError):
            while True:
                os.write(int(sys.argv[-2]), message * 1000)
    if fault == "ends at once":
        raise SystemExit(1)
    worker.main(lambda face, settings, _seed: Scaled(face, settings, fault))


if __name__ == "__main__":
    main()
