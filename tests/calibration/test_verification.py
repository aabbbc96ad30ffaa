import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import verification
from calibration.lfw import Pair
from calibration.verification import Strangers, halves, report, score


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_the_score_of_a_pair_is_the_cosine_and_a_pair_with_a_lost_face_has_none():
    embeddings = {"a": unit(1, 0), "b": unit(1, 1), "c": None}
    pairs = [Pair("a", "b", True, 0), Pair("a", "c", False, 0), Pair("b", "b", True, 1)]
    scored = score(pairs, embeddings)
    assert scored.score[[0, 2]] == pytest.approx([math.sqrt(0.5), 1])
    assert np.isnan(scored.score[1])
    assert scored.undetected == 1
    assert scored.fold.tolist() == [0, 0, 1]


def test_when_no_face_is_found_anywhere_there_is_still_a_report():
    pairs = [Pair("a/1", "b/1" if index % 2 else "a/2", index % 2 == 0, index // 2) for index in range(4)]
    lost = {"a/1": None, "a/2": None, "b/1": None}
    figures = report(pairs, lost, score(pairs, lost), 0.5)
    assert figures.accuracy == 0
    assert figures.undetected == 3
    assert figures.undetected_pairs == 4
    assert figures.tested_on.far == figures.tested_on.tar == 0
    assert msgspec.json.decode(msgspec.json.encode(figures))["pairs"] == 4


def made_up(folds: int, each: int, seed: int = 0):
    """People in a space of 16 dimensions, no two pairs sharing one; photographs of one person lie close together."""
    rng = np.random.default_rng(seed)
    pairs, embeddings = [], {}
    for index in range(folds * 2 * each):
        genuine = index % (2 * each) < each
        centre = rng.normal(0, 1, 16)
        first, second = f"{index}a/1", f"{index}a/2" if genuine else f"{index}b/1"
        embeddings[first] = unit(*(centre + rng.normal(0, 0.4, 16)))
        embeddings[second] = unit(*((centre if genuine else 0) + rng.normal(0, 0.4 if genuine else 1, 16)))
        pairs.append(Pair(first, second, genuine, index // (2 * each)))
    return pairs, embeddings


def figures_of(pairs, embeddings):
    return report(pairs, embeddings, score(pairs, embeddings), 0.5)


def test_the_decision_threshold_is_chosen_on_one_half_and_tested_on_the_other():
    pairs, embeddings = made_up(folds=4, each=50)
    figures = figures_of(pairs, embeddings)
    assert figures.pairs == 400
    assert figures.chosen_on.threshold == figures.tested_on.threshold == figures.threshold
    assert 0.0009 < figures.chosen_on.far <= 0.001
    assert figures.tested_on.far == pytest.approx(0.001, rel=0.5)
    scored = score(pairs, embeddings)
    _, second = halves(scored.fold)
    same, strangers = second & scored.genuine, second & ~scored.genuine
    assert figures.tested_on.tar == (scored.score[same] >= figures.threshold).mean()
    assert figures.tested_on.listed_far == (scored.score[strangers] >= figures.threshold).mean()
    assert figures.pack_tested_on.listed_far == (scored.score[strangers] >= 0.5).mean()
    # The other half has no say: other faces there change nothing about the threshold.
    for pair in pairs[200:]:
        embeddings[pair.second] = unit(*np.ones(16))
    assert figures_of(pairs, embeddings).threshold == figures.threshold


def test_the_same_scores_give_the_same_report():
    pairs, embeddings = made_up(folds=3, each=40)
    figures = figures_of(pairs, embeddings)
    assert figures_of(pairs, embeddings) == figures
    low, high = figures.tar_at_far_interval["0.01"]
    assert low <= figures.tar_at_far["0.01"] <= high
    assert set(figures.tar_at_far) == {"0.01", "0.001"}


def test_the_first_half_of_an_odd_number_of_folds_is_the_smaller():
    first, second = halves(np.array([0, 1, 2]))
    assert first.tolist() == [True, False, False]
    assert second.tolist() == [False, True, True]


VECTOR = st.one_of(st.none(), st.floats(0, math.pi).map(lambda angle: unit(math.cos(angle), math.sin(angle))))
PHOTOGRAPHS = st.lists(st.tuples(st.sampled_from("abcd"), VECTOR), min_size=1, max_size=25)


@given(PHOTOGRAPHS, st.floats(0, 1), st.sampled_from([2, 7, 1024]))
def test_strangers_are_what_comparing_every_two_photographs_gives(photographs, far, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_BLOCK", block)
        strangers = Strangers(*zip(*photographs, strict=True))
        threshold = strangers.threshold(far)
        found, before = strangers.far(threshold), strangers.far(round(threshold - 0.0001, 4))
    cosines = [
        None if one is None or other is None else float(one @ other)
        for (who, one), (whom, other) in itertools.combinations(photographs, 2)
        if who != whom
    ]
    assert strangers.count == len(cosines)
    count = max(1, len(cosines))
    accepted = sum(cosine is not None and cosine >= threshold - 1e-6 for cosine in cosines)
    assert found <= min(far, accepted / count)
    assert before > far or threshold <= -0.9999
