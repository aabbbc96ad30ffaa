import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.lfw import Pair, all_photographs, person, read_pairs
from trainer.data.reading import DataError
from trainer.data.split import (
    Split,
    by_pairs,
    by_share,
    digest_of_arrays,
    digest_of_files,
    drawn,
    first_of_each,
    made_pairs,
)


def test_nobody_of_lfws_test_is_trained_on(lfw):
    people = {person(photo) for photo in all_photographs(lfw)}
    split, pairs = by_pairs(people, read_pairs(lfw / "pairs.txt"), range(5, 10))
    on_pairs = {person(photo) for pair in pairs for photo in (pair.first, pair.second)}
    assert len(pairs) == 3000
    assert on_pairs == set(split.held_out)
    assert not on_pairs & set(split.training)
    assert set(split.training) | on_pairs == people
    assert len(split.training) > 1000


def test_somebody_who_is_on_a_pair_of_two_folds_is_held_out():
    pairs = [
        Pair("A/A_0001.jpg", "A/A_0002.jpg", genuine=True, fold=0),
        Pair("A/A_0001.jpg", "B/B_0001.jpg", genuine=False, fold=1),
    ]
    split, judging = by_pairs(["A", "B", "C"], pairs, {1})
    assert split.training == ("C",)
    assert judging == pairs[1:]


def test_a_fold_that_is_not_there_is_told():
    with pytest.raises(DataError, match="no fold 3"):
        by_pairs(["A"], [Pair("A/A_0001.jpg", "B/B_0001.jpg", genuine=False, fold=0)], {3})


def test_a_person_on_both_sides_is_an_error():
    with pytest.raises(DataError, match="Ann would be trained on and tested on"):
        Split(("Ann", "Bob"), ("Ann",))


@given(st.sets(st.text(min_size=1, max_size=8), max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_share_splits_each_person_the_same_way_in_every_data_set(people, share, less):
    whole = by_share(people, share)
    assert sorted(whole.training + whole.held_out) == sorted(people)
    for name in people:
        alone = by_share([name], share)
        assert (name in whole.held_out) == (name in alone.held_out)
    # Whoever is held out of a small share is held out of a larger one.
    assert set(by_share(people, min(share, less)).held_out) <= set(
        by_share(people, max(share, less)).held_out
    )


def test_a_share_is_about_that_large():
    people = [f"person {number}" for number in range(4000)]
    assert abs(len(by_share(people, 0.2).held_out) - 800) < 100
    assert not by_share(people, 0).held_out
    assert not by_share(people, 1).training


def test_the_digest_knows_names_and_sizes_but_not_the_order_or_the_place(tmp_path):
    for root in ("here", "there"):
        (tmp_path / root / "A").mkdir(parents=True)
        (tmp_path / root / "A" / "1.jpg").write_bytes(b"123")
        (tmp_path / root / "A" / "2.jpg").write_bytes(b"12")
    here = digest_of_files(tmp_path / "here", ["A/1.jpg", "A/2.jpg"])
    assert here == digest_of_files(tmp_path / "there", ["A/2.jpg", "A/1.jpg"])
    assert here != digest_of_files(tmp_path / "here", ["A/1.jpg"])
    (tmp_path / "there" / "A" / "1.jpg").write_bytes(b"1234")
    assert here != digest_of_files(tmp_path / "there", ["A/1.jpg", "A/2.jpg"])
    with pytest.raises(DataError, match=r"3\.jpg"):
        digest_of_files(tmp_path / "here", ["A/3.jpg"])


def test_the_digest_of_arrays_knows_type_shape_and_content():
    zeros = np.zeros((2, 3), np.uint8)
    others = [np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.int8), np.ones((2, 3), np.uint8)]
    assert len({digest_of_arrays(array) for array in [zeros, *others]}) == 4
    assert digest_of_arrays(zeros) == digest_of_arrays(zeros.copy(order="F"))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=120), st.floats(0.1, 1), st.integers(2, 8))
def test_people_without_names_are_held_out_by_number_if_pairs_can_be_made_of_them(labels, share, most):
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    counts = np.bincount(labels)
    able = int((counts > 1).sum())
    wanted = min(round(share * len(counts)), most, able)
    if wanted < 2:
        with pytest.raises(DataError, match="two photographs"):
            drawn(labels, share, most)
        return
    found = drawn(labels, share, most)
    assert found.sum() == wanted
    assert (counts[found] > 1).all()
    assert (drawn(labels, share, most) == found).all()
    items = first_of_each(labels, found, 3)
    for number in np.flatnonzero(found):
        assert items[labels[items] == number].tolist() == np.flatnonzero(labels == number)[:3].tolist()
    assert found[labels[items]].all()


def test_pairs_are_made_of_everybody_and_as_many_of_strangers():
    photos = [f"{name}/{number}" for name, count in (("a", 2), ("b", 6), ("c", 1)) for number in range(count)]
    pairs = made_pairs(photos)
    genuine = [pair for pair in pairs if pair.genuine]
    assert [person(pair.first) for pair in genuine] == ["a"] + ["b"] * 10
    assert len(pairs) == 2 * len(genuine)
    assert all(person(pair.first) != person(pair.second) for pair in pairs if not pair.genuine)
    with pytest.raises(DataError, match="two photographs"):
        made_pairs(["a/0", "b/0"])
