"""A single look decides nothing; several that agree do; and a decision can be overturned."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.config import Identity
from agent.perception.types import Match
from agent.perception.vote import EmotionSmoother, IdentityVote, softmax


def look(person: str | None, score: float = 0.95) -> Match:
    return Match(person, score, 0.9, 0.5, None if person else "below_threshold")


def vote(*people: str | None, settings: Identity | None = None) -> IdentityVote:
    result = IdentityVote(settings or Identity())
    for person in people:
        result.add(look(person))
    return result


def test_one_good_look_is_not_enough():
    assert vote("Ada").state == "seen"


def test_three_looks_that_agree_confirm():
    decided = vote("Ada", "Ada", "Ada")
    assert decided.state == "confirmed"
    assert decided.match.person == "Ada"


def test_three_looks_that_name_nobody_make_unknown_with_the_reason():
    decided = vote(None, None, None)
    assert decided.state == "unknown"
    assert decided.match.reason == "below_threshold"


def test_one_odd_look_does_not_overturn_a_decision():
    decided = vote("Ada", "Ada", "Ada", "Bob", None, "Ada")
    assert decided.match.person == "Ada"


def test_when_another_person_takes_the_seat_the_decision_follows():
    decided = vote(*["Ada"] * 9, *["Bob"] * 6)
    assert decided.state == "confirmed"
    assert decided.match.person == "Bob"


def test_people_who_alternate_are_nobody_certain():
    assert vote(*["Ada", "Bob"] * 4).state == "seen"


def test_looks_that_agree_on_nothing_for_a_whole_window_are_told_as_ambiguous():
    decided = vote(*["Ada", "Bob"] * 5)
    assert decided.state == "unknown"
    assert (decided.match.person, decided.match.reason, decided.match.score) == (None, "ambiguous", 0.95)
    for _ in range(6):
        decided.add(look("Bob"))
    assert (decided.state, decided.match.person) == ("confirmed", "Bob")


def test_a_name_does_not_stand_for_ever_on_looks_that_say_anything_else():
    decided = vote(*["Ada"] * 9, *["Bob", "Cid", None] * 2, "Bob")
    assert (decided.state, decided.match.person, decided.match.reason) == ("unknown", None, "ambiguous")


def test_when_people_change_seats_nobody_is_unknown_in_between():
    decided = vote(*["Ada"] * 9)
    states = set()
    for _ in range(9):
        decided.add(look("Bob"))
        states.add((decided.state, decided.match.person))
    assert states == {("confirmed", "Ada"), ("confirmed", "Bob")}


windows = st.integers(2, 20).flatmap(lambda window: st.tuples(st.integers(1, window), st.just(window)))
anybody = st.sampled_from(["Ada", "Bob", "Cid", None])


@given(windows, st.lists(anybody, max_size=30), st.data())
def test_one_odd_look_never_flips_a_confirmed_track(sizes, before, data):
    """Whatever was before: once a track is Ada's and all newest looks agree, a look that says otherwise, one in any
    window, changes nothing."""
    votes, window = sizes
    decided = vote(*before, *["Ada"] * window, settings=Identity(votes=votes, window=window))
    assert (decided.state, decided.match.person) == ("confirmed", "Ada")
    for _ in range(data.draw(st.integers(1, 4))):
        decided.add(look(data.draw(st.sampled_from(["Bob", None]))))
        assert (decided.state, decided.match.person) == ("confirmed", "Ada")
        for _ in range(window - 1 + data.draw(st.integers(0, 3))):
            decided.add(look("Ada"))
            assert (decided.state, decided.match.person) == ("confirmed", "Ada")


@given(st.integers(1, 20), st.integers(0, 20), st.sampled_from(["Bob", None]))
def test_a_track_that_has_just_been_confirmed_withstands_an_odd_look_too(votes, more, other):
    """However few looks there are yet."""
    decided = vote(*["Ada"] * (votes + more), settings=Identity(votes=votes, window=votes + more + 1))
    decided.add(look(other))
    assert (decided.state, decided.match.person) == ("confirmed", "Ada")


@given(st.permutations(["Ada"] * 7 + [None] * 2))
def test_two_looks_that_cannot_tell_ada_from_bob_leave_her_ada(looks):
    """With the default settings, wherever in a window they fall."""
    decided = vote("Ada", "Ada", "Ada")
    for person in looks:
        decided.add(replace(look(person), reason=None if person else "ambiguous"))
        assert (decided.state, decided.match.person) == ("confirmed", "Ada")


def test_a_face_that_is_never_good_ends_as_unknown_without_a_match():
    undecided = IdentityVote(Identity())
    for _ in range(Identity().window):
        undecided.add_poor()
    assert undecided.state == "unknown"
    assert undecided.match is None


def test_a_few_poor_looks_do_not_take_away_a_decision():
    decided = vote("Ada", "Ada", "Ada")
    for _ in range(Identity().window - 1):
        decided.add_poor()
    assert decided.state == "confirmed"


def test_a_face_that_cannot_be_recognised_any_more_does_not_stay_somebody_for_ever():
    decided = vote("Ada", "Ada", "Ada")
    for _ in range(Identity().window):
        decided.add_poor()
    assert (decided.state, decided.match) == ("unknown", None)
    for _ in range(3):
        decided.add(look("Bob"))
    assert decided.match.person == "Bob"


def test_the_score_told_is_the_newest_of_that_person():
    decided = vote("Ada", "Ada", "Ada")
    decided.add(look("Ada", 0.99))
    assert decided.match.score == 0.99
    decided.add(look(None, 0.1))
    assert decided.match.score == 0.99


LABELS = ("happy", "neutral")


def test_an_expression_follows_at_its_time_constant():
    smoother = EmotionSmoother(LABELS, 1.0)
    smoother.add(np.array([10, -10], np.float32), 0.0)
    after_one = smoother.add(np.array([-10, 10], np.float32), 1.0)
    assert after_one.probabilities[0] == pytest.approx(np.exp(-1), abs=1e-3)
    assert after_one.label == "neutral"


def test_the_first_look_is_named_by_its_likeliest_expression():
    assert EmotionSmoother(("a", "b", "c"), 0.6).add(np.log(np.float32([0.32, 0.36, 0.32])), 0.0).label == "b"


def test_a_tie_does_not_flicker():
    smoother = EmotionSmoother(LABELS, 0.0)
    assert smoother.add(np.array([1.0, 0.0], np.float32), 0.0).label == "happy"
    assert smoother.add(np.array([0.0, 0.05], np.float32), 0.1).label == "happy"
    assert smoother.add(np.array([0.0, 1.0], np.float32), 0.2).label == "neutral"


@given(hnp.arrays(np.float32, 7, elements=st.floats(-80, 80, width=32)))
def test_softmax_is_a_distribution_in_the_order_of_its_logits(logits):
    probabilities = softmax(logits)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities[logits.argmax()] == probabilities.max()
