"""Learning by gradient on a module of one's own: nothing but norm layers moves, within limits, and all of it back."""

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from agent.adaptation.gradient import Learner, collect, configure  # noqa: E402
from agent.adaptation.losses import entropy  # noqa: E402
from agent.config import GradientSettings  # noqa: E402

ENTROPY = GradientSettings(entropy=1.0, views=0.0, features=0.0, sure=1.0, rate=0.05, pull=0.0, drift=0.5)


class Small(nn.Module):
    """Two convolutions, each with a norm layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.one, self.two = nn.BatchNorm2d(8), nn.GroupNorm(2, 8)
        self.last = nn.Linear(8, 4)
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.one(self.first(images)))
        features = torch.relu(self.two(self.second(x))).mean((2, 3))
        return self.last(features), features


def images(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def learner(module: Small, settings: GradientSettings) -> Learner:
    configure(module)
    return Learner(collect(module), module, lambda x: [x.flip(3)], settings)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_what_is_collected_is_scale_and_shift_of_norm_layers():
    module = Small()
    configure(module)
    assert set(collect(module)) == {"one.weight", "one.bias", "two.weight", "two.bias"}


def test_steps_make_the_answers_surer_and_change_nothing_else():
    module = Small()
    before, tent = state(module), learner(module, ENTROPY)
    was = entropy(module(images())[0]).mean()
    for _ in range(10):
        tent.step(images())
    assert entropy(module(images())[0]).mean() < was - 0.05
    assert changed(before, state(module)) == {"one.weight", "one.bias", "two.weight", "two.bias"}


def test_a_reset_brings_back_the_start_to_the_last_bit():
    module = Small()
    before, tent = state(module), learner(module, ENTROPY)
    first = [tent.step(images(seed=each))["loss"] for each in range(4)]
    tent.reset()
    assert changed(before, state(module)) == set()
    assert [tent.step(images(seed=each))["loss"] for each in range(4)] == first


def test_a_new_beginning_is_where_the_parameters_stand():
    module = Small()
    tent = learner(module, ENTROPY)
    tent.step(images())
    with torch.no_grad():
        module.one.bias.fill_(0.25)
    before = state(module)
    tent.begin()
    tent.step(images())
    assert tent.drift() > 0
    tent.reset()
    assert changed(before, state(module)) == set()


def test_nothing_goes_farther_from_the_start_than_the_limit_however_long_it_learns():
    module = Small()
    tent = learner(
        module, GradientSettings(entropy=1.0, views=0.0, features=0.0, sure=1.0, rate=0.1, drift=0.03)
    )
    found = [tent.step(images(seed=each))["drift"] for each in range(60)]
    assert max(found) == pytest.approx(0.03, rel=1e-3)


def test_the_pull_to_the_start_keeps_what_is_learnt_nearer():
    def distance(pull: float) -> float:
        module = Small()
        tent = learner(
            module, GradientSettings(entropy=1.0, views=0, features=0, sure=1, pull=pull, drift=1.0)
        )
        return [tent.step(images())["drift"] for _ in range(20)][-1]

    assert 0 < distance(0.3) < distance(0.0)


def test_no_more_layers_change_than_may():
    module = Small()
    before = state(module)
    settings = GradientSettings(entropy=1.0, views=0.0, features=0.0, sure=1.0, layers=1)
    tent = learner(module, settings)
    for each in range(5):
        tent.step(images(seed=each))
    assert len({name.split(".")[0] for name in changed(before, state(module))}) == 1


def test_a_batch_that_gives_no_numbers_changes_nothing():
    module = Small()
    tent = learner(module, ENTROPY)
    tent.step(images())
    before = state(module)
    broken = images()
    broken[2] = math.nan
    assert math.isnan(tent.step(broken)["loss"])
    assert changed(before, state(module)) == set()
    tent.step(images())
    assert all(value.isfinite().all() for value in state(module).values())


def test_the_teacher_stays_where_it_was_so_one_batch_for_ever_leads_to_its_answers_and_no_farther():
    module = Small()
    with torch.no_grad():
        target = torch.stack([module(images())[0], module(images().flip(3))[0]]).softmax(2).mean(0)
    settings = GradientSettings(entropy=0.0, views=1.0, features=0.0, rate=0.02, pull=0.0, drift=1.0)
    pupil = learner(module, settings)
    found = [pupil.step(images())["views"] for _ in range(150)]
    assert found[-1] < 0.2 * found[0]
    with torch.no_grad():
        assert (module(images())[0].softmax(1) - target).abs().max() < 0.02


def test_feature_consistency_holds_the_features_while_the_answers_are_learnt():
    def moved(weight: float) -> float:
        module = Small()
        with torch.no_grad():
            before = module(images())[1]
        tent = learner(
            module, GradientSettings(entropy=1, views=0, features=weight, sure=1, pull=0, drift=1, rate=0.02)
        )
        for _ in range(20):
            tent.step(images())
        with torch.no_grad():
            return float((module(images())[1] - before).norm())

    assert moved(100.0) < 0.5 * moved(0.0)


def test_the_example_in_the_docs_runs():
    text = (Path(__file__).parents[2] / "docs" / "adaptation.md").read_text()
    names: dict = {}
    exec(text.split("```python\n")[1].split("```")[0], names)  # noqa: S102 # our own text
    assert names["figures"].keys() == {"loss", "entropy", "views", "drift"}
    assert names["figures"]["drift"] > 0


def test_without_a_loss_nothing_moves():
    module = Small()
    before = state(module)
    assert learner(module, GradientSettings(entropy=0, views=0, features=0)).step(images())["loss"] == 0
    assert changed(before, state(module)) == set()
