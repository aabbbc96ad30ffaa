import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.common.distributed import World
from trainer.common.sampling import drawn
from trainer.common.settings import ConfigError


@given(
    count=st.integers(4, 60), batch=st.sampled_from([2, 4]), seed=st.integers(0, 5), steps=st.integers(1, 40)
)
def test_an_epoch_holds_every_sample_once_and_where_one_begins_does_not_matter(count, batch, seed, steps):
    whole = list(drawn(count, batch, seed, 0, 2 * (count // batch) + steps, World()))
    epoch = np.concatenate(whole[: count // batch])
    assert len(set(epoch.tolist())) == len(epoch) == count // batch * batch
    later = list(drawn(count, batch, seed, steps, count // batch, World()))
    assert all((a == b).all() for a, b in zip(later, whole[steps:], strict=False))


def test_processes_share_a_batch():
    one = next(drawn(40, 8, 3, 7, 1, World()))
    parts = [next(drawn(40, 8, 3, 7, 1, World(rank, 4))) for rank in range(4)]
    assert sorted(np.concatenate(parts)) == sorted(one)


@pytest.mark.parametrize(
    ("count", "batch", "size", "named"), [(5, 8, 1, "5 samples"), (50, 9, 2, "multiple"), (50, 4, 4, "two")]
)
def test_what_cannot_be_shared_is_named(count, batch, size, named):
    with pytest.raises(ConfigError, match=named):
        next(drawn(count, batch, 1, 0, 1, World(0, size)))
