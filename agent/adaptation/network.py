"""A face network as a torch module whose only parameters are its norm parameters; torch comes with the extra ``adapt``.

Norm layers are a factor and an addend for each channel, see ``engines.norms``; what else a pack's graph may be made of
is in ``agent.adaptation.operators``. Other operators are refused by name.
"""

from collections.abc import Callable, Iterable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from agent.adaptation.chip_filter import CHIP_FILTER, SIDE, divide, identity
from agent.adaptation.operators import Operator, build

_NORM = "norm."


class Norm(nn.Module):
    """A norm layer: y = scale · x + shift for each channel, as the graph has it: of maps, or of vectors and tokens.

    Attributes:
        scale: float32 [channels].
        shift: float32 [channels].
        renormalise: what is done to x before: nothing, or such as bringing it to the source's moments.
    """

    def __init__(self, scale: NDArray[np.float32], shift: NDArray[np.float32]) -> None:
        """Take over parameters of the shape in which the graph multiplies them: [1, channels, 1, 1], or [channels]."""
        super().__init__()
        self._shape = scale.shape
        self.scale = nn.Parameter(torch.from_numpy(scale.reshape(-1).copy()))
        self.shift = nn.Parameter(torch.from_numpy(shift.reshape(-1).copy()))
        self.renormalise: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Float32 to the same shape."""
        if self.renormalise is not None:
            x = self.renormalise(x)
        return x * self.scale.reshape(self._shape) + self.shift.reshape(self._shape)


class FaceNetwork(nn.Module):
    """The graph of a face network, from ``chip`` to some of its outputs.

    Attributes:
        norms: the norm layers, by their name in the graph without ``norm.``, in the graph's order.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Iterable[str] = ("embedding", "emotion")) -> None:
        """Take over ``model``'s weights.

        Args:
            model: a pack's face network, float32.
            outputs: what is wanted; what they do not depend on is left out.

        Raises:
            EngineError: the graph has an operator that is not known here.
        """
        super().__init__()
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.outputs = tuple(outputs)
        # Of each step: what is computed, of which values, constants or nothing, and what the outcomes are called.
        self._steps: list[tuple[Operator, tuple[str | Tensor | None, ...], tuple[str, ...]]] = []
        self.norms: dict[str, Norm] = {}
        scaled: dict[str, str] = {}  # product of a norm layer, and what the layer read
        for node in _needed(model.graph, self.outputs):
            factor = next((name for name in node.input if name.startswith(_NORM)), None)
            result = node.output[0]
            if factor is not None and node.op_type == "Mul":
                scaled[result] = next(name for name in node.input if name != factor)
                continue
            if factor is not None and node.op_type == "Add":
                source = next(name for name in node.input if name != factor)
                name = factor.removeprefix(_NORM).removesuffix(".shift")
                norm = Norm(constants[f"{_NORM}{name}.scale"], constants[factor])
                self.norms[name] = norm
                self.add_module(name.replace(".", "_"), norm)
                self._steps.append((norm, (scaled[source],), (result,)))
                continue
            reads = tuple(
                torch.tensor(constants[name]) if name in constants else name or None for name in node.input
            )
            self._steps.append((build(node, model.graph.name), reads, tuple(node.output)))
        last = {
            name: i for i, (_, reads, _) in enumerate(self._steps) for name in reads if isinstance(name, str)
        }
        self._done = [
            [n for n, at in last.items() if at == i and n not in self.outputs]
            for i in range(len(self._steps))
        ]

    def forward(self, chips: Tensor) -> dict[str, Tensor]:
        """The wanted outputs for ``chips``, uint8 BGR [n, side, side, 3]."""
        values = {"chip": chips}
        for (step, reads, results), done in zip(self._steps, self._done, strict=True):
            found = step(*(values[each] if isinstance(each, str) else each for each in reads))
            values.update(zip(results, [found] if isinstance(found, Tensor) else found, strict=True))
            for name in done:
                del values[name]
        return {name: values[name] for name in self.outputs}

    def read_norms(self) -> dict[str, NDArray[np.float32]]:
        """The norm parameters as ``engines.norms.read_norms`` names them; copies."""
        return {
            f"{_NORM}{name}.{kind}": parameter.detach().numpy().copy()
            for name, norm in self.norms.items()
            for kind, parameter in (("scale", norm.scale), ("shift", norm.shift))
        }

    @torch.no_grad()
    def write_norms(self, params: dict[str, NDArray[np.float32]]) -> None:
        """Set norm parameters; those of layers that were left out are passed over."""
        for name, value in params.items():
            layer, _, kind = name.removeprefix(_NORM).rpartition(".")
            if layer in self.norms:
                getattr(self.norms[layer], kind).copy_(torch.tensor(value.reshape(-1)))


class FilteredNetwork(nn.Module):
    """A face network behind a filter, as ``agent.adaptation.chip_filter`` puts one before an engine.

    Attributes:
        network: what reads the filtered chips.
        filter: float32 [SIDE, SIDE].
    """

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network
        self.filter = nn.Parameter(torch.from_numpy(identity().reshape(SIDE, SIDE)))

    def forward(self, chips: Tensor) -> dict[str, Tensor]:
        """The network's outputs for ``chips``, uint8 BGR [n, side, side, 3].

        Unlike the engine's, the filtered chip is not rounded to whole numbers.
        """
        count, height, width, colours = chips.shape
        planes = chips.float().permute(0, 3, 1, 2).reshape(count * colours, 1, height, width)
        around = functional.pad(planes, (SIDE // 2,) * 4, mode="reflect")
        seen = functional.conv2d(around, self.filter[None, None]).clamp(0, 255)
        found: dict[str, Tensor] = self.network(
            seen.reshape(count, colours, height, width).permute(0, 2, 3, 1)
        )
        return found

    @torch.no_grad()
    def restrain(self) -> None:
        """Bring the filter back to one that is alike in all directions and leaves the light as it is.

        Blur and noise come from everywhere, and light is for the first norm layer. Without this, 81 numbers that are
        learnt at once each add to the brightness: nothing came of training under glare and over-exposure.
        """
        turned = [torch.rot90(self.filter, turns) for turns in range(4)]
        mean = torch.stack([*turned, *(each.T for each in turned)]).mean(0)
        mean[SIDE // 2, SIDE // 2] += 1 - mean.sum()
        self.filter.copy_(mean)

    def read_norms(self) -> dict[str, NDArray[np.float32]]:
        """As ``FaceNetwork.read_norms``, with the filter."""
        return self.network.read_norms() | {CHIP_FILTER: self.filter.detach().numpy().reshape(-1).copy()}

    @torch.no_grad()
    def write_norms(self, params: dict[str, NDArray[np.float32]]) -> None:
        """As ``FaceNetwork.write_norms``, and the filter where it is among them."""
        rest, filter_ = divide(params)
        self.network.write_norms(dict(rest))
        if CHIP_FILTER in params:
            filter_ = identity() if filter_ is None else filter_
            self.filter.copy_(torch.tensor(filter_.reshape(SIDE, SIDE)))


def _needed(graph: onnx.GraphProto, outputs: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nodes on which ``outputs`` depend, in the graph's order."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]
