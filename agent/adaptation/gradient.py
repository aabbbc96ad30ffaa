"""Adapting any torch module while it runs, by gradient on its norm layers, within limits; torch: extra ``adapt``.

The shape is that of Tent's code (Wang et al., ICLR 2021): configure, collect, step, reset. docs/adaptation.md shows it
on a module of one's own. What a pack's network is for this, and when what was learnt may run, is in
``agent.adaptation.refined``.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from agent.adaptation import losses
from agent.adaptation.network import Norm
from agent.adaptation.relative import unit
from agent.config import GradientSettings

Answer = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Logits, float32 [n, labels], and features, float32 [n, dim] (None without any), of a batch of n chips."""

_NORMS = (Norm, nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def configure(module: nn.Module) -> None:
    """Let norm layers' factors and addends be learnt, and nothing else."""
    module.requires_grad_(False)
    for each in module.modules():
        if isinstance(each, _NORMS):
            each.requires_grad_(True)


def collect(module: nn.Module) -> dict[str, nn.Parameter]:
    """What is to be learnt, by name."""
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


class Learner:
    """Takes steps from where the parameters stood, and never far from there. Not thread-safe; draws nothing at random.

    Lengths of steps and distances are relative to the size of a tensor; see ``agent.adaptation.relative``.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        answer: Answer,
        views: Callable[[Tensor], Sequence[Tensor]],
        settings: GradientSettings,
    ) -> None:
        """Learn ``parameters``, from where they stand.

        Args:
            parameters: as of ``collect``; those of one layer have one prefix, to the last dot.
            answer: the module's answers, by its parameters as they are.
            views: other looks at a batch of chips that show the same, such as their mirror images.
            settings: the losses and limits.
        """
        self._parameters = dict(parameters)
        self._answer, self._views, self._settings = answer, views, settings
        self.begin()

    def begin(self) -> None:
        """From now on, where the parameters stand is the start."""
        self._start = {name: each.detach().clone() for name, each in self._parameters.items()}
        self._unit = {name: unit(name, each) for name, each in self._start.items()}
        self._optimiser: torch.optim.Adam | None = None

    def reset(self) -> None:
        """Back to the start; what was learnt is forgotten."""
        self._write(self._start)
        self._optimiser = None

    def step(self, chips: Tensor) -> dict[str, float]:
        """Descend once on a batch; one that gives no numbers changes nothing.

        Returns:
            ``loss``, and each loss by the name of its weight; ``drift``, see there.
        """
        found = self._losses(chips)
        weighted = [getattr(self._settings, name) * each for name, each in found.items()]
        loss = torch.stack(weighted).sum() if weighted else torch.zeros(())
        figures = {"loss": float(loss.detach())} | {
            name: float(each.detach()) for name, each in found.items()
        }
        if loss.requires_grad and math.isfinite(figures["loss"]):
            self._descend(loss)
        return figures | {"drift": self.drift()}

    @torch.no_grad()
    def drift(self) -> float:
        """How far the tensor is that is farthest from the start: root mean square, relative; see the class."""
        return max((self._distance(name) for name in self._parameters), default=0.0)

    def _losses(self, chips: Tensor) -> dict[str, Tensor]:
        """Those whose weight is not 0, by the name of the weight."""
        settings = self._settings
        known = self._at_the_start(chips) if settings.views or settings.features else None
        logits, features = self._answer(chips)
        found = {}
        if settings.entropy:
            found["entropy"] = losses.sure_entropy(logits, settings.sure)
        if settings.views and known:
            found["views"] = losses.view_consistency(torch.stack([each for each, _ in known]), logits)
        if settings.features and known and features is not None and known[0][1] is not None:
            found["features"] = losses.feature_consistency(known[0][1], features)
        return found

    def _descend(self, loss: Tensor) -> None:
        """One step of Adam, and back to the limits; none where a gradient is no number."""
        gradients = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        by_name = {
            name: each
            for name, each in zip(self._parameters, gradients, strict=True)
            if each is not None  # such as of layers that lead to an output of no loss
        }
        if not all(bool(each.isfinite().all()) for each in by_name.values()):
            return
        if self._optimiser is None:
            self._optimiser = self._adam(by_name)
        for group in self._optimiser.param_groups:
            (parameter,) = group["params"]
            parameter.grad = by_name[group["name"]]
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._pull_back()

    def _adam(self, gradients: Mapping[str, Tensor]) -> torch.optim.Adam:
        """For the layers that the first batch asks to change most, by the gradient relative to the parameters.

        As Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", ICLR 2023 (Auto-RGN).
        """
        asked: dict[str, float] = {}
        for name, each in gradients.items():
            layer = name.rpartition(".")[0]
            asked[layer] = asked.get(layer, 0.0) + float((each * self._unit[name]).square().sum())
        most = set(sorted(asked, key=lambda layer: -asked[layer])[: self._settings.layers])
        groups = [
            {"params": [self._parameters[name]], "name": name, "lr": self._settings.rate * self._unit[name]}
            for name in gradients
            if name.rpartition(".")[0] in most
        ]
        return torch.optim.Adam(groups)

    @torch.no_grad()
    def _pull_back(self) -> None:
        """Nearer to the start by a share, as averages over weights are, and no farther than the limit."""
        for name, parameter in self._parameters.items():
            parameter.lerp_(self._start[name], self._settings.pull)
            distance = self._distance(name)
            if distance > self._settings.drift:
                parameter.lerp_(self._start[name], 1 - self._settings.drift / distance)

    def _distance(self, name: str) -> float:
        away = (self._parameters[name] - self._start[name]).square().mean().sqrt()
        return float(away) / self._unit[name]

    @torch.no_grad()
    def _at_the_start(self, chips: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """The answers to each view by the parameters of the start; the first view are the chips themselves."""
        now = {name: each.detach().clone() for name, each in self._parameters.items()}
        self._write(self._start)
        try:
            return [
                self._answer(view) for view in (chips, *(self._views(chips) if self._settings.views else ()))
            ]
        finally:
            self._write(now)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
