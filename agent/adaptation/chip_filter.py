"""A linear filter before the face network, adapted along with its norm parameters.

A norm parameter scales and shifts a channel; it cannot soften a noisy picture or sharpen a blurred one, which is what
noise and defocus ask for. The filter is to the picture what an input normaliser is to its light: it brings the chip
closer to what the network was made for. One for all three colours, so it costs next to nothing.
"""

from collections.abc import Mapping

import cv2
import numpy as np
import onnx

from agent.adaptation.types import Norms
from agent.perception.types import Float32, Image
from engines.buffers import copy_feeds
from engines.engine import Array, Engine, NormParameters, TensorSpec
from engines.norms import read_norms

CHIP_FILTER = "chip.filter"
"""Its name among the norm parameters: float32 [SIDE²], row by row."""
SIDE = 9
"""Width and height, pixels. On a chip of 150 pixels it takes 0.3 ms of an x86 core, and holds a blur of σ 2."""


def identity() -> Float32:
    """The filter that changes nothing, float32 [SIDE²]."""
    filter_ = np.zeros(SIDE * SIDE, np.float32)
    filter_[SIDE * SIDE // 2] = 1
    return filter_


def adaptable(model: onnx.ModelProto) -> Norms:
    """All that adaptation may set, as the source has it: the norm parameters of ``model``, and no filter."""
    return {**read_norms(model), CHIP_FILTER: identity()}


def divide(params: NormParameters) -> tuple[NormParameters, Float32 | None]:
    """Norm parameters of the network, and the filter; None where that changes nothing."""
    filter_ = params.get(CHIP_FILTER)
    rest = {name: value for name, value in params.items() if name != CHIP_FILTER}
    return rest, None if filter_ is None or np.array_equal(filter_, identity()) else filter_


def apply(chip: Image, filter_: Float32, out: Image | None = None) -> Image:
    """``chip`` behind a filter, in ``out`` where that is given.

    Args:
        chip: uint8 BGR [side, side, 3].
        filter_: float32 [SIDE²].
        out: uint8 [side, side, 3], not ``chip``.
    """
    kernel = filter_.reshape(SIDE, SIDE)
    return np.asarray(cv2.filter2D(chip, -1, kernel, dst=out, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def adapted(source: Engine, params: NormParameters) -> Engine:
    """A new engine of the same network with these norm parameters and filter; ``source`` stays as it is.

    Raises:
        ValueError: as ``Engine.with_norms``.
        EngineError: likewise.
    """
    norms, filter_ = divide(params)
    engine = source.with_norms(norms)
    return engine if filter_ is None else FilteredEngine(engine, filter_)


class FilteredEngine:
    """A face engine whose chip goes through a filter first. It owns the engine behind it."""

    def __init__(self, engine: Engine, filter_: Float32) -> None:
        """Filter what ``engine`` reads by ``filter_``, float32 [SIDE²]."""
        self._engine, self._filter = engine, filter_
        self._behind = engine.buffer("chip")
        self._chip = np.zeros_like(self._behind)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See ``Engine``."""
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See ``Engine``."""
        return self._engine.outputs

    def buffer(self, name: str) -> Array:
        """See ``Engine``: the chip as it is, before the filter."""
        return self._chip if name == "chip" else self._engine.buffer(name)

    def run(self, feeds: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """See ``Engine``."""
        others = dict(feeds or {})
        if "chip" in others:
            copy_feeds({"chip": others.pop("chip")}, {"chip": self._chip})
        for chip, behind in zip(self._chip, self._behind, strict=True):
            apply(chip, self._filter, out=behind)
        return self._engine.run(others)

    def with_norms(self, params: NormParameters) -> Engine:
        """See ``Engine``: other norm parameters behind the same filter."""
        return FilteredEngine(self._engine.with_norms(params), self._filter)

    def close(self) -> None:
        """See ``Engine``."""
        self._engine.close()
