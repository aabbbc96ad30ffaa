"""Two engines of a model: the spare one is changed and takes over; nothing leaks, nothing half-changed comes back."""

import threading

import pytest

from engines.engine import EngineError
from engines.spare import Spare


class Costly:
    """Something that is made and scrapped."""

    def __init__(self):
        self.scrapped = 0


@pytest.fixture
def made():
    return []


@pytest.fixture
def spare(made):
    def make():
        made.append(Costly())
        return made[-1]

    def scrap(each):
        each.scrapped += 1

    return Spare(make, scrap)


def test_the_spare_one_is_used_again(spare, made):
    live = spare.take()
    for _ in range(10):
        new = spare.take()
        spare.give_back(live)
        live = new
    assert len(made) == 2
    assert not any(each.scrapped for each in made)


def test_what_is_in_use_is_never_given_to_another(spare, made):
    used = [spare.take() for _ in range(4)]
    assert len({id(each) for each in used}) == len(made) == 4


def test_no_more_than_one_is_kept_in_reserve(spare):
    live, *others = [spare.take() for _ in range(4)]
    for each in others:
        spare.give_back(each)
    assert sum(each.scrapped for each in others) == 2
    assert live.scrapped == 0
    assert spare.take().scrapped == 0


def test_one_that_was_left_half_changed_never_comes_back(spare, made):
    live = spare.take()
    broken = spare.take()
    spare.drop(broken)
    assert broken.scrapped == 1
    assert spare.take() not in (live, broken)
    assert len(made) == 3


def test_when_the_last_one_is_closed_nothing_is_held(spare, made):
    old, new = spare.take(), spare.take()
    spare.give_back(old)
    spare.give_back(new)
    assert [each.scrapped for each in made] == [1, 1]


def test_when_the_last_one_breaks_nothing_is_held(spare, made):
    old, new = spare.take(), spare.take()
    spare.give_back(old)
    spare.drop(new)
    assert [each.scrapped for each in made] == [1, 1]


def test_one_that_cannot_be_made_does_not_count():
    scrapped = []
    tries = iter([Costly(), EngineError("no memory"), Costly()])

    def make():
        each = next(tries)
        if isinstance(each, EngineError):
            raise each
        return each

    spare = Spare(make, scrapped.append)
    live = spare.take()
    with pytest.raises(EngineError, match="no memory"):
        spare.take()
    new = spare.take()
    spare.give_back(live)
    spare.give_back(new)
    assert scrapped == [live, new]


def test_threads_never_share_one(spare, made):
    used, clashes = set(), []

    def exchange():
        for _ in range(500):
            each = spare.take()
            if id(each) in used:
                clashes.append(each)
            used.add(id(each))
            used.discard(id(each))
            spare.give_back(each)

    threads = [threading.Thread(target=exchange) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
    assert all(each.scrapped == 1 for each in made)
