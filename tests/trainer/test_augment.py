import numpy as np

from calibration.fer2013 import to_chip
from trainer.augment import Augmentation, augment, augment_chip, disturb, random_similarity

NOTHING = Augmentation(**dict.fromkeys(Augmentation.__struct_fields__, 0.0))
FACE = np.random.default_rng(1).integers(0, 256, (6, 6)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def test_the_same_seed_gives_the_same_chip_and_another_seed_another():
    one, same, other = (augment(FACE, Augmentation(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (one == same).all()
    assert (one != other).any()
    assert one.dtype == np.uint8
    assert one.shape == (150, 150, 3)


def test_with_everything_turned_off_the_chip_is_the_plain_one():
    assert np.abs(augment(FACE, NOTHING, np.random.default_rng(0)).astype(int) - to_chip(FACE)).max() <= 1


def test_a_mirror_image_is_mirrored_about_the_middle_of_the_chip():
    always = Augmentation(**{**dict.fromkeys(Augmentation.__struct_fields__, 0.0), "flip": 1.0})
    mirrored = augment(FACE, always, np.random.default_rng(0))
    assert np.abs(mirrored.astype(int) - to_chip(FACE)[:, ::-1]).mean() < 1


def test_a_chip_varies_as_an_image_does_and_frames_with_one_seed_vary_alike():
    plain = to_chip(FACE)
    coloured = np.stack([plain[:, :, 0], 255 - plain[:, :, 0], plain[:, :, 0] // 2], axis=2)
    assert (augment_chip(coloured, NOTHING, np.random.default_rng(0)) == coloured).all()
    always = Augmentation(**{**dict.fromkeys(Augmentation.__struct_fields__, 0.0), "flip": 1.0})
    mirrored = augment_chip(coloured, always, np.random.default_rng(0))
    assert (mirrored == coloured[:, ::-1]).all()
    one, same = (augment_chip(coloured, Augmentation(), np.random.default_rng((2, 7))) for _ in range(2))
    assert (one == same).all()
    assert (one != augment_chip(coloured, Augmentation(), np.random.default_rng((3, 7)))).any()


def test_alignment_strays_no_further_than_the_settings_say():
    rng = np.random.default_rng(0)
    for _ in range(200):
        linear = random_similarity(Augmentation(flip=0.0), rng)[:, :2] / 3.33
        scale = np.sqrt(np.linalg.det(linear))
        assert 0.88 <= scale <= 1.12
        assert abs(np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))) <= 12


def test_a_disturbed_map_is_the_same_map_moved_with_a_hole_of_zeros():
    rng = np.random.default_rng(0)
    maps = rng.uniform(1, 2, (4, 17, 17)).astype(np.float16)
    assert (disturb(maps, 0, 0.0, rng) == maps).all()
    moved = disturb(maps, 2, 0.0, rng)
    offsets = [
        (y, x)
        for y in range(5)
        for x in range(5)
        if (moved[:, 2:15, 2:15] == maps[:, y : y + 13, x : x + 13]).all()
    ]
    assert len(offsets) == 1
    holed = disturb(maps, 0, 1.0, rng)
    hole = (holed == 0).all(axis=0)
    assert 9 <= hole.sum() <= 49
    assert (holed[:, ~hole] == maps[:, ~hole]).all()
