"""Which layers suffer from eight bits: one is quantised at a time, all others stay in float.

A layer's harm is what it alone uses up of the gate's limits: 1 means that the gate would just let it pass. Layers of
great harm are worth keeping in FP16.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from msgspec import Struct

from agent.config import Gate as Limits
from calibration.fidelity import Detections
from calibration.gate import FaceReport
from calibration.int8 import layers, restore
from calibration.material import Progress

Passes = Callable[[list[str]], bool]
"""Whether the gate passes with these layers in float."""


class Layer(Struct, frozen=True):
    """One layer: its name in the graph, and its harm."""

    name: str
    harm: float


class Sensitivity(Struct, frozen=True):
    """The layers of both networks, the most harmful first."""

    face: tuple[Layer, ...]
    detector: tuple[Layer, ...]


def rank(
    quantised: onnx.ModelProto, harm: Callable[[onnx.ModelProto], float], what: str, progress: Progress
) -> tuple[Layer, ...]:
    """Measure every layer of a fully quantised model by itself.

    Args:
        quantised: as ``int8.quantise`` makes it.
        harm: of a model.
        what: what progress is called.
        progress: told of each layer.
    """
    names = layers(quantised)
    found = []
    for index, name in enumerate(names):
        alone = restore(quantised, (other for other in names if other != name))
        found.append(Layer(name, harm(alone)))
        progress(what, index + 1, len(names))
    return tuple(sorted(found, key=lambda layer: -layer.harm))


def face_harm(found: FaceReport, limits: Limits) -> float:
    """What a face network uses up of the limits on drift and divergence, whichever is more."""
    return max(found.drift.mean / limits.mean_drift, found.agreement.kl / limits.emotion_kl)


def detector_harm(found: Detections, limits: Limits) -> float:
    """What a detector uses up of the limits on boxes and landmarks, whichever is more."""
    return max((1 - found.iou) / (1 - limits.detection_iou), found.landmark_shift / limits.landmark_shift)


def fewest(ranked: Sequence[Layer], passes: Passes) -> list[str] | None:
    """The fewest of the most harmful layers that must stay in float for the gate to pass; None if all do not suffice.

    Found by halving, so it takes that more layers in float never do harm.

    Args:
        ranked: the most harmful first.
        passes: whether the gate passes with these layers in float.
    """
    names = [layer.name for layer in ranked]
    if not passes(names):
        return None
    low, high = 0, len(names)  # with ``high`` it passes; with fewer than ``low`` it does not
    while low < high:
        middle = (low + high) // 2
        if passes(names[:middle]):
            high = middle
        else:
            low = middle + 1
    return names[:high]


def plot(found: Sensitivity, path: Path) -> None:
    """A picture: the harm of the layers of either network."""
    import matplotlib as mpl  # noqa: PLC0415 # an extra

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    networks = [(name, each) for name, each in (("face", found.face), ("detector", found.detector)) if each]
    figure, axes = plt.subplots(1, len(networks), figsize=(7 * len(networks), 10), squeeze=False)
    for axis, (name, each) in zip(axes[0], networks, strict=True):
        axis.barh([layer.name for layer in each], [100 * layer.harm for layer in each])
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=7)
        axis.set(title=name, xlabel="share of the gate's limit that the layer alone uses up (%)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
