from pathlib import Path

import pytest

from trainer.data.faces import Cut

PEOPLE = 14
PHOTOS = 6


@pytest.fixture(scope="session")
def some_faces(lfw, tmp_path_factory) -> Path:
    """A folder with some people of LFW, six photographs each."""
    root = tmp_path_factory.mktemp("some")
    folders = [folder for folder in sorted(lfw.iterdir()) if folder.is_dir()]
    enough = [folder for folder in folders if len(list(folder.iterdir())) >= PHOTOS]
    for folder in enough[:PEOPLE]:
        (root / folder.name).mkdir()
        for photo in sorted(folder.iterdir())[:PHOTOS]:
            (root / folder.name / photo.name).symlink_to(photo)
    return root


@pytest.fixture(scope="session")
def cut(pack, tmp_path_factory) -> Cut:
    """How faces are cut, once for all tests."""
    return Cut(pack=str(pack.path), keep=str(tmp_path_factory.mktemp("cut") / "faces"))


@pytest.fixture(scope="session")
def settings(some_faces, cut) -> list[str]:
    """Settings of a run of seconds on real faces."""
    return [
        f"people.root={some_faces}",
        "people.pairs=",
        "people.held_out=0.3",
        f"people.cut.pack={cut.pack}",
        f"people.cut.keep={cut.keep}",
        "width=0.25",
        "dim=32",
        "side=48",
        "batch=16",
        "steps=24",
        "interval=4",
        "evaluate=0",
        "learning_rate=0.05",
        "threads=1",
        *(f"augment.{effect}=0" for effect in ("erase", "blur", "coarse", "noise", "jpeg", "grey", "gain")),
    ]
