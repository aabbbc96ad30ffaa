import cv2
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.augment import NOTHING, Augmentation, augment, generator, homographies, two_views
from trainer.data.samplers import Share


def only(**settings) -> Augmentation:
    return msgspec.structs.replace(NOTHING, **settings)


def smooth(count: int, side: int = 48) -> torch.Tensor:
    """Pictures with shapes and colours, uint8 [count, 3, side, side]."""
    rng = np.random.default_rng(4)
    images = [
        cv2.resize(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8), (side, side)) for _ in range(count)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def flat(count: int, grey: int, side: int = 48) -> torch.Tensor:
    return torch.full((count, 3, side, side), grey, dtype=torch.uint8)


def test_the_same_numbers_give_the_same_variants_and_others_others():
    faces = smooth(8)
    one, same, other = (augment(faces, Augmentation(), generator(1, 2, step)) for step in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.dtype == torch.uint8
    assert one.shape == faces.shape


def test_what_is_given_is_not_changed():
    faces = smooth(8).float() / 255
    before = faces.clone()
    augment(faces, Augmentation(blur=1, noise=1, coarse=1, jpeg=1, flip=0), generator(0))
    assert torch.equal(faces, before)


def test_with_everything_off_pictures_stay_as_they_are():
    for faces in (smooth(3), smooth(3).float() / 255):
        assert torch.equal(augment(faces, NOTHING, generator(0)), faces)
        # Nor does an effect that none is chosen for change anything.
        assert torch.equal(augment(faces, only(flip=1e-12), generator(0)), faces)


def test_two_views_of_a_face_differ():
    faces = smooth(4)
    one, other = two_views(faces, Augmentation(), generator(0))
    assert all((a != b).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_that_share_a_batch_make_what_one_makes(ranks):
    faces = smooth(16)
    whole = two_views(faces, Augmentation(), generator(7))
    for rank in range(ranks):
        share = Share(rank, ranks)
        part = two_views(faces[share.of(16)], Augmentation(), generator(7), share)
        for all_of_them, own in zip(whole, part, strict=True):
            assert (all_of_them[share.of(16)].int() - own.int()).abs().max() <= 1  # sums in another order


def test_turning_an_effect_off_leaves_the_others_as_they_were():
    faces = smooth(12)
    both = augment(faces, only(flip=0.5, gain=1), generator(3))
    flips = augment(faces, only(flip=0.5), generator(3))
    assert torch.equal(both, augment(flips, only(gain=1), generator(3)))


SETTINGS = st.builds(
    Augmentation,
    **{
        name: st.sampled_from([0.0, 0.5, 1.0])
        for name in ("flip", "erase", "grey", "blur", "coarse", "noise", "jpeg")
    },
    **{name: st.sampled_from([0.0, 60.0]) for name in ("yaw", "pitch", "roll")},
    **{name: st.sampled_from([0.0, 0.5]) for name in ("scale", "shift", "shade", "saturation")},
    **{name: st.sampled_from([0.0, 4.0]) for name in ("gamma", "gain", "colour")},
)


@given(SETTINGS, st.sampled_from([17, 32]), st.integers(0, 9), st.booleans())
def test_even_the_strongest_settings_give_pictures(settings, side, seed, whole):
    faces = smooth(3, side) if whole else smooth(3, side).float() / 255
    variants = augment(faces, settings, generator(seed))
    assert variants.shape == faces.shape
    assert variants.dtype == faces.dtype
    assert torch.isfinite(variants.float()).all()
    assert variants.min() >= 0
    assert variants.max() <= (255 if whole else 1)


def test_about_as_many_as_asked_for_are_mirrored_and_those_exactly():
    faces = smooth(1).repeat(400, 1, 1, 1)
    variants = augment(faces, only(flip=0.3), generator(0))
    mirrored = (variants == faces.flip(-1)).flatten(1).all(1)
    assert ((variants == faces).flatten(1).all(1) ^ mirrored).all()
    assert 90 <= mirrored.sum() <= 150


def drawn(**values):
    """Draws in the middle but for these."""
    names = ("yaw", "pitch", "roll", "scale", "shift_x", "shift_y")
    return {name: torch.tensor([values.get(name, 0.5)], dtype=torch.float64) for name in names}


def moved(matrix, *point):
    x, y, w = (matrix[0] @ torch.tensor([*point, 1.0], dtype=torch.float64)).tolist()
    return x / w, y / w


def test_a_face_that_is_not_turned_stays():
    (matrix,) = homographies(Augmentation(), drawn(), 112)
    assert torch.allclose(matrix / matrix[2, 2], torch.eye(3, dtype=torch.float64))


def test_roll_turns_about_the_middle():
    matrix = homographies(only(roll=30), drawn(roll=1.0), 101)
    assert moved(matrix, 50, 50) == pytest.approx((50, 50))
    assert moved(matrix, 90, 50) == pytest.approx((50 + 40 * np.cos(np.pi / 6), 50 + 40 * np.sin(np.pi / 6)))


def test_yaw_is_seen_as_by_a_camera_three_sides_away():
    # A point half a side right of the middle, turned by 30 degrees about the upright axis, is nearer by sin 30° / 2.
    matrix = homographies(only(yaw=30), drawn(yaw=1.0), 101)
    x, y = 101 / 2 * np.cos(np.pi / 6), 101 / 4
    depth = 3 - 0.5 * np.sin(np.pi / 6)
    assert moved(matrix, 50 + 101 / 2, 50 + y) == pytest.approx((50 + 3 * x / depth, 50 + 3 * y / depth))
    assert moved(matrix, 50, 50) == pytest.approx((50, 50))


def test_pitch_narrows_upwards_or_downwards():
    matrix = homographies(only(pitch=30), drawn(pitch=1.0), 101)
    top, bottom = (moved(matrix, 90, y)[0] - moved(matrix, 10, y)[0] for y in (10, 90))
    assert top != pytest.approx(bottom)
    assert moved(matrix, 50, 90)[1] - moved(matrix, 50, 10)[1] < 80


def test_scale_and_shift_are_parts_of_the_side():
    matrix = homographies(only(scale=0.1, shift=0.05), drawn(scale=1.0, shift_x=1.0, shift_y=0.0), 100)
    assert moved(matrix, 49.5, 49.5) == pytest.approx((54.5, 44.5))
    assert moved(matrix, 59.5, 49.5)[0] == pytest.approx(54.5 + 11)


def test_the_picture_is_moved_as_the_points_are():
    faces = flat(1, 0, 101)
    faces[:, :, 48:53, 78:83] = 255  # a dot about (80, 50)
    settings, draws = only(roll=20, yaw=20), generator(5)
    variant = augment(faces, settings, draws)[0, 0].float()
    again = torch.rand(1, 33, generator=generator(5), dtype=torch.float64)[0]
    matrix = homographies(settings, drawn(yaw=again[1], pitch=again[2], roll=again[3]), 101)
    rows, columns = torch.meshgrid(torch.arange(101.0), torch.arange(101.0), indexing="ij")
    seen = ((variant * columns).sum() / variant.sum(), (variant * rows).sum() / variant.sum())
    assert [float(value) for value in seen] == pytest.approx(moved(matrix, 80, 50), abs=0.5)


def test_an_infrared_camera_sees_no_colour():
    variants = augment(smooth(4), only(grey=1, flip=0.5), generator(0)).int()
    assert (variants[:, 0] - variants[:, 1]).abs().max() <= 1
    assert (variants[:, 0] - variants[:, 2]).abs().max() <= 1


def test_gamma_gain_and_colour_are_powers_of_two():
    grey = augment(flat(300, 64), only(gain=1), generator(0))[:, 0, 0, 0].float() / 64
    assert 0.5 <= grey.min() < 0.55
    assert 1.8 < grey.max() <= 2
    power = torch.log(augment(flat(300, 64).float() / 255, only(gamma=1), generator(0))[:, 0, 0, 0])
    power = power / np.log(64 / 255)
    assert 0.49 <= power.min() < 0.55
    assert 1.8 < power.max() <= 2.01
    channels = augment(flat(50, 64), only(colour=1), generator(0))[:, :, 0, 0].float()
    assert channels.std(dim=1).mean() > 5


def test_shade_falls_off_across_the_face():
    variant = augment(flat(60, 100), only(shade=1), generator(0)).float()
    assert (variant.mean(dim=(1, 2, 3)) - 100).abs().max() < 1
    corners = variant[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners.amax(1) - corners.amin(1)).max() > 60
    assert (corners.sum(1) - 400).abs().max() <= 3  # what one side gains, the other loses


def test_one_rectangle_of_one_colour_is_erased_at_most_so_large():
    variants = augment(flat(60, 100), only(erase=1, erase_most=0.5), generator(0))
    for variant in variants:
        hole = (variant != 100).any(0)
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        if not len(rows):
            continue  # a grey one
        inside = variant[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].flatten(1)
        assert (inside == inside[:, :1]).all()
        assert inside.shape[1] == hole.sum() <= (48 * 0.5 + 1) ** 2


def test_blur_and_coarseness_take_fine_detail_away():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 48, 48)).astype(np.uint8))
    for settings in (only(blur=1, blur_most=5), only(coarse=1, coarse_least=0.2)):
        variants = augment(noise, settings, generator(0)).float()
        assert variants.std(dim=(1, 2, 3)).mean() < 0.8 * noise.float().std()
        assert (variants.mean(dim=(1, 2, 3)) - noise.float().mean(dim=(1, 2, 3))).abs().max() < 3
    still = flat(3, 77)
    assert torch.equal(augment(still, only(blur=1, coarse=1), generator(0)), still)


