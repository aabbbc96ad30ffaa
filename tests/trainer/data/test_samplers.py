from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.reading import DataError
from trainer.data.samplers import Balanced, Endless, InOrder, Share, Shuffled, State, after

SIZES = st.tuples(st.integers(1, 200), st.integers(1, 50)).filter(lambda sizes: sizes[0] >= sizes[1])


@given(SIZES, st.integers(0, 2**31), st.integers(0, 100))
def test_an_epoch_has_every_item_at_most_once_and_leaves_out_less_than_a_batch(sizes, seed, epoch):
    items, batch = sizes
    batches = list(Shuffled(items, batch, seed).batches(epoch))
    seen = [item for each in batches for item in each]
    assert all(len(each) == batch for each in batches)
    assert len(set(seen)) == len(seen) > items - batch
    assert set(seen) <= set(range(items))


@given(SIZES, st.integers(0, 3), st.data())
def test_an_epoch_goes_on_from_any_step_as_if_it_had_not_stopped(sizes, epoch, data):
    sampler = Shuffled(*sizes, seed=7)
    step = data.draw(st.integers(0, sampler.steps))
    assert list(sampler.batches(epoch, step)) == list(sampler.batches(epoch))[step:]


def test_epochs_and_seeds_differ():
    orders = {tuple(next(Shuffled(50, 50, seed).batches(epoch))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_processes_together_see_the_batches_of_one(ranks):
    alone = list(Shuffled(100, 12, 3).batches(5))
    parts = [list(Shuffled(100, 12, 3, Share(rank, ranks)).batches(5)) for rank in range(ranks)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == alone


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_processes_together_see_the_balanced_batches_of_one(ranks):
    labels = np.arange(90, dtype=np.int64) % 9
    alone = list(Balanced(labels, 4, 3, 3).batches(5))
    parts = [list(Balanced(labels, 4, 3, 3, Share(rank, ranks)).batches(5)) for rank in range(ranks)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == alone


@given(
    st.lists(st.integers(0, 6), min_size=12, max_size=80).filter(lambda labels: len(set(labels)) >= 3),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 3),
    st.data(),
)
def test_a_balanced_batch_has_different_people_and_of_each_so_many_pictures(
    labels, people, each, epoch, data
):
    labels = np.array(labels, np.int64)
    sampler = Balanced(labels, people, each, seed=1)
    batches = list(sampler.batches(epoch))
    assert len(batches) == sampler.steps
    for batch in batches:
        found = Counter(labels[batch].tolist())
        assert len(found) == people
        assert set(found.values()) == {each}
        for person in found:
            of_person = [item for item in batch if labels[item] == person]
            assert len(set(of_person)) == min(
                each, int((labels == person).sum())
            )  # different ones while there are
    step = data.draw(st.integers(0, sampler.steps))
    assert list(sampler.batches(epoch, step)) == batches[step:]


def test_people_with_many_pictures_come_no_more_often_than_others():
    labels = np.repeat(np.arange(4, dtype=np.int64), [400, 4, 4, 4])
    seen = Counter(labels[item] for batch in Balanced(labels, 2, 2, 0).batches(0) for item in batch)
    assert max(seen.values()) - min(seen.values()) <= 4


def test_too_few_people_or_items_are_told():
    with pytest.raises(DataError, match="2 people are too few"):
        Balanced(np.array([0, 0, 1]), 3, 2, 0)
    with pytest.raises(DataError, match="do not fill one batch"):
        Shuffled(3, 4, 0)
    with pytest.raises(DataError, match="cannot be shared evenly by 2"):
        Shuffled(30, 5, 0, Share(0, 2))


def test_a_run_goes_on_from_where_it_was_over_the_end_of_an_epoch():
    sampler = Shuffled(10, 3, 0)
    whole = list(islice(Endless(sampler), 8))
    assert whole == [batch for epoch in range(3) for batch in sampler.batches(epoch)][:8]
    for done in range(8):
        state = after(sampler, State(), done)
        assert state.step < sampler.steps
        assert list(islice(Endless(sampler, state), 8 - done)) == whole[done:]


def test_a_place_at_the_end_of_an_epoch_is_the_start_of_the_next():
    sampler = Shuffled(10, 3, 0)
    assert next(iter(Endless(sampler, State(0, 3)))) == next(iter(Endless(sampler, State(1, 0))))


def test_items_numbered_anew_are_the_same_items_with_other_numbers():
    plain, anew = Shuffled(10, 5, 1), Shuffled(10, 5, 1, anew=True)
    for epoch in range(3):
        for one, other in zip(plain.batches(epoch), anew.batches(epoch), strict=True):
            assert [item - 10 * epoch for item in other] == one


@given(st.integers(0, 50), st.integers(1, 10), st.integers(1, 4))
def test_in_order_every_item_comes_once_from_some_process(items, batch, ranks):
    parts = [InOrder(items, batch, Share(rank, ranks)) for rank in range(ranks)]
    assert [item for part in parts for each in part for item in each] == list(range(items))
    assert all(len(list(part)) == len(part) for part in parts)
