import dataclasses

import cv2
import msgspec
import numpy as np
import pytest

from calibration.lfw import Pair
from calibration.quality import KINDS, POSSIBLE, Bench, spoil


@pytest.fixture(scope="module")
def material(crowd):
    """Three photographs each of 60 people, pairs of them, and the same people in poor pictures."""
    looks = crowd(60, lambda who: 3, spread=0.4, dim=16)
    photos = [f"{looks.names[who]}/{index}" for index, who in enumerate(looks.person)]
    pairs = []
    for who in range(60):
        one, two, _ = np.flatnonzero(looks.person == who)
        other = np.flatnonzero(looks.person == (who + 1) % 60)[0]
        pairs += [
            Pair(photos[one], photos[two], True, who % 2),
            Pair(photos[one], photos[other], False, who % 2),
        ]
    rng = np.random.default_rng(1)
    poor = []
    for index, sample in enumerate(looks.samples):
        row = sample.embedding + rng.normal(0, 0.2, 16).astype(np.float32)
        quality = dataclasses.replace(sample.quality, reasons=("blurred",) if index % 4 == 0 else ())
        seen = dataclasses.replace(sample, embedding=row / np.linalg.norm(row), quality=quality)
        poor.append(None if index % 10 == 9 else seen)
    return pairs, photos, looks, dataclasses.replace(looks, samples=poor)


def test_poor_pictures_cost_something_and_each_pairing_is_reported(material):
    pairs, photos, good, poor = material
    bench = Bench(pairs, photos, good, 20, "mean", 0.0)
    best, mixed, worst = rows = [bench.good_row(), *bench.rows("sensor_noise", poor)]
    report = bench.report(3, 0, rows)
    assert [(row.kind, row.pairing) for row in report.rows] == [
        ("", "high_high"),
        ("sensor_noise", "low_high"),
        ("sensor_noise", "low_low"),
    ]
    assert (report.pairs, report.enrolled) == (120, 20)
    assert report.mated == 10 * 20
    assert report.strangers == 10 * 40 * 3
    assert best.undetected == best.refused == 0
    assert mixed.undetected == worst.undetected == 0.1
    assert mixed.refused == pytest.approx(0.25, abs=0.05)
    for row in rows:
        for rates in (row.one_to_one, row.one_to_many):
            assert rates.interval[0] <= rates.recall <= rates.interval[1]
    # What is lost with a face cannot be won back by any threshold.
    assert best.one_to_one.recall > mixed.one_to_one.recall > worst.one_to_one.recall
    assert best.one_to_many.recall > mixed.one_to_many.recall > worst.one_to_many.recall
    assert worst.one_to_one.recall < 0.85
    # On good pictures the fixed threshold is their own.
    assert best.one_to_one.fixed_recall == best.one_to_one.recall
    assert best.one_to_many.fixed_far <= 0.01
    assert msgspec.json.decode(msgspec.json.encode(report))["rows"][2]["pairing"] == "low_low"


def test_pictures_that_make_all_alike_raise_the_false_rate_of_a_threshold_that_is_set(material):
    pairs, photos, good, _ = material
    common = np.ones(16, np.float32) / 4
    alike = []
    for sample in good.samples:
        row = sample.embedding + 1.0 * common
        alike.append(dataclasses.replace(sample, embedding=row / np.linalg.norm(row)))
    bench = Bench(pairs, photos, good, 20, "mean", 0.0)
    _, worst = bench.rows("low_light", dataclasses.replace(good, samples=alike))
    assert worst.one_to_one.fixed_far > 0.15
    assert worst.one_to_many.fixed_far > 0.3
    assert worst.one_to_many.recall < worst.one_to_many.fixed_recall


def test_a_photograph_is_spoiled_by_its_name_and_the_seed():
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8), (120, 120))
    assert set(KINDS) <= set(POSSIBLE)
    one = spoil("sensor_noise", 3, 0, image, "Ada/1.jpg")
    assert (one == spoil("sensor_noise", 3, 0, image, "Ada/1.jpg")).all()
    assert (one != spoil("sensor_noise", 3, 0, image, "Ada/2.jpg")).any()
    assert (one != spoil("sensor_noise", 3, 1, image, "Ada/1.jpg")).any()
