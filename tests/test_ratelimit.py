from hypothesis import given
from hypothesis import strategies as st

from agent.ratelimit import RateLimit


def test_so_many_a_minute_and_then_a_wait():
    limit = RateLimit(2)
    assert limit.wait(100.0) == 0
    limit.count(100.0)
    limit.count(110.0)
    assert limit.wait(115.0) == 45.0
    assert limit.wait(159.9) > 0
    assert limit.wait(160.0) == 0


@given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=40))
def test_in_no_minute_are_there_more(most, steps):
    limit, now, done = RateLimit(most), 0.0, []
    for step in steps:
        now += step
        if limit.wait(now) == 0:
            limit.count(now)
            done.append(now)
    assert all(later - earlier >= 60 for earlier, later in zip(done, done[most:], strict=False))
