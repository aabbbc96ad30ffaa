"""By how much the threshold rises: as many strangers are let in as were before, and never fewer than that by chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adaptation.rise import HIGHEST, raised
from calibration.rises import between, rise


def unit(*cosines: float) -> np.ndarray:
    """Float32 [n, 2] of length 1 with these cosines to (1, 0)."""
    found = np.array(cosines)
    return np.stack([found, np.sqrt(1 - found**2)], axis=1).astype(np.float32)


def test_half_of_the_way_to_one_is_a_rise_of_one_half():
    before = np.linspace(0.9, 0.5, 2000).astype(np.float32)
    # At a FAR of 1 % the 21st stranger is the first to be kept out: 0.9 - 20 * 0.4 / 1999.
    threshold = float(before[20])
    after = 1 - 0.5 * (1 - before)
    found = between(before, after, [0.01])
    assert found == pytest.approx(0.5, abs=2e-4)
    assert (after > raised(threshold, found)).sum() <= 20


def test_the_greatest_rise_of_several_shares_counts():
    before = np.linspace(0.9, 0.5, 2000).astype(np.float32)
    after = before.copy()
    after[10] = 0.95  # at 0.5 %, ten strangers
    assert between(before, after, [0.01]) == 0
    assert between(before, after, [0.01, 0.005]) == pytest.approx(
        (0.95 - before[10]) / (1 - before[10]), abs=2e-4
    )
    after[1] = 0.99  # one of 2,000 is chance
    assert between(before, after, [0.01, 0.0005]) == 0


def test_only_strangers_count():
    templates, enrolled = unit(1.0, 1.0), np.array([1, 2])
    clean, asked = unit(0.8, 0.8), np.array([1, 2])
    # Each is compared with the other person alone: 0.8 before, 0.9 of the first and 0.8 of the second after.
    assert rise(unit(0.9, 0.8), clean, asked, templates, enrolled) == pytest.approx(0.5, abs=2e-4)
    assert rise(clean, clean, asked, templates, enrolled) == 0
    with pytest.raises(ValueError, match="one person"):
        rise(clean, clean, np.ones(2, np.int64), templates, np.ones(2, np.int64))


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=60), st.data())
def test_whatever_the_cosines_a_rise_is_possible_and_lets_in_no_more(before, data):
    size = len(before)
    after = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size))
    one, other = (np.sort(np.float32(each))[::-1] for each in (before, after))
    found = between(one, other, [0.3])
    assert 0 <= found <= HIGHEST
    most = int(0.3 * size)
    if found < HIGHEST and one[most] < 1:
        assert (other > raised(float(one[most]), found) + 1e-6).sum() <= most
