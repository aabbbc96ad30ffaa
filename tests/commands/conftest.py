"""People of LFW as users have them: a folder for each, all below one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def some_people(lfw, tmp_path_factory) -> Callable[..., Path]:
    """Makes a folder of the first people of LFW of whom there are so many photographs, or more, with links to these."""

    def make(*groups: tuple[int, int]) -> Path:
        """For each group how many people, and how many photographs of each."""
        root, taken = tmp_path_factory.mktemp("people"), set()
        for count, images in groups:
            rich = (
                folder
                for folder in sorted(lfw.iterdir())
                if folder.is_dir() and folder.name not in taken and len(os.listdir(folder)) >= images  # noqa: PTH208 - a list is counted
            )
            for _, folder in zip(range(count), rich, strict=False):
                taken.add(folder.name)
                (root / folder.name).mkdir()
                for photo in sorted(folder.iterdir())[:images]:
                    (root / folder.name / photo.name).symlink_to(photo)
        return root

    return make
