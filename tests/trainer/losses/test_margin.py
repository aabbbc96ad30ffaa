"""The margin makes the own class harder to reach, and nothing else: by hand, by finite differences, by a library."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import ArcFaceLoss, SubCenterArcFaceLoss
from torch.autograd import gradcheck

from trainer.losses.margin import ArcFace, Margin, Softmax, add_margin, cosines, margin_logits, trust

MARGINS = st.floats(0.0, math.pi / 2)
COSINES = st.floats(-1.0, 1.0)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def head(centres: torch.Tensor) -> ArcFace:
    """An ArcFace head of these centres [classes, k, d]."""
    made = ArcFace(len(centres), centres.shape[2], centres.shape[1])
    made.centres = torch.nn.Parameter(centres.clone())
    return made


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_a_face_between_two_people_by_hand():
    embedding = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]], dtype=torch.float64) * 7.0
    centres = torch.tensor(
        [[[2.0, 0.0]], [[0.0, 5.0]]], dtype=torch.float64
    )  # at 0 and 90 degrees; the face at 30
    loss = head(centres)(embedding, torch.tensor([0]), Margin(margin=0.5, scale=4.0))
    own, other = math.exp(4 * math.cos(math.pi / 6 + 0.5)), math.exp(4 * math.cos(math.pi / 3))
    assert loss.item() == pytest.approx(-math.log(own / (own + other)), rel=1e-12)


def test_beside_the_loss_stands_what_the_margin_and_doubt_hide():
    faces, labels, centres = noise(3, 12, 6), torch.arange(12) % 4, noise(4, 4, 2, 6)
    faces[:9] = centres[labels[:9], 0]  # nine are where they belong
    faces[9:] = -centres[labels[9:]].sum(1)  # and three as far away as can be
    plain = head(centres)(faces, labels, Margin(0.0, 8.0)).item()
    for margin in (Margin(0.0, 8.0), Margin(0.5, 8.0), Margin(1.2, 8.0, doubt=0.9)):
        found = head(centres).identify(faces.requires_grad_(), labels, margin)
        assert found.cross_entropy.item() == pytest.approx(plain, rel=1e-12)
        assert found.top1.item() == 0.75
        assert found.loss.requires_grad
        assert not found.cross_entropy.requires_grad


@pytest.mark.parametrize(("margin", "scale"), [(0.0, 1.0), (0.5, 64.0), (1.2, 16.0)])
@pytest.mark.parametrize("subcentres", [1, 3])
def test_loss_and_gradients_are_those_of_pytorch_metric_learning(margin, scale, subcentres):
    classes, dim = 5, 6
    embeddings = noise(1, 40, dim).requires_grad_()
    labels = torch.arange(40) % classes
    centres = noise(2, classes, subcentres, dim)
    made = ArcFaceLoss if subcentres == 1 else SubCenterArcFaceLoss
    more = {} if subcentres == 1 else {"sub_centers": subcentres}
    theirs = made(num_classes=classes, embedding_size=dim, margin=math.degrees(margin), scale=scale, **more)
    theirs.W = torch.nn.Parameter(centres.flatten(0, 1).T.clone())
    with torch.no_grad():  # one sample beyond the edge, where theta + m passes pi
        embeddings[0] = -centres[0, 0] + 0.1 * embeddings[0]
    ours = head(centres)
    loss, reference = ours(embeddings, labels, Margin(margin, scale)), theirs(embeddings, labels)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
    gradient, expected = (torch.autograd.grad(x, embeddings)[0] for x in (loss, reference))
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-10)
    ours(embeddings, labels, Margin(margin, scale)).backward()
    theirs(embeddings, labels).backward()
    torch.testing.assert_close(ours.centres.grad.flatten(0, 1).T, theirs.W.grad, rtol=1e-7, atol=1e-10)


def test_gradients_are_those_of_finite_differences():
    labels = torch.tensor([0, 2, 1, 1])
    margin = Margin(0.4, 8.0, doubt=-0.2, softness=0.0)

    def loss(embeddings, centres):
        logits = margin_logits(cosines(embeddings, centres), labels, margin)
        return torch.nn.functional.cross_entropy(logits, labels)

    assert gradcheck(loss, (noise(3, 4, 5).requires_grad_(), noise(4, 3, 2, 5).requires_grad_()))


@given(COSINES, MARGINS, MARGINS)
def test_more_margin_never_makes_the_own_class_easier(cosine, one, other):
    less, more = sorted((one, other))
    assert add_margin(number(cosine), more) <= add_margin(number(cosine), less) + 1e-6


@given(COSINES, COSINES, MARGINS)
def test_a_nearer_face_is_never_scored_lower_also_beyond_the_edge(one, other, margin):
    far, near = sorted((one, other))
    assert add_margin(number(far), margin) <= add_margin(number(near), margin) + 1e-6


@given(COSINES)
def test_no_margin_changes_nothing(cosine):
    assert add_margin(number(cosine), 0.0).item() == cosine


@given(st.floats(0.0, math.pi / 2), MARGINS)
def test_before_the_edge_it_is_the_cosine_of_the_larger_angle(angle, margin):
    moved = add_margin(number(math.cos(angle)), margin)
    assert moved.item() == pytest.approx(math.cos(angle + margin), abs=2e-6)


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0), st.integers(1, 3))
def test_lengths_of_embeddings_and_centres_do_not_matter(a, b, subcentres):
    embeddings, centres, labels = noise(5, 6, 4), noise(6, 3, subcentres, 4), torch.arange(6) % 3
    plain = head(centres)(embeddings, labels, Margin())
    scaled = head(centres * b)(embeddings * a, labels, Margin())
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-9)


@given(st.integers(2, 4))
def test_equal_subcentres_are_one_centre(subcentres):
    embeddings, centres, labels = noise(7, 6, 4), noise(8, 3, 1, 4), torch.arange(6) % 3
    one = head(centres)(embeddings, labels, Margin())
    many = head(centres.expand(-1, subcentres, -1))(embeddings, labels, Margin())
    assert many.item() == pytest.approx(one.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_faces_on_and_opposite_their_centre_have_finite_losses_and_gradients(dtype):
    centres = noise(9, 2, 1, 512).float()
    embeddings = (torch.stack([centres[0, 0], -centres[0, 0]]) * 40.0).to(dtype).requires_grad_()
    made = head(centres)
    loss = made(embeddings, torch.tensor([0, 0]), Margin(margin=1.5))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
    assert made.centres.grad.isfinite().all()


def test_under_autocast_the_loss_is_in_float32_and_near():
    embeddings, labels, made = (
        noise(11, 8, 64).float(),
        torch.arange(8) % 3,
        head(noise(12, 3, 1, 64).float()),
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss = made(embeddings, labels, Margin())
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(made(embeddings, labels, Margin()).item(), rel=0.01)
    assert made.centres.grad.dtype == torch.float32


def test_a_row_whose_class_is_elsewhere_keeps_all_its_cosines():
    cosine = torch.tensor([[0.5, 0.1], [0.5, 0.1]])
    logits = margin_logits(cosine, torch.tensor([-1, 1]), Margin(0.3, 2.0))
    assert logits[0].tolist() == pytest.approx([1.0, 0.2])
    assert logits[1].tolist() == pytest.approx([1.0, 2 * math.cos(math.acos(0.1) + 0.3)])


def test_a_doubted_face_is_dropped_and_counts_as_right():
    centres = torch.eye(2, dtype=torch.float64)[:, None]
    faces = torch.tensor([[1.0, 0.1], [0.1, 1.0]], dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 0])  # the second looks like the other person: a wrong label
    sure = head(centres)(faces[:1], labels[:1], Margin(0.2, 4.0))
    loss = head(centres)(faces, labels, Margin(0.2, 4.0, doubt=0.3))
    assert loss.item() == pytest.approx(sure.item() / 2, rel=1e-12)
    loss.backward()
    assert (faces.grad[1] == 0.0).all()
    assert (faces.grad[0] != 0.0).any()


@given(COSINES, COSINES, st.floats(-1.0, 1.0), st.floats(0.0, 1.0))
def test_trust_grows_with_the_cosine_and_stays_within_0_and_1(one, other, doubt, softness):
    low, high = trust(torch.tensor(sorted((one, other)), dtype=torch.float64), doubt, softness)
    assert 0.0 <= low <= high <= 1.0


def test_soft_doubt_halves_a_face_on_the_threshold_and_is_no_way_to_a_smaller_loss():
    assert not trust(torch.tensor([0.3], requires_grad=True), 0.3, 0.1).requires_grad
    assert trust(torch.tensor([0.3 - 0.1, 0.3, 0.3 + 0.1]), 0.3, 0.1).tolist() == pytest.approx(
        [0.26894, 0.5, 0.73106], abs=1e-4
    )


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"margin": 1.6}, {"scale": 0.0}, {"softness": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Margin(**wrong)


def test_the_same_seed_makes_the_same_centres():
    one, same, other = (ArcFace(4, 8, 2, torch.Generator().manual_seed(s)).centres for s in (1, 1, 2))
    assert one.shape == (4, 2, 8)
    assert (one == same).all()
    assert (one != other).any()


def test_plain_softmax_by_hand():
    made = Softmax(2, 1)
    with torch.no_grad():
        made.layer.weight.copy_(torch.tensor([[1.0], [3.0]]))
        made.layer.bias.copy_(torch.tensor([0.5, -0.5]))
    loss = made(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]))
    by_hand = (math.log(1 + math.exp(2.5 - 1.5)) + math.log(1 + math.exp(2.5 - 5.5))) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_training_tells_people_apart_and_parts_them_further_than_softmax_without_margin():
    faces, labels = torch.eye(4)[torch.arange(32) % 4] + 0.3 * noise(10, 32, 4).float(), torch.arange(32) % 4

    def gap(margin: float) -> float:
        """How much further the nearest other centre is than the own one, mean over faces, after training."""
        torch.manual_seed(0)
        network, made = torch.nn.Linear(4, 3), ArcFace(4, 3, generator=torch.Generator().manual_seed(0))
        optimiser = torch.optim.Adam([*network.parameters(), *made.parameters()], 0.05)
        for _ in range(60):
            optimiser.zero_grad()
            made(network(faces), labels, Margin(margin, 8.0)).backward()
            optimiser.step()
        angles = cosines(network(faces), made.centres).acos()
        own = angles.gather(1, labels[:, None]).squeeze(1)
        others = angles.scatter(1, labels[:, None], torch.inf).amin(1)
        return (others - own).mean().item()

    assert gap(0.5) > gap(0.0) > 0.3
