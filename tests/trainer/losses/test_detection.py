"""Boxes become offsets and come back, every face gets an anchor, and background does not drown the faces."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from trainer.losses.detection import (
    NEITHER,
    anchors,
    corners,
    decode,
    encode,
    hard_negatives,
    match,
    multibox_loss,
    overlap,
)

SIDES = st.floats(1.0, 300.0)
PLACES = st.floats(-100.0, 400.0)


@st.composite
def boxes(draw, least=1, most=8):
    rows = draw(st.lists(st.tuples(PLACES, PLACES, SIDES, SIDES), min_size=least, max_size=most))
    made = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    return torch.cat([made[:, :2], made[:, :2] + made[:, 2:]], 1)


def test_anchors_of_a_map_by_hand():
    made = anchors(1, 2, 16.0, [10.0, 20.0], [1.0, 4.0])
    shapes = [[10, 10], [20, 5], [20, 20], [40, 10]]
    assert made.tolist() == [[x, 8.0, *shape] for x in (8.0, 24.0) for shape in shapes]
    assert corners(made)[1].tolist() == [-2.0, 5.5, 18.0, 10.5]
    assert anchors(3, 2, 8.0, [4.0], [1.0])[:, :2].tolist() == [
        [4, 4], [12, 4], [4, 12], [12, 12], [4, 20], [12, 20],
    ]  # fmt: skip


def test_overlap_by_hand():
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 2.0, 2.0]])
    b = torch.tensor([[2.0, 2.0, 6.0, 4.0], [8.0, 8.0, 9.0, 9.0], [2.0, 2.0, 2.0, 2.0]])
    assert overlap(a, b).tolist() == [[pytest.approx(4 / (16 + 8 - 4)), 0.0, 0.0], [0.0, 0.0, 0.0]]


@given(boxes(), boxes())
def test_overlap_is_symmetric_within_0_and_1_and_1_with_itself(a, b):
    iou = overlap(a, b)
    torch.testing.assert_close(iou, overlap(b, a).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()
    torch.testing.assert_close(overlap(a, a).diagonal(), torch.ones(len(a), dtype=a.dtype))


@given(boxes(), st.data())
def test_offsets_come_back_as_the_boxes_they_were_made_of(made, data):
    rows = data.draw(st.lists(st.tuples(PLACES, PLACES, st.floats(8.0, 300.0), st.floats(8.0, 300.0)),
                              min_size=len(made), max_size=len(made)))  # fmt: skip
    anchor = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(decode(encode(made, anchor), anchor), made, rtol=1e-9, atol=1e-6)


def test_offsets_by_hand():
    anchor = torch.tensor([[10.0, 10.0, 20.0, 40.0]])
    offsets = encode(torch.tensor([[2.0, 5.0, 22.0, 25.0]]), anchor)
    assert offsets[0].tolist() == pytest.approx([2 / 20 / 0.1, 5 / 40 / 0.1, 0.0, math.log(0.5) / 0.2])


def test_a_wild_network_still_gives_finite_boxes_and_a_flat_box_is_refused():
    assert decode(torch.full((1, 4), 1e4), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))[0].isfinite().all()
    with pytest.raises(ValueError, match="no area"):
        encode(torch.tensor([[1.0, 1.0, 1.0, 5.0]]), torch.ones(1, 4))


def test_matching_by_hand():
    anchor = torch.tensor([[5.0, 5.0, 10.0, 10.0], [6.0, 5.0, 10.0, 10.0], [50.0, 50.0, 10.0, 10.0]])
    face, small = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([46.0, 46.0, 49.0, 49.0])
    assert match(torch.stack([face, small]), anchor).tolist() == [
        0,
        0,
        1,
    ]  # the small one overlaps by 0.09 only
    assert match(torch.stack([face, small]), anchor, 0.9).tolist() == [0, -1, 1]
    assert match(torch.zeros(0, 4), anchor).tolist() == [-1, -1, -1]


def test_two_faces_that_want_one_anchor_get_one_each():
    anchor = torch.tensor([[5.0, 5.0, 10.0, 10.0], [40.0, 5.0, 60.0, 10.0]])
    near, nearer = torch.tensor([0.0, 0.0, 12.0, 10.0]), torch.tensor([0.0, 0.0, 11.0, 10.0])
    assert match(torch.stack([near, nearer]), anchor).tolist() == [1, 0]


@given(boxes(most=12))
def test_every_face_gets_an_anchor_and_every_other_anchor_the_face_it_overlaps_most(made):
    anchor = anchors(6, 6, 40.0, [30.0, 90.0], [1.0]).double()
    iou = overlap(made, corners(anchor))
    found = match(made, anchor)
    reachable = (iou > 0).sum(1) >= len(made)  # it can be beaten to every anchor but the last
    held = torch.isin(torch.arange(len(made)), found)
    assert held[reachable].all()
    best = iou.max(0)
    wanted = torch.where(best.values > 0.5, best.indices, -1)
    differing = found != wanted
    assert differing.sum() <= len(made)  # only the anchors that were given to a face by right
    assert found[differing].unique().numel() == differing.sum()
    assert (iou[found[found >= 0], torch.arange(len(anchor))[found >= 0]] > 0).all()


def test_a_crowd_is_matched():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 300
    crowd = torch.cat([corner, corner + 4 + 20 * torch.rand(300, 2, generator=generator)], 1)
    anchor = anchors(40, 40, 8.0, [12.0, 24.0], [1.0])
    assert torch.isin(torch.arange(300), match(crowd, anchor)).all()


def test_negatives_are_the_hardest_three_a_positive_in_each_image():
    losses = torch.tensor([[9.0, 1.0, 5.0, 2.0, 3.0, 4.0], [9.0, 1.0, 5.0, 2.0, 3.0, 4.0]])
    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive[0, 0] = True
    assert hard_negatives(losses, positive).tolist() == [[False, False, True, False, True, True], [False] * 6]
    positive[1, [0, 2]] = True
    assert (hard_negatives(losses, positive)[1] == ~positive[1]).all()  # fewer are left than six


def test_an_image_without_a_face_has_negatives_where_a_least_number_is_asked_for():
    losses = torch.tensor([[1.0, 5.0, 2.0, 3.0], [4.0, 9.0, -torch.inf, 6.0]])
    positive = torch.tensor([[False] * 4, [False, True, False, False]])
    chosen = hard_negatives(losses, positive, ratio=1, least=2)
    assert chosen.tolist() == [[False, True, False, True], [True, False, False, True]]
    # What is not to count is never taken, even where too few are left.
    assert hard_negatives(losses, positive, least=4)[1].tolist() == [True, False, False, True]


def test_an_anchor_that_is_left_alone_costs_nothing_and_learns_nothing():
    logits = torch.tensor([[[0.0, 2.0], [0.0, 5.0], [0.0, 1.0]]], requires_grad=True)
    offsets = torch.zeros(1, 3, 4, requires_grad=True)
    labels = torch.tensor([[1, NEITHER, 0]])
    confidence, localisation = multibox_loss(logits, offsets, labels, torch.zeros(1, 3, 4))
    assert confidence.item() == pytest.approx(math.log(1 + math.exp(-2)) + math.log(1 + math.e), rel=1e-6)
    (confidence + localisation).backward()
    assert (logits.grad[0, 1] == 0).all()
    assert (logits.grad[0, [0, 2]] != 0).all()


def test_loss_by_hand():
    logits = torch.tensor([[[0.0, 2.0], [1.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.0], [0.0, 0.5]]])
    labels = torch.tensor([[1, 0, 0, 0, 0, 0]])
    offsets, targets = torch.zeros(1, 6, 4), torch.zeros(1, 6, 4)
    targets[0, 0] = torch.tensor([0.5, 0.0, -3.0, 0.0])
    targets[0, 1:] = 99.0  # background has no box
    confidence, localisation = multibox_loss(logits, offsets, labels, targets)
    soft = [math.log(1 + math.exp(-2)), math.log(1 + math.e), math.log(1 + math.exp(0.5)), math.log(2)]
    assert confidence.item() == pytest.approx(sum(soft), rel=1e-6)  # the fourth of equals: either has ln 2
    assert localisation.item() == pytest.approx(0.5 * 0.5**2 + 3 - 0.5)


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    logits, offsets, targets = (
        torch.randn(2, 8, k, dtype=torch.float64, generator=generator) for k in (2, 4, 4)
    )
    labels = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0]])
    assert gradcheck(
        lambda a, b: multibox_loss(a, b, labels, targets), (logits.requires_grad_(), offsets.requires_grad_())
    )


def test_a_batch_without_faces_costs_nothing_and_breaks_nothing():
    logits, offsets = torch.randn(2, 5, 2, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    losses = multibox_loss(logits, offsets, torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, 4))
    sum(losses).backward()
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    assert (logits.grad == 0).all()
    assert (offsets.grad == 0).all()


def test_a_detector_of_one_convolution_learns_to_find_a_bright_square():
    torch.manual_seed(0)
    anchor = anchors(8, 8, 8.0, [16.0], [1.0])
    corner = torch.randint(0, 48, (24, 2))
    images = torch.zeros(24, 1, 64, 64)
    labels, targets = [], []
    for image, (x, y) in zip(images, corner.tolist(), strict=True):
        image[0, y : y + 16, x : x + 16] = 1.0
        box = torch.tensor([[x, y, x + 16, y + 16]], dtype=torch.float32)
        found = match(box, anchor)
        labels.append((found >= 0).long())
        targets.append(encode(box[found.clamp_min(0)], anchor))
    labels, targets = torch.stack(labels), torch.stack(targets)
    network = torch.nn.Sequential(
        torch.nn.AvgPool2d(4),
        torch.nn.Conv2d(1, 16, 6, 2, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 6, 3, 1, 1),
    )
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        out = network(images).permute(0, 2, 3, 1).reshape(24, 64, 6)
        sum(multibox_loss(out[..., :2], out[..., 2:], labels, targets)).backward()
        optimiser.step()
    best = (out[..., 1] - out[..., 0]).argmax(1)
    predicted = torch.stack(
        [decode(o[i, 2:][None], anchor[i][None])[0] for o, i in zip(out, best, strict=True)]
    )
    truth = torch.cat([corner, corner + 16], 1).float()
    assert overlap(predicted, truth).diagonal().median() > 0.6
