import pickle
import shutil

import cv2
import numpy as np
import pytest

from agent.images import ImageError
from calibration.lfw import LfwError
from trainer.data.identities import IdentityFolders
from trainer.data.reading import DataError, Pictures, load
from trainer.data.samplers import InOrder


def test_lfw_is_people_with_photographs(lfw):
    source = IdentityFolders(lfw, 112)
    assert len(source.people) > 4000
    assert len(source.photos) == len(source.labels) > len(source.people)
    assert source.people[source.labels[100]] == source.photos[100].split("/")[0]
    image, label = Pictures(source)[100]
    assert image.shape == (3, 112, 112)
    assert label == source.labels[100]
    assert "not there" not in source.name(100)


def test_the_colours_are_red_green_blue(lfw):
    source = IdentityFolders(lfw, 250, people={"Aaron_Eckhart"})
    image = cv2.imread(source.name(0))
    assert (source.read(0) == image[:, :, ::-1]).all()


def test_only_those_wanted_come_and_their_classes_have_no_gaps(lfw):
    wanted = {"George_W_Bush", "Aaron_Eckhart", "Tony_Blair"}
    source = IdentityFolders(lfw, 112, people=wanted)
    assert source.people == ("Aaron_Eckhart", "George_W_Bush", "Tony_Blair")
    assert set(source.labels.tolist()) == {0, 1, 2}
    several = IdentityFolders(lfw, 112, people=wanted, least=2)
    assert set(several.people) == {
        name for number, name in enumerate(source.people) if (source.labels == number).sum() >= 2
    }


def test_the_digest_follows_the_photographs(lfw, tmp_path):
    for name in ("Aaron_Eckhart", "Tony_Blair"):
        shutil.copytree(lfw / name, tmp_path / name, copy_function=shutil.copyfile)
        (tmp_path / name).chmod(0o755)
    here = IdentityFolders(lfw, 112, people={"Aaron_Eckhart", "Tony_Blair"}).digest()
    copied = IdentityFolders(tmp_path, 64)
    assert copied.digest() == here
    (tmp_path / copied.photos[0]).unlink()
    assert IdentityFolders(tmp_path, 64).digest() != here


def test_a_damaged_photograph_is_named_and_passed_over_also_by_workers(lfw, tmp_path):
    shutil.copytree(lfw / "Tony_Blair", tmp_path / "Tony_Blair", copy_function=shutil.copyfile)
    (tmp_path / "Tony_Blair").chmod(0o755)
    first, *_ = sorted((tmp_path / "Tony_Blair").iterdir())
    first.write_bytes(first.read_bytes()[:300])
    pictures = Pictures(IdentityFolders(tmp_path, 32))
    count = len(pictures)
    batches = list(load(pictures, InOrder(count, 8), workers=2))
    assert sum(len(images) for images, _ in batches) == count
    assert pictures.damage.items == [0]
    assert str(first) in pictures.report()
    with pytest.raises(ImageError):
        pictures.source.read(0)


def test_a_source_can_be_pickled(lfw):
    source = IdentityFolders(lfw, 32, people={"Tony_Blair"})
    assert (pickle.loads(pickle.dumps(source)).read(0) == source.read(0)).all()  # noqa: S301 - its own bytes


def test_no_photographs_or_nobody_left_is_told(tmp_path):
    with pytest.raises(LfwError, match="no photographs"):
        IdentityFolders(tmp_path / "nowhere", 112)
    (tmp_path / "Ann").mkdir()
    cv2.imwrite(str(tmp_path / "Ann" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="nobody"):
        IdentityFolders(tmp_path, 112, least=2)
    with pytest.raises(DataError, match="nobody"):
        IdentityFolders(tmp_path, 112, people={"Bob"})
