"""LAME: Boudiaf, Mueller, Ben Ayed and Bertinetto, "Parameter-free Online Test-time Adaptation" (CVPR 2022).

The network stays as it is. Its answers to several faces are corrected together: faces with like features are drawn to
like answers. In the paper these faces are a batch; here they are the frame and those before it, so an answer never
depends on the future. It thereby leans on the label staying the same for a while, which is why it shines on sorted
streams.
"""

import math
from collections import deque

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.perception.types import Float32
from agent.perception.vote import softmax
from calibration.baselines.method import Answer, Chips, Network, Source, embeddings

WINDOW = 64
"""Faces corrected together: the paper's batch."""
NEIGHBOURS = 5
"""Of the affinity graph, as in the paper."""
_ROUNDS, _PRECISION = 100, 1e-8  # of the fixed point, as in the paper's experiments

Floats = NDArray[np.floating]


class Lame:
    """Corrects each answer with those before it."""

    def __init__(self, source: Source) -> None:
        self._feature = head_input(source.model)
        outputs = dict.fromkeys((*source.outputs, self._feature))
        self._network = Network(source.model, list(outputs), source.threads)
        self._features: deque[Float32] = deque(maxlen=WINDOW)
        self._probabilities: deque[Floats] = deque(maxlen=WINDOW)

    def step(self, chips: Chips, _tracks: NDArray[np.int64], _times: NDArray[np.float64]) -> Answer:
        """See ``Method.step``."""
        answers = self._network.run(chips)
        corrected = []
        for features, logits in zip(answers[self._feature], answers["emotion"], strict=True):
            self._features.append(features.reshape(-1))
            self._probabilities.append(softmax(logits))
            together = corrected_answers(np.stack(self._probabilities), affinity(np.stack(self._features)))
            corrected.append(np.log(together[-1] + 1e-10))
        return np.array(corrected, np.float32), embeddings(answers)


def affinity(features: Floats, neighbours: int = NEIGHBOURS) -> Floats:
    """Whose features are like whose: 1 from each row to its nearest others by cosine, else 0; float [n, n].

    Args:
        features: float [n, dim].
        neighbours: of each.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    count = min(neighbours, len(features) - 1)
    graph = np.zeros(cosine.shape)
    np.put_along_axis(graph, np.argsort(-cosine, axis=1, kind="stable")[:, :count], 1.0, axis=1)
    return graph


def corrected_answers(probabilities: Floats, graph: Floats) -> Floats:
    """The paper's fixed point z = softmax(log p + W z), from z = p on (its equation 7, with λ = 1); float [n, labels].

    Args:
        probabilities: float [n, labels].
        graph: float [n, n], W.
    """
    unary = np.log(probabilities + 1e-10)
    found, energy = probabilities, math.nan  # nothing is near to that: there are two rounds at least
    for _ in range(_ROUNDS):
        pull = graph @ found
        found = softmax(unary + pull)
        before, energy = energy, float((found * (np.log(found + 1e-20) - unary - pull)).sum())
        if abs(energy - before) <= _PRECISION * abs(before):
            break
    return found


def head_input(model: onnx.ModelProto) -> str:
    """The tensor that the expression head reads."""
    return str(next(node.input[0] for node in model.graph.node if "emotion" in node.output))
