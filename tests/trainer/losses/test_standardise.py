"""A loud and a quiet teacher are heard alike, and no direction of either is stretched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.losses.standardise import Standardiser, fit, hadamard, merged, moments


def features(seed: int, n: int, dim: int) -> torch.Tensor:
    """Correlated features, some channels a thousand times as large as others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator) * torch.logspace(-1, 2, dim)
    return torch.randn(n, dim, generator=generator) @ mixing + torch.linspace(-50, 50, dim)


SIZES = (1, 2, 4, 8, 12, 20, 28, 36, 40, 56, 60, 64, 112, 160, 192, 384)


@pytest.mark.parametrize("n", SIZES)
def test_hadamard_matrices_have_ones_only_and_orthogonal_rows(n):
    matrix = hadamard(n)
    assert (matrix.abs() == 1.0).all()
    assert (matrix @ matrix.T == n * torch.eye(n)).all()


def test_every_multiple_of_4_below_52_has_one_and_52_says_so():
    for n in range(4, 52, 4):
        hadamard(n)
    for n in (52, 3, 6, 0):
        with pytest.raises(ValueError, match="another number of channels"):
            hadamard(n)


def test_dimensions_that_teachers_have():
    for n in (128, 512, 768, 960, 1024, 1152, 1280, 1536, 1792, 2048):
        matrix = hadamard(n)
        assert (matrix[:5] @ matrix.T == n * torch.eye(n)[:5]).all()


@pytest.mark.parametrize("dim", [4, 12, 64])
def test_every_channel_ends_with_mean_0_and_deviation_1_and_distances_keep_their_ratios(dim):
    x = features(0, 4000, dim)
    standard = fit(moments(x))
    out = standard(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(dim), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(dim), atol=1e-3, rtol=0)
    ratio = torch.pdist(out[:30]) / torch.pdist(x[:30])
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)
    torch.testing.assert_close(standard.inverse(out), x, rtol=1e-4, atol=1e-2)


@given(st.integers(1, 59), st.integers(0, 10))
def test_batches_give_the_moments_of_all_at_once(cut, seed):
    x = features(seed, 60, 4)
    known, whole = merged(moments(x[:cut]), moments(x[cut:])), moments(x)
    assert known.count == 60
    torch.testing.assert_close(known.mean, whole.mean)
    torch.testing.assert_close(known.scatter, whole.scatter)
    torch.testing.assert_close(whole.scatter / 60, torch.cov(x.double().T, correction=0))


def test_a_map_is_measured_and_standardised_place_by_place():
    x = features(1, 2 * 3 * 5, 4)
    maps = x.reshape(2, 3, 5, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(moments(maps).scatter, moments(x).scatter)
    standard = fit(moments(x))
    out = standard(maps)
    assert out.shape == maps.shape
    torch.testing.assert_close(out.permute(0, 2, 3, 1).reshape(-1, 4), standard(x))
    torch.testing.assert_close(standard.inverse(out), maps, rtol=1e-4, atol=1e-3)


def test_a_fitted_one_is_restored_from_its_state():
    x = features(2, 100, 8)
    one = fit(moments(x))
    again = Standardiser(8)
    assert (again(x) == x).all()
    again.load_state_dict(one.state_dict())
    assert (again(x) == one(x)).all()
    assert not list(one.parameters())


def test_features_in_few_dimensions_are_not_blown_up():
    x = features(3, 500, 2) @ torch.randn(
        2, 16, generator=torch.Generator().manual_seed(0)
    )  # rank 2 in 16 channels
    out = fit(moments(x))(x)
    assert out.abs().max() < 20.0
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(16), atol=1e-2, rtol=0)


def test_features_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="do not vary"):
        fit(moments(torch.ones(10, 4)))


def test_fewer_axes_are_those_with_the_greatest_spread():
    plain = features(3, 500, 16)
    short = fit(moments(plain), 8)
    found = short(plain)
    assert found.shape == (500, 8)
    assert torch.allclose(found.mean(0), torch.zeros(8), atol=1e-3)
    assert torch.allclose(found.var(0, correction=0), torch.ones(8), rtol=1e-3)
    centred = (plain - plain.mean(0)).double()
    most = torch.linalg.svdvals(centred)[:8].square().sum()
    kept = (short.inverse(found) - plain.mean(0)).double().square().sum()
    assert float(kept / most) == pytest.approx(1, rel=1e-3)


def test_about_the_origin_cosines_stay_what_they_were():
    plain = features(4, 300, 16) + 100
    found = fit(moments(plain), centred=False)(plain)
    expected = torch.nn.functional.normalize(plain.double())
    seen = torch.nn.functional.normalize(found.double())
    assert torch.allclose(seen @ seen.T, expected @ expected.T, atol=1e-5)
    assert found.var(0, correction=0).mean() == pytest.approx(1, rel=1e-3)
    assert fit(moments(plain), 4, centred=False)(plain).shape == (300, 4)
