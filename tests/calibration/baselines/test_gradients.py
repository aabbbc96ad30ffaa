"""The published methods do what their papers say: on tiny cases by hand, and on a network of three layers."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from agent.adaptation.losses import entropy  # noqa: E402
from agent.adaptation.network import FaceNetwork  # noqa: E402
from calibration.baselines import eata, rotta, sar  # noqa: E402
from calibration.baselines.catalogue import BASELINES, Catalogue  # noqa: E402
from calibration.baselines.method import BLOCK, UPDATE, Source  # noqa: E402
from calibration.baselines.statistics import (  # noqa: E402
    Adaptable,
    BatchNormStatistics,
    Statistics,
    moments,
    source_moments,
)
from calibration.baselines.tent import Tent  # noqa: E402

NOWHERE = np.zeros(BLOCK, np.int64), np.zeros(BLOCK)


def chips(count: int, low: int = 0, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (count, 24, 24, 3), np.uint8)


@pytest.fixture
def source(small):
    return Source(small, chips(64))


@pytest.fixture
def known(source):
    return source_moments(source)


def test_moments_are_those_of_all_pixels_of_a_channel():
    x = torch.tensor([[[[1.0, 3.0]], [[10.0, 10.0]]], [[[5.0, 7.0]], [[10.0, 14.0]]]])
    mean, variance = moments(x, torch.tensor([2.0, 9.0]))
    assert mean.tolist() == [4.0, 11.0]
    assert variance.tolist() == [5.0, 3.0]


def test_a_layer_goes_by_the_sources_moments_and_on_a_batch_by_its_own():
    layer = Statistics((torch.tensor([1.0]), torch.tensor([4.0])))
    x = 30 + 5 * torch.randn(8, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(x), (x - 1) / 2, atol=1e-4)  # nothing has been held yet
    layer.share = 1.0
    y = layer(x)
    assert y.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert y.var(correction=0).item() == pytest.approx(1.0, abs=1e-3)
    layer.share = None
    assert torch.allclose(layer(x), y)  # answers go by what was held


def test_moments_mix_by_their_share_with_the_source_or_with_what_was_held():
    x = torch.full((1, 1, 2, 2), 10.0)
    layer = Statistics((torch.tensor([0.0]), torch.tensor([1.0])))
    layer.share = 0.25
    layer(x)
    layer(x)
    assert layer.held[0].item() == pytest.approx(2.5)
    assert layer.held[1].item() == pytest.approx(0.75)
    layer.rolls = True
    layer(x)
    assert layer.held[0].item() == pytest.approx(2.5 + 0.25 * 7.5)
    layer.holds = False
    layer(x)
    assert layer.held[0].item() == pytest.approx(2.5 + 0.25 * 7.5)


def test_on_the_sources_own_chips_nothing_changes(source, known):
    net = Adaptable(source, known)
    before, _ = net.answer(source.chips)
    with net.on_batch():
        on_batch, _ = net.answer(source.chips)
    assert on_batch == pytest.approx(before, abs=1e-3)


def test_layers_are_unfolded_so_that_one_length_of_steps_suits_all(source, known):
    """Whatever a layer's factor has to make up for, it is that of a BN layer once its input is standardised."""
    net = Adaptable(source, known)
    folded = FaceNetwork(source.model, source.outputs).norms["layer1"]
    found, _ = net.layers["layer1"]
    mean, variance = known["layer1"]
    assert torch.allclose(found.scale, folded.scale * torch.sqrt(variance), rtol=1e-3)
    assert torch.allclose(found.shift, folded.shift + folded.scale * mean, atol=1e-4)


def test_only_norm_layers_learn_and_the_one_for_pixels_does_not(source, known):
    net = Adaptable(source, known)
    assert set(net.layers) == {"layer0", "layer1"}
    learnt = {id(parameter) for parameter in net.parameters}
    assert {id(p) for p in net.network.parameters() if p.requires_grad} == learnt


def test_the_gradient_of_entropy_is_that_of_finite_differences():
    logits = torch.tensor([[1.0, -0.5, 0.3], [0.2, 2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: entropy(x).mean(), logits)
    assert entropy(torch.zeros(1, 7)).item() == pytest.approx(math.log(7))
    assert entropy(torch.tensor([[99.0, 0.0]])).item() == pytest.approx(0.0, abs=1e-6)


def test_so_is_that_through_a_layer_on_its_batch(source, known):
    net = Adaptable(source, known)
    batch = torch.from_numpy(chips(8, 0, 60))
    scale = net.layers["layer1"][0].scale
    with net.on_batch():
        (gradient,) = torch.autograd.grad(entropy(net.logits(batch)).mean(), scale)
        channel = int(gradient.abs().argmax())
        with torch.no_grad():
            ends = []
            for step in (1e-2, -2e-2):
                scale[channel] += step
                ends.append(entropy(net.logits(batch)).mean().item())
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(gradient[channel].item(), rel=0.05)


def test_tent_lowers_the_entropy_of_what_it_learns_from(source, known):
    tent = Tent(source, known)
    batch = torch.from_numpy(chips(32, 0, 60))
    with tent.net.on_batch():
        first = entropy(tent.net.logits(batch)).mean().item()
        for _ in range(10):
            tent.learn(batch)
        assert entropy(tent.net.logits(batch)).mean().item() < first - 1e-3


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in {"lame"}])
def test_a_frame_is_answered_before_anything_is_learnt_from_it(name, source):
    """Two streams that differ in their last block alone are answered alike up to there; frame by frame within it."""
    one, other = chips(3 * BLOCK, 0, 60), chips(3 * BLOCK, 0, 60)
    other[2 * BLOCK + 8 :] = chips(8, 100, 256, seed=1)
    catalogue = Catalogue(source, 7)

    def answers(stream):
        method = catalogue.make(name, seed=0)
        return np.concatenate([method.step(block, *NOWHERE)[0] for block in np.split(stream, 3)])

    first, second = answers(one), answers(other)
    # Convolutions of another batch may round otherwise.
    assert first[: 2 * BLOCK + 8] == pytest.approx(second[: 2 * BLOCK + 8], abs=1e-5)
    frozen = catalogue.make("frozen", 0).step(one[:BLOCK], *NOWHERE)[0]
    assert first[:BLOCK] == pytest.approx(frozen, abs=1e-3)
    assert (answers(one) == first).all()  # and the same each time


