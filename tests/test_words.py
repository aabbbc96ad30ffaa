"""Numbers in sentences: one of a thing is not many of it."""

import pytest

from agent.words import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 samples"), (1, "1 sample"), (2, "2 samples")])
def test_one_of_a_thing_is_told_as_one(number, said):
    assert counted(number, "sample") == said


def test_some_words_have_a_plural_of_their_own():
    assert [counted(number, "person", "people") for number in (1, 2)] == ["1 person", "2 people"]
