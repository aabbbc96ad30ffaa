import pytest
import torch

from trainer.branch import BranchSettings, ClipBranch

SHAPE = BranchSettings(stages=((16, 2), (8, 2)))


@pytest.fixture
def maps():
    return torch.rand(3, 5, 64, 17, 17, generator=torch.Generator().manual_seed(0))


def made(pooling):
    torch.manual_seed(0)
    return ClipBranch(SHAPE, pooling).eval()


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_one_frame_is_what_the_branch_alone_makes_of_it(maps, pooling):
    clip = made(pooling)
    with torch.inference_mode():
        assert torch.allclose(clip(maps[:, :1]), clip.branch(maps[:, 0]), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_the_order_of_the_frames_does_not_matter(maps, pooling):
    clip = made(pooling)
    with torch.inference_mode():
        assert torch.allclose(clip(maps), clip(maps[:, [3, 1, 4, 0, 2]]), atol=1e-6)


def test_the_mean_over_time_is_the_mean_of_the_frames_logits(maps):
    clip = made("mean")
    with torch.inference_mode():
        alone = torch.stack([clip.branch(maps[:, frame]) for frame in range(5)])
        assert torch.allclose(clip(maps), alone.mean(0), atol=1e-6)


def test_the_maximum_over_time_is_of_each_channel(maps):
    clip = made("max")
    with torch.inference_mode():
        vectors = torch.stack([clip.branch.vectors(maps[:, frame]) for frame in range(5)])
        assert torch.allclose(clip(maps), clip.branch.head(vectors.max(0).values), atol=1e-6)


def test_attention_weighs_the_frames_by_a_softmax_over_them(maps):
    clip = made("attention")
    with torch.inference_mode():
        vectors = torch.stack([clip.branch.vectors(maps[:, frame]) for frame in range(5)])
        clip.weight.weight.zero_()
        even = clip(maps)
        assert torch.allclose(even, clip.branch.head(vectors.mean(0)), atol=1e-6)
        clip.weight.weight[0, 2] = 3.0
        votes = torch.exp(3.0 * vectors[:, :, 2])  # the bias is the same for all and falls out
        weighed = (votes[..., None] * vectors).sum(0) / votes.sum(0)[:, None]
        assert torch.allclose(clip(maps), clip.branch.head(weighed), atol=1e-6)
        assert not torch.allclose(clip(maps), even, atol=1e-6)