@pytest.mark.parametrize("name", ["bn", "tent", "eata", "sar"])
def test_what_came_before_is_learnt_from(name, source):
    method = Catalogue(source, 7).make(name, seed=0)
    stream = np.split(chips(UPDATE + BLOCK, 0, 60), UPDATE // BLOCK + 1)
    for block in stream[:-1]:
        method.step(block, *NOWHERE)
    frozen = Catalogue(source, 7).make("frozen", 0)
    after, before = method.step(stream[-1], *NOWHERE)[0], frozen.step(stream[-1], *NOWHERE)[0]
    assert np.abs(after - before).max() > 1e-2


def test_batchwise_a_block_counts_for_its_own_answers(small, known):
    source = Source(small, chips(64), batchwise=True)
    block = chips(BLOCK, 0, 60)
    frozen = Catalogue(source, 7).make("frozen", 0).step(block, *NOWHERE)[0]
    assert np.abs(BatchNormStatistics(source, known).step(block)[0] - frozen).max() > 1e-2
    assert np.abs(Tent(source, known).step(block)[0] - frozen).max() > 1e-2


def test_eata_learns_from_answers_that_are_sure_and_unlike_those_before():
    logits = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0.1, 0, 0]])
    chosen, average = eata.choose(logits, None)
    assert chosen.tolist() == [0, 1]  # the third is unsure
    assert average is not None
    assert average.tolist() == pytest.approx([0.5, 0.5, 0], abs=1e-3)
    chosen, average = eata.choose(logits, torch.tensor([1.0, 0, 0]))
    assert chosen.tolist() == [1]
    assert average.tolist() == pytest.approx([0.9, 0.1, 0], abs=1e-3)
    chosen, same = eata.choose(logits[2:], average)
    assert chosen.tolist() == []
    assert same is average


def test_eata_weighs_parameters_by_what_the_source_says_of_them(source, known):
    found = eata.fisher(source, known)
    net = Adaptable(source, known)
    assert [f.shape for f in found] == [p.shape for p in net.parameters]
    assert all((f >= 0).all() for f in found)
    assert any((f > 0).any() for f in found)


def test_sar_climbs_to_the_edge_and_steps_from_where_it_came():
    x = torch.tensor([3.0, 4.0], requires_grad=True)
    (x.square().sum() / 2).backward()  # the gradient is x itself, of length 5
    moved = sar.climb([x], radius=0.5)
    assert x.tolist() == pytest.approx([3.3, 4.4])
    x.grad = None
    (x.square().sum() / 2).backward()
    optimiser = torch.optim.SGD([x], lr=0.1)
    sar.descend([x], moved, optimiser.step)
    assert x.tolist() == pytest.approx([3 - 0.33, 4 - 0.44])


def test_sar_goes_back_to_the_source_when_it_has_collapsed(source, known):
    method = sar.Sar(source, known, rate=1.0)
    start = [p.detach().clone() for p in method.net.parameters]
    with torch.no_grad():
        for parameter in method.net.parameters:
            parameter.mul_(200.0)  # answers without any doubt: no entropy is left
    with method.net.on_batch():
        method.learn(torch.from_numpy(chips(32)))
    assert all(torch.equal(a, b) for a, b in zip(method.net.parameters, start, strict=True))


def test_rottas_memory_is_balanced_and_forgets_the_old_and_the_unsure():
    memory = rotta.Memory(labels=2, capacity=4)
    for number in range(10):
        memory.add(np.full((1, 1, 3), number, np.uint8), 0, 0.1)
    assert [int(each.chip[0, 0, 0]) for each in memory.kept] == [
        8,
        9,
    ]  # half of the room is the other label's
    memory.add(np.full((1, 1, 3), 50, np.uint8), 0, 0.69)
    assert 50 not in [
        int(each.chip[0, 0, 0]) for each in memory.kept
    ]  # unsure: worth less than what is there
    for _ in range(3):
        memory.add(np.full((1, 1, 3), 99, np.uint8), 1, 0.1)
    assert sorted(each.label for each in memory.kept) == [0, 0, 1, 1]
    ages = [each.age for each in memory.kept]
    weights = memory.weights().tolist()
    assert np.argsort(ages).tolist() == np.argsort(-np.array(weights)).tolist()


def test_rottas_teacher_follows_slowly():
    teacher, student = [torch.tensor([1.0])], [torch.tensor([3.0])]
    rotta.approach(teacher, student, 0.001)
    assert teacher[0].item() == pytest.approx(1.002)


def test_strong_variations_are_faces_still():
    batch = torch.from_numpy(chips(6, 50, 200))
    random = torch.Generator().manual_seed(0)
    varied = rotta.strongly_varied(batch, random)
    assert varied.shape == batch.shape
    assert 0 <= varied.min() < varied.max() <= 255
    assert (varied - batch.float()).abs().mean() > 5
    assert torch.equal(varied, rotta.strongly_varied(batch, torch.Generator().manual_seed(0)))