def test_noise_is_stronger_in_the_light_and_of_no_direction():
    settings = only(noise=1, noise_most=10)
    dark, light = (augment(flat(40, grey), settings, generator(0)).float() - grey for grey in (20, 200))
    assert light.std() > 1.4 * dark.std()
    assert light.mean().abs() < 0.2
    assert light.std(dim=(1, 2, 3)).max() <= 10


@pytest.mark.parametrize("side", [64, 75])
def test_jpeg_s_traces_are_about_those_that_jpeg_leaves(side):
    faces = smooth(6, side)
    variants = augment(faces, only(jpeg=1, jpeg_least=20), generator(0))
    quality = 20 + 70 * torch.rand(6, 33, generator=generator(0), dtype=torch.float64)[:, -1]
    for face, variant, of in zip(faces, variants, quality.tolist(), strict=True):
        image = face.permute(1, 2, 0).numpy()[:, :, ::-1]
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, round(of)])
        real = torch.from_numpy(cv2.imdecode(code, cv2.IMREAD_COLOR)[:, :, ::-1].copy()).permute(2, 0, 1)
        assert (variant.float() - real.float()).abs().mean() < 3
        assert not torch.equal(variant, face)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(3, 8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 9), torch.zeros(2, 3, 8, 8).int()],
)
def test_what_are_no_pictures_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        augment(wrong, Augmentation(), generator(0))


def test_settings_out_of_range_are_refused():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"yaw": 90}, Augmentation)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"jaw": 9}, Augmentation)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_makes_the_same_variants_but_for_noise_and_rounding():
    faces = smooth(32, 112)
    settings = msgspec.structs.replace(Augmentation(), noise=0.0)
    here, there = (
        augment(faces.to(device), settings, generator(1)).cpu().int() for device in ("cpu", "cuda")
    )
    assert (here - there).abs().float().mean() < 0.2
    once, twice = (augment(faces.to("cuda"), Augmentation(), generator(1)) for _ in range(2))
    assert torch.equal(once, twice)
