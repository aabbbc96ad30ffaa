import itertools

import cv2
import numpy as np
import pytest

from agent.config import Config
from agent.images import read_image
from agent.networks import load
from agent.perception.chain import FaceReader
from calibration.corruptions import EYES, KINDS, ON_IMAGES, SEVERITIES, corrupt

FRONTAL = np.array([[78, 95], [123, 95], [100, 120], [80, 145], [120, 145]], np.float32)


@pytest.fixture(scope="module")
def portrait(samples, pack):
    """A photograph in which the eyes are as far apart as in LFW's, and its reader."""
    networks = load(pack, Config())
    reader = FaceReader(networks, Config(), lambda: 0.0)
    image = read_image(samples / "obama.jpg")
    (face,) = reader.find(image)
    scale = EYES / float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    yield image, reader
    networks.close()


def noise(seed: int = 0) -> np.ndarray:
    """A picture with detail of every size, so that nothing that is done to it goes unseen."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(40, 200, (8, 8, 3)), (200, 200), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 12, (200, 200, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_kind_changes_a_copy_the_same_way_each_time(kind, severity):
    image = noise()
    before = image.copy()
    made = corrupt(image, kind, severity, 7, "Ada", FRONTAL)
    assert (image == before).all()
    assert made.dtype == np.uint8
    assert made.shape == image.shape
    assert (made != image).any()
    assert (corrupt(image, kind, severity, 7, "Ada", FRONTAL) == made).all()


@pytest.mark.parametrize("kind", ["low_light", "motion_blur", "sensor_noise"])
def test_seed_and_picture_decide_what_is_random(kind):
    image = noise()
    made = corrupt(image, kind, 3, 7, "Ada")
    assert (corrupt(image, kind, 3, 8, "Ada") != made).any()
    assert (corrupt(image, kind, 3, 7, "Bob") != made).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_is_the_less_like_itself_the_worse_it_gets(portrait, kind):
    image, reader = portrait
    (face,) = reader.find(image)
    good = reader.look(image, face).embedding
    cosines = []
    for severity in SEVERITIES:
        poor = corrupt(image, kind, severity, 0, "obama", face.landmarks)
        cosines.append(float(reader.look(poor, face).embedding @ good))
    assert cosines[0] > 0.95
    assert cosines[4] < 0.99
    assert all(later < earlier + 0.005 for earlier, later in itertools.pairwise(cosines))
    assert cosines[4] < cosines[0] - 0.005


def luma(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)


def detail(image: np.ndarray) -> float:
    return float(cv2.Laplacian(luma(image), cv2.CV_64F).var())


def test_low_light_is_dark_and_noisy_over_exposure_is_white():
    grey = np.full((100, 100, 3), 150, np.uint8)
    dark = [corrupt(grey, "low_light", severity) for severity in SEVERITIES]
    brightness = [luma(image).mean() for image in dark]
    grain = [luma(image).std() / luma(image).mean() for image in dark]
    assert brightness == sorted(brightness, reverse=True)
    assert grain == sorted(grain)
    assert brightness[0] < 130
    assert 20 < brightness[4] < 80
    bright = [luma(corrupt(grey, "over_exposure", severity)).mean() for severity in SEVERITIES]
    assert bright == sorted(bright)
    assert bright[4] == 255


def test_glare_comes_from_one_side():
    grey = np.full((100, 100, 3), 60, np.uint8)
    sides = set()
    for key in "abcdefgh":
        columns = luma(corrupt(grey, "side_glare", 4, key=key)).mean(axis=0)
        assert (np.diff(columns) <= 0).all() or (np.diff(columns) >= 0).all()
        assert abs(columns[0] - columns[-1]) > 50
        sides.add(columns[0] > columns[-1])
    assert sides == {True, False}


@pytest.mark.parametrize("kind", ["motion_blur", "defocus_blur", "low_resolution"])
def test_blur_takes_detail_away_and_leaves_light_as_it_is(kind):
    image = noise()
    left = [detail(corrupt(image, kind, severity, 1)) for severity in SEVERITIES]
    assert left == sorted(left, reverse=True)
    assert left[0] < detail(image) / 2
    for severity in SEVERITIES:
        assert luma(corrupt(image, kind, severity, 1)).mean() == pytest.approx(luma(image).mean(), abs=1.5)


def test_a_line_that_moves_is_smeared_in_one_direction():
    point = np.zeros((101, 101, 3), np.uint8)
    point[50, 50] = 255
    smeared = luma(corrupt(point, "motion_blur", 5, 3, landmarks=FRONTAL))
    rows, columns = np.nonzero(smeared > 1)
    spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
    assert spread[1] > 20 * spread[0]


def test_a_severity_means_the_same_for_a_small_and_a_large_picture(portrait):
    image, _ = portrait
    large = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    eyes = np.array([[0, 0], [EYES, 0], [20, 20], [5, 40], [40, 40]], np.float32)
    for kind in ("defocus_blur", "low_resolution"):
        small = corrupt(image, kind, 4, landmarks=eyes)
        other = corrupt(large, kind, 4, landmarks=3 * eyes)
        shrunk = cv2.resize(other, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
        assert np.abs(luma(small) - luma(shrunk)).mean() < 2.5


def test_glasses_cover_the_eyes_and_a_mask_the_mouth():
    image = noise()
    glasses = np.abs(luma(corrupt(image, "glasses", 5, landmarks=FRONTAL)) - luma(image)) > 10
    mask = np.abs(luma(corrupt(image, "mask", 4, landmarks=FRONTAL)) - luma(image)) > 10
    for x, y in FRONTAL[:2].astype(int):
        assert glasses[y - 5 : y + 6, x - 5 : x + 6].mean() > 0.9
        assert not mask[y - 5 : y + 6, x - 5 : x + 6].any()
    for x, y in FRONTAL[3:].astype(int):
        assert mask[y - 3 : y + 4, x - 3 : x + 4].mean() > 0.8
        assert not glasses[y - 5 : y + 6, x - 5 : x + 6].any()


def test_a_tilted_face_has_tilted_glasses():
    turn = cv2.getRotationMatrix2D((100, 110), 30, 1)
    tilted = (FRONTAL @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    grey = np.full((200, 200, 3), 128, np.uint8)
    covered = np.abs(luma(corrupt(grey, "glasses", 4, landmarks=tilted)) - 128) > 40
    for x, y in tilted[:2].astype(int):
        assert covered[y, x]
    rows, columns = np.nonzero(covered)
    slope = np.polyfit(columns, rows, 1)[0]
    assert slope == pytest.approx(np.tan(np.radians(-30)), abs=0.1)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="low_light, over_exposure"):
        corrupt(noise(), "fog", 1)
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(noise(), "jpeg", 6)
    with pytest.raises(ValueError, match="where the face is"):
        corrupt(noise(), "mask", 1)
    assert set(ON_IMAGES) < set(KINDS)
