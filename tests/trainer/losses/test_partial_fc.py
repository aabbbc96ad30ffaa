"""Classes spread over processes: two real ones, joined by gloo, train exactly what one alone does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from trainer.losses.contrastive import nt_xent
from trainer.losses.margin import ArcFace, Margin
from trainer.losses.partial_fc import PartialFC, sample_classes, shard, sharded_margin_loss

CLASSES, DIM, FACES = 7, 4, 12  # 7 classes: the shards differ in size
SCRIPT = Path(__file__).with_name("joined.py")


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PROBLEM = {
    "faces": noise(0, FACES, 5),
    "views": noise(1, FACES, 5),
    "labels": torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1, 0, 3, 0]),
    "weight": noise(2, DIM, 5),
    "one": noise(3, CLASSES, 1, DIM),
    "two": noise(4, CLASSES, 2, DIM),
}


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> list[dict[str, np.ndarray]]:
    """What two processes made of the problem, by rank."""
    folder = tmp_path_factory.mktemp("joined")
    np.savez(folder / "problem.npz", **{name: x.numpy() for name, x in PROBLEM.items()})
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(rank), "2"], env=environment)
        for rank in range(2)
    ]
    try:
        while None in (codes := [process.poll() for process in running]) and set(codes) <= {None, 0}:
            time.sleep(0.05)  # one that fails leaves the other waiting for it
        assert codes == [0, 0], "what they say is above"
    finally:
        for process in running:
            process.kill()
            process.wait()
    out = []
    for rank in range(2):
        with np.load(folder / f"{rank}.npz", allow_pickle=False) as file:
            out.append(dict(file))
    return out


@pytest.mark.parametrize(
    ("name", "centres", "margin"),
    [
        ("arcface", "one", Margin(0.5, 16.0)),
        ("subcentres", "two", Margin(0.3, 16.0, doubt=0.1, softness=0.05)),
    ],
)
def test_two_processes_train_what_one_does(joined, name, centres, margin):
    weight = torch.nn.Parameter(PROBLEM["weight"].clone())
    head = ArcFace(CLASSES, DIM, PROBLEM[centres].shape[1])
    head.centres = torch.nn.Parameter(PROBLEM[centres].clone())
    optimiser = torch.optim.SGD([weight, *head.parameters()], 0.05, momentum=0.9)
    curve = []
    for _ in range(5):
        optimiser.zero_grad()
        found = head.identify(PROBLEM["faces"] @ weight.T, PROBLEM["labels"], margin)
        found.loss.backward()
        optimiser.step()
        curve.append([value.item() for value in found])
    assert curve[-1][0] < 0.9 * curve[0][0]
    for rank in range(2):
        np.testing.assert_allclose(joined[rank][f"{name}.curve"], curve, rtol=1e-12)
        np.testing.assert_allclose(joined[rank][f"{name}.weight"], weight.detach(), rtol=1e-10)
    spread = np.concatenate([part[f"{name}.centres"] for part in joined])
    np.testing.assert_allclose(spread, head.centres.detach(), rtol=1e-10)


def test_views_gathered_from_two_processes_are_one_batch(joined):
    weight = PROBLEM["weight"].clone().requires_grad_()
    loss = nt_xent(PROBLEM["faces"] @ weight.T, PROBLEM["views"] @ weight.T)
    loss.backward()
    for part in joined:
        assert part["nt_xent"] == pytest.approx(loss.item(), rel=1e-12)
        np.testing.assert_allclose(part["nt_xent.gradient"], weight.grad, rtol=1e-10)


def test_two_processes_round_to_the_grid_of_all_faces(joined):
    peak = PROBLEM["faces"].abs().max().float().item()
    assert [part["peak"].item() for part in joined] == [peak, peak]


def test_with_half_of_the_classes_two_processes_lose_what_one_does_with_those_alone(joined):
    labels = PROBLEM["labels"] // 4 * 4  # 0, which the first process has, and 4, which the second has
    moved = np.concatenate([part["sampled.moved"] for part in joined])
    assert [part["sampled.moved"].sum() for part in joined] == [2, 2]
    assert moved[[0, 4]].all()
    head = ArcFace(4, DIM)
    head.centres = torch.nn.Parameter(PROBLEM["one"][moved])
    loss = head(
        PROBLEM["faces"] @ PROBLEM["weight"].T, torch.from_numpy(moved.cumsum() - 1)[labels], Margin()
    )
    for part in joined:
        assert part["sampled"] == pytest.approx(loss.item(), rel=1e-12)


def test_alone_it_is_arcface():
    head, alone = ArcFace(CLASSES, DIM, 2), PartialFC(CLASSES, DIM, 2)
    head.centres = alone.centres = torch.nn.Parameter(PROBLEM["two"].clone())
    faces = PROBLEM["faces"][:, :DIM]
    for margin in (Margin(), Margin(0.2, 8.0, doubt=0.3)):
        found, expected = (x.identify(faces, PROBLEM["labels"], margin) for x in (alone, head))
        assert [each.item() for each in found] == pytest.approx([each.item() for each in expected], rel=1e-12)


def test_classes_that_take_no_part_do_not_move_and_make_the_softmax_easier():
    alone = PartialFC(CLASSES, DIM, share=0.4)
    alone.centres = torch.nn.Parameter(PROBLEM["one"].clone())
    faces, labels = PROBLEM["faces"][:, :DIM], torch.tensor([2, 5] * 6)
    loss = alone(faces, labels, Margin(0.5, 4.0), torch.Generator().manual_seed(1))
    loss.backward()
    moved = alone.centres.grad.abs().sum((1, 2)) > 0
    assert moved.sum() == 3
    assert moved[[2, 5]].all()
    whole = PartialFC(CLASSES, DIM)
    whole.centres = alone.centres
    assert loss < whole(faces, labels, Margin(0.5, 4.0))


def test_gradients_are_those_of_finite_differences():
    labels = torch.tensor([1, 0, 2])

    def loss(raw):
        return sharded_margin_loss(raw.tanh(), labels, Margin(0.4, 8.0))

    assert gradcheck(loss, (noise(5, 3, 4).requires_grad_(),))


def test_logits_of_a_large_scale_do_not_overflow():
    cosine = torch.tensor([[-1.0, 1.0]], requires_grad=True)
    loss = sharded_margin_loss(cosine, torch.tensor([0]), Margin(0.5, 1e4))
    loss.backward()
    assert loss.item() == pytest.approx(1e4 * (2.0 + 0.5 * np.sin(0.5)), rel=1e-6)
    assert cosine.grad.isfinite().all()


@given(st.integers(1, 40), st.integers(0, 100))
def test_shards_hold_every_class_once(processes, more):
    classes = processes + more
    parts = [shard(classes, rank, processes) for rank in range(processes)]
    assert [place for part in parts for place in part] == list(range(classes))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.lists(st.integers(-1, 19), max_size=30), st.integers(1, 20), st.integers(0, 5))
def test_a_sample_of_classes_has_those_of_the_batch_and_no_class_twice(labels, count, seed):
    chosen = sample_classes(
        torch.tensor(labels, dtype=torch.int64), 20, count, torch.Generator().manual_seed(seed)
    ).tolist()
    occurring = {label for label in labels if label >= 0}
    assert chosen == sorted(set(chosen))
    assert occurring <= set(chosen)
    assert len(chosen) == max(count, len(occurring))


def test_too_few_classes_or_no_share_is_refused():
    with pytest.raises(ValueError, match="fewer processes"):
        shard(3, 0, 4)
    with pytest.raises(ValueError, match="share"):
        PartialFC(4, 2, share=0.0)
