import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from engines.errors import UserError
from trainer.data.reading import DataError, Pictures, TooMuchDamageError, fit, load, rgb
from trainer.data.samplers import InOrder


class Squares:
    """Pictures of one colour, the item's number; the items in ``bad`` cannot be read."""

    def __init__(self, count, bad=()):
        self.labels = np.arange(count, dtype=np.int64) * 10
        self.bad = set(bad)

    def read(self, index):
        if index in self.bad:
            raise UserError(f"{self.name(index)}: broken")
        return np.full((4, 4, 3), index % len(self.labels), np.uint8)

    def name(self, index):
        return f"square {index}"


def test_a_picture_comes_as_planes_of_bytes_with_its_class():
    image, label = Pictures(Squares(3))[2]
    assert image.shape == (3, 4, 4)
    assert image.dtype == torch.uint8
    assert (image == 2).all()
    assert label == 20


def test_a_batch_stacks_pictures_and_classes():
    images, labels = next(load(Pictures(Squares(5)), InOrder(5, 4)))
    assert images.shape == (4, 3, 4, 4)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 10, 20, 30]


def test_in_place_of_what_cannot_be_read_stands_the_next_with_its_own_class():
    pictures = Pictures(Squares(6, bad={2, 3, 5}))
    seen = [(int(image[0, 0, 0]), label) for image, label in (pictures[item] for item in range(6))]
    assert seen == [(0, 0), (1, 10), (4, 40), (4, 40), (4, 40), (0, 0)]
    assert pictures.damage.items == [2, 3, 5]


def test_damage_counts_once_however_often_it_is_met():
    pictures = Pictures(Squares(6, bad={2}), limit=1)
    for _ in range(20):
        assert pictures[2][1] == 30
    assert pictures.damage.items == [2]


def test_more_damage_than_allowed_is_an_error_that_names_the_first_ten():
    pictures = Pictures(Squares(30, bad=range(15)), limit=14)
    with pytest.raises(TooMuchDamageError) as told:
        pictures[0]
    lines = str(told.value).splitlines()
    assert lines[0].startswith("15 of 30 items cannot be read; at most 14")
    assert lines[1:11] == [f"  square {item}: broken" for item in range(10)]
    assert lines[11:] == ["  and 5 more"]


def test_where_nothing_can_be_read_reading_ends_even_below_the_limit():
    with pytest.raises(TooMuchDamageError):
        Pictures(Squares(5, bad=range(5)), limit=100)[0]


def test_an_empty_data_set_is_told_at_once():
    with pytest.raises(DataError, match="no picture"):
        Pictures(Squares(0))


def test_all_workers_count_together_and_the_parent_knows():
    pictures = Pictures(Squares(40, bad={1, 11, 21, 31}), limit=4)
    seen = [label for _, labels in load(pictures, InOrder(40, 5), workers=2) for label in labels.tolist()]
    assert len(seen) == 40
    assert pictures.damage.items == [1, 11, 21, 31]


def test_a_worker_that_finds_too_much_is_told_of_without_its_trace():
    pictures = Pictures(Squares(40, bad=range(0, 40, 2)), limit=5)
    with pytest.raises(TooMuchDamageError) as told:
        list(load(pictures, InOrder(40, 5), workers=2))
    assert "Traceback" not in str(told.value)
    assert "square 0: broken" in str(told.value)
    assert not multiprocessing.active_children()  # whoever keeps the error does not keep the workers


def test_a_data_set_can_be_pickled():
    copy = pickle.loads(pickle.dumps(Pictures(Squares(3, bad={0}))))  # noqa: S301 - its own bytes
    assert copy[0][1] == 10


def test_with_workers_the_batches_are_those_of_one_process():
    alone = list(load(Pictures(Squares(9, bad={4})), InOrder(9, 2)))
    helped = list(load(Pictures(Squares(9, bad={4})), InOrder(9, 2), workers=2))
    assert len(alone) == len(helped) == 5
    for (images, labels), (others, names) in zip(alone, helped, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, names)


def test_fitting_takes_the_middle_and_keeps_what_fits():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    assert (fit(wide, 4) == 200).all()
    assert (fit(wide, 2) == 200).all()
    assert (fit(wide.transpose(1, 0, 2), 7) == 200).all()
    right = np.ones((5, 5, 3), np.uint8)
    assert fit(right, 5) is right


def test_shrinking_averages_rather_than_picks():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert fit(noise, 8).std() < noise.std() / 6


def test_colours_are_turned_round():
    assert rgb(np.array([[[1, 2, 3]]], np.uint8)).tolist() == [[[3, 2, 1]]]
