"""The norm bank: norm parameters for each condition, and a classifier that tells conditions apart.

For a condition the norm parameters are trained, and a filter before the network, on faces to which it was done at every
severity. The teacher is the network itself on the same faces in good light: its embedding is to be kept (feature
consistency, ‖F_base - F_adapted‖² on vectors of length 1, which is 2 (1 - cos)), and so are its expressions (Hinton et
al., "Distilling the Knowledge in a Neural Network", 2015); where a label is known, it counts as well.

Consistency alone makes people alike: what cannot be seen is answered with the mean of all who might be meant, which is
near to everybody. So in a second part of training a face is also to be told from others by its own clean embedding
(contrast: van den Oord et al., "Representation learning with contrastive predictive coding", 2018), and to be as near
to each of them as it is in good light (relations: Park et al., "Relational knowledge distillation", CVPR 2019). Only
the layers that expressions do not depend on learn then: where all did, expressions lost a third of what they had won.

How far to go to what was learnt is chosen on faces held aside (weights between two models that share a
beginning: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from agent.adaptation.bank import SOURCE, Bank, network_digest
from agent.adaptation.chip_filter import adaptable, adapted
from agent.adaptation.network import FaceNetwork, FilteredNetwork
from agent.adaptation.probe import Probe, front_layers
from agent.adaptation.relative import unit
from agent.adaptation.types import Norms
from agent.perception.types import Float32
from calibration.material import Progress
from calibration.recipe import Recipe
from calibration.rises import rise
from calibration.teacher import Teacher
from engines.norms import read_norms
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings

SIZES = 4
"""Sizes of maps at which the classifier reads one norm layer each, from the picture on (``front_layers``). With the
default pack it named 54 % of single training chips rightly by the input alone, 81 % with the stem, 90 % with the third
layer and 94 % with the fourth."""

_WAYS = (0.0, 0.25, 0.5, 0.75, 1.0)  # from the source (0) to what was learnt (1)
_LEAST_ADDEND = 0.05  # an addend may be nothing, and is still to learn
_JUDGES = 320  # faces held aside that choose among them

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "dark": ("low_light",),
    "bright": ("over_exposure",),
    "glare": ("side_glare",),
    "motion": ("motion_blur",),
    "defocus": ("defocus_blur", "low_resolution"),
    "noise": ("sensor_noise",),
    "mask": ("mask",),
    "glasses": ("glasses",),
}
"""Conditions that a bank has, and the corruptions of which each is made."""


Cost = Callable[[FilteredNetwork, Teacher, NDArray[np.int64], NDArray[np.uint8]], Tensor]
"""What is to become less: of a network, for some faces of a teacher, which have suffered."""


def train_condition(
    model: onnx.ModelProto,
    teacher: Teacher,
    kinds: Sequence[str],
    recipe: Recipe,
    tell: Progress,
    start: Norms | None = None,
) -> Norms:
    """The norm parameters and the filter for a condition; ``start`` takes the place of the first part of training."""
    torch.set_num_threads(recipe.threads)
    rng = np.random.default_rng(recipe.seed)
    learnt, held = teacher.divide(recipe.held)
    norms = start
    if norms is None:
        network = FilteredNetwork(FaceNetwork(model))
        cost = partial(_cost, recipe=recipe)
        _learn(network, learnt, kinds, recipe, recipe.steps, cost, rng, tell)
        norms = _part_of_the_way(network, adaptable(model), held, kinds, recipe, cost, rng)
    return _tell_apart(model, norms, learnt.of_people(), held.of_people(), kinds, recipe, rng, tell)


def _tell_apart(
    model: onnx.ModelProto,
    norms: Norms,
    learnt: Teacher,
    held: Teacher,
    kinds: Sequence[str],
    recipe: Recipe,
    rng: np.random.Generator,
    tell: Progress,
) -> Norms:
    """``norms`` with other values for the layers that embeddings depend on, and expressions do not."""
    network = FilteredNetwork(FaceNetwork(model, ("embedding",)))
    network.write_norms(norms)
    network.filter.requires_grad_(False)
    for name in network.network.norms.keys() & FaceNetwork(model, ("emotion",)).norms.keys():
        network.network.norms[name].requires_grad_(False)
    if not any(each.requires_grad for each in network.parameters()):
        return norms
    cost = partial(_people_cost, recipe=recipe, rng=rng)
    _learn(network, learnt, kinds, recipe, recipe.people_steps, cost, rng, tell)
    return norms | _part_of_the_way(network, norms, held, kinds, recipe, cost, rng)


def _learn(
    network: FilteredNetwork,
    teacher: Teacher,
    kinds: Sequence[str],
    recipe: Recipe,
    steps: int,
    cost: Cost,
    rng: np.random.Generator,
    tell: Progress,
) -> None:
    """Train what may be learnt."""
    optimizer = torch.optim.Adam(_groups(network, recipe))
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=max(2, steps))
    for step in range(steps):
        chosen = teacher.batch(recipe.batch, rng)
        total = cost(network, teacher, chosen, teacher.suffering(chosen, kinds, rng))
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        if network.filter.requires_grad:
            network.restrain()
        schedule.step()
        tell(f"norms for {', '.join(kinds)}", step + 1, steps)


def _groups(network: FilteredNetwork, recipe: Recipe) -> list[dict[str, object]]:
    """What is learnt, each with the length of its steps."""
    groups: list[dict[str, object]] = []
    if network.filter.requires_grad:
        groups.append({"params": [network.filter], "lr": recipe.filter_rate})
    for name, each in network.network.named_parameters():
        if each.requires_grad:
            size = unit(name, each.detach(), _LEAST_ADDEND)
            groups.append({"params": [each], "lr": recipe.learning_rate * size})
    return groups


def _part_of_the_way(
    network: FilteredNetwork,
    source: Norms,
    held: Teacher,
    kinds: Sequence[str],
    recipe: Recipe,
    cost: Cost,
    rng: np.random.Generator,
) -> Norms:
    """Of the ways between ``source`` and what ``network`` has learnt, the one that is best for the faces held aside.

    By what the teacher says, not by the labels: of some hundred faces the few that the network is sure of and wrong
    about would decide.
    """
    learnt = network.read_norms()
    chosen = held.batch(min(_JUDGES, len(held.labels)), rng)
    chips = held.suffering(chosen, kinds, rng)
    taught = replace(held, labels=np.full_like(held.labels, -1))
    # What was not learnt stays what it was to the last bit.
    ways = [
        {name: source[name] + np.float32(way) * (value - source[name]) for name, value in learnt.items()}
        for way in _WAYS
    ]
    pieces = [slice(start, start + recipe.batch) for start in range(0, len(chosen), recipe.batch)]
    costs = []
    for way in ways:
        network.write_norms(way)
        with torch.inference_mode():
            parts = [float(cost(network, taught, chosen[some], chips[some])) for some in pieces]
        costs.append(np.mean(parts))
    return ways[int(np.argmin(costs))]


def _cost(
    network: FilteredNetwork,
    teacher: Teacher,
    chosen: NDArray[np.int64],
    chips: NDArray[np.uint8],
    *,
    recipe: Recipe,
) -> Tensor:
    return loss(
        _answers(network, chips, recipe),
        torch.from_numpy(teacher.embeddings[chosen]),
        torch.from_numpy(teacher.logits[chosen]),
        torch.from_numpy(teacher.labels[chosen]),
        recipe,
    )


def _people_cost(
    network: FilteredNetwork,
    teacher: Teacher,
    chosen: NDArray[np.int64],
    chips: NDArray[np.uint8],
    *,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Tensor:
    others, strangers = teacher.others(chosen, recipe.others, rng)
    return people_loss(
        _answers(network, chips, recipe)["embedding"],
        torch.from_numpy(teacher.embeddings[chosen]),
        torch.from_numpy(others),
        torch.from_numpy(strangers),
        recipe,
    )


def _answers(network: FilteredNetwork, chips: NDArray[np.uint8], recipe: Recipe) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        answers = network(torch.from_numpy(chips))
    return {name: answer.float() for name, answer in answers.items()}


def loss(
    answers: Mapping[str, Tensor], embeddings: Tensor, logits: Tensor, labels: Tensor, recipe: Recipe
) -> Tensor:
    """What answers for suffering faces lack of those in good light; see the module.

    Args:
        answers: ``embedding`` float32 [n, dim] of length 1 and ``emotion`` float32 [n, labels].
        embeddings: the teacher's.
        logits: the teacher's.
        labels: int64 [n], -1 where not known.
        recipe: the weights.
    """
    consistency = (1 - (answers["embedding"] * embeddings).sum(1)).mean()
    taught = functional.kl_div(answers["emotion"].log_softmax(1), logits.softmax(1), reduction="batchmean")
    total = recipe.consistency * consistency + recipe.expression * taught
    known = labels >= 0
    if bool(known.any()):
        total = total + (1 - recipe.expression) * functional.cross_entropy(
            answers["emotion"][known], labels[known]
        )
    return total


def people_loss(
    found: Tensor, embeddings: Tensor, others: Tensor, strangers: Tensor, recipe: Recipe
) -> Tensor:
    """How much worse suffering faces tell people apart than they do in good light; see the module.

    Args:
        found: embeddings of suffering faces, float32 [n, dim] of length 1.
        embeddings: the teacher's of the same faces.
        others: float32 [m, dim], the teacher's of other faces.
        strangers: bool [n, m]: which of them are of other people.
        recipe: the weights.
    """
    own = (found * embeddings).sum(1)
    near, were = found @ others.T, embeddings @ others.T
    rivals = near.masked_fill(~strangers, -torch.inf)
    contrast = functional.cross_entropy(
        torch.cat([own[:, None], rivals], 1) / recipe.temperature, torch.zeros(len(own), dtype=torch.long)
    )
    relations = (near - were).square().mean()
    return recipe.consistency * (1 - own).mean() + recipe.contrast * contrast + recipe.relations * relations


def fit_classifier(
    moments: Float32, conditions: NDArray[np.int64], count: int, penalty: float
) -> tuple[Float32, Float32, Float32, Float32]:
    """Multinomial logistic regression.

    Args:
        moments: float32 [n, features].
        conditions: int64 [n], 0 to ``count`` - 1.
        count: number of conditions.
        penalty: on the sum of the squares of the weights.

    Returns:
        centre and spread [features], weight [features, count] and bias [count], all float32.
    """
    centre = moments.mean(axis=0)
    spread = moments.std(axis=0) + np.float32(1e-6)
    features, truth = torch.from_numpy((moments - centre) / spread), torch.from_numpy(conditions)
    weight = torch.zeros(moments.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=400)

    def closure() -> Tensor:
        optimizer.zero_grad()
        cost = functional.cross_entropy(features @ weight + bias, truth) + penalty * (weight * weight).sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return centre, spread, weight.detach().numpy(), bias.detach().numpy()


def make_bank(
    model: onnx.ModelProto,
    teacher: Teacher,
    norms: Mapping[str, Norms],
    recipe: Recipe,
    tell: Progress,
) -> Bank:
    """A bank of trained norms, with a classifier for just these conditions."""
    rng = np.random.default_rng([recipe.seed, 1])
    layers = front_layers(model, SIZES)
    probe = Probe(model, layers, recipe.threads)
    found, truth = [], []
    for number, condition in enumerate((SOURCE, *norms)):
        kinds = CONDITIONS[condition] if number else ()
        chosen = rng.permutation(len(teacher.chips))[: recipe.samples]
        for chip in teacher.suffering(chosen, kinds, rng):
            found.append(probe.moments(chip))
            truth.append(number)
            tell("moments", len(truth), (len(norms) + 1) * len(chosen))
    classifier = fit_classifier(np.stack(found), np.array(truth), len(norms) + 1, recipe.penalty)
    rises = measure_rises(model, teacher, norms, recipe, tell)
    return Bank(network_digest(read_norms(model)), (SOURCE, *norms), layers, *classifier, norms, rises)


def measure_rises(
    model: onnx.ModelProto, teacher: Teacher, norms: Mapping[str, Norms], recipe: Recipe, tell: Progress
) -> Float32:
    """Float32 [1 + conditions]: the rise of each condition, 0 for the source; see ``calibration.rises``.

    Every face whose person is known is spoiled once, at a random severity.
    """
    rng = np.random.default_rng([recipe.seed, 2])
    known = np.flatnonzero(teacher.people >= 0)
    people, clean = teacher.people[known], teacher.embeddings[known]
    source = OnnxRuntimeEngine(model, SessionSettings(recipe.threads, dims={"N": 1}))
    rises = [0.0]
    for condition, learnt in norms.items():
        engine = adapted(source, learnt)
        probes = []
        for index in known:
            chip = teacher.suffering(np.array([index]), CONDITIONS[condition], rng)
            probes.append(engine.run({"chip": chip})["embedding"][0].copy())
            tell("strangers", (len(rises) - 1) * len(known) + len(probes), len(norms) * len(known))
        engine.close()
        rises.append(rise(np.stack(probes), clean, people, clean, people))
    source.close()
    return np.array(rises, np.float32)


def save(path: Path, norms: Norms) -> None:
    """Keep the norms of a condition that is done."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, **norms)
    partial.replace(path)


def load(path: Path) -> Norms:
    """Norms that were saved."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
