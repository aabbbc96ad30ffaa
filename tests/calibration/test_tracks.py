import numpy as np
import pytest

from agent.config import Config, Identity
from agent.images import read_image
from agent.networks import load
from agent.perception.chain import FaceReader
from agent.samples import clip
from calibration.halves import halves
from calibration.openset import Gallery
from calibration.tracks import (
    FRAMES,
    Track,
    follow,
    galleries,
    jittered,
    named,
    photographs,
    report,
    watch_clip,
)

TWO = Gallery(np.eye(4, dtype=np.float32)[:2], np.array([0, 1]))
VOTE = Identity(votes=3, window=9, margin=0.0)


def track(*people: int | None) -> Track:
    """A track in whose looks these people of ``TWO`` are seen, somebody else (2), or nothing good (None)."""
    rows = [np.eye(4)[who] for who in people if who is not None]
    good = [who is not None for who in people]
    return Track(np.array(rows, np.float32).reshape(-1, 4), np.array(good, np.bool_))


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ((0, 0, 0), {0}),
        ((0, 0), set()),
        ((2,) * 9, set()),
        ((0, 2, 0, 2, 0, 2, 0, 2, 0), set()),  # five of nine is less than two thirds
        ((0, None, 0, None, 0), {0}),
        ((None,) * 9, set()),
        ((0, 0, 0, 1, 1, 1, 1, 1, 1, 1), {0, 1}),
        ((), set()),
    ],
)
def test_a_track_is_named_as_the_vote_names_it(seen, found):
    assert named(track(*seen), TWO, 0.5, VOTE) == found


def test_the_frames_of_a_track_differ_a_little_and_are_the_same_each_time(samples):
    image = read_image(samples / "obama.jpg")[::3, ::3].copy()
    frames = list(jittered(image, FRAMES, 5))
    assert len(frames) == FRAMES
    assert (frames[0] == image).all()
    for frame in frames[1:]:
        assert frame.shape == image.shape
        assert 2 < np.abs(frame.astype(float) - image).mean() < 60
    again = list(jittered(image, FRAMES, 5))
    assert all((one == other).all() for one, other in zip(frames, again, strict=True))
    assert (list(jittered(image, 2, 6))[1] != frames[1]).any()


@pytest.fixture(scope="module")
def reader(pack):
    networks = load(pack, Config())
    yield FaceReader(networks, Config(), lambda: 0.0)
    networks.close()


def test_a_photograph_makes_a_track_of_looks_at_its_subject(reader, samples):
    (found,) = follow(reader, samples, ["obama.jpg"])
    assert found.good.sum() >= FRAMES - 2
    assert len(found.embeddings) == found.good.sum()
    cosines = found.embeddings @ found.embeddings[0]
    assert cosines.min() > 0.93
    assert cosines[1:].max() < 0.9999


def test_strangers_and_known_people_are_told_apart_by_split(crowd):
    looks = crowd(60, lambda who: 4, spread=0.1, dim=16)
    _, half = halves(looks, 12, 0.0, splits=4)
    chosen = photographs(half)
    assert [looks.person[look] for look in chosen] == half.people.tolist()
    tracks = [Track(np.repeat(looks.embeddings[[look]], 5, axis=0), np.ones(5, np.bool_)) for look in chosen]
    found = report(half, chosen, tracks, "mean", 0.01, 0.9, VOTE, (3, 0))
    assert found.galleries == 4
    assert found.strangers == 4 * (len(half.people) - 12)
    assert 0 < found.known < 4 * 12  # a photograph that is enrolled is not shown
    assert found.recognised == 1
    assert found.misnamed == 0
    assert found.named == 0
    assert found.named_interval == (0, pytest.approx(3 / len(half.people)))
    assert (found.clip, found.clip_named) == (3, 0)
    lax = report(half, chosen, tracks, "mean", 0.01, -1.0, VOTE, (0, 0))
    assert lax.named == 1
    assert lax.named_interval == (1, 1)


def test_large_galleries_are_shown_beside_those_of_a_car():
    assert galleries(500) == ((500, 10), (10, 50))
    assert galleries(8) == ((8, 10),)


def test_the_man_of_the_clip_is_named_by_no_threshold_worth_the_name_and_by_any_too_low(pack, reader, crowd):
    """The whole chain: detector, tracker, gate, network, vote."""
    looks = crowd(40, lambda who: 2, spread=0.1, dim=128)
    _, half = halves(looks, 5, 0.0, splits=1)
    config = Config()
    assert watch_clip(reader.networks, config, clip(), half, "mean", 0.9) == (1, 0)
    assert watch_clip(reader.networks, Config(identity=Identity(margin=0.0)), clip(), half, "mean", -1.0) == (
        1,
        1,
    )
