"""Two agents never share a gallery, and one that has died does not keep it."""

import multiprocessing
import os
import signal
import stat

import pytest

from agent.gallery.owner import owned
from agent.gallery.types import GalleryError

FORK = multiprocessing.get_context("fork")


def hold(path, ready) -> None:
    with owned(path):
        ready.send(os.getpid())
        signal.pause()


def test_a_second_agent_is_told_which_process_has_the_gallery(path):
    here, there = FORK.Pipe()
    first = FORK.Process(target=hold, args=[path, there])
    first.start()
    number = here.recv()
    with (
        pytest.raises(GalleryError, match=rf"in use by another agent \(process {number}\).*gallery.path"),
        owned(path, 0.1),
    ):
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    with owned(path):
        pass


def test_whoever_needs_it_for_a_moment_is_waited_for(path):
    here, there = FORK.Pipe()

    def briefly() -> None:
        with owned(path):
            there.send(1)
            here_too.poll(0.3)

    here_too, _ = FORK.Pipe()
    other = FORK.Process(target=briefly)
    other.start()
    here.recv()
    with owned(path, 20):
        pass
    other.join()


def test_one_gallery_does_not_block_another(path, tmp_path):
    with owned(path), owned(tmp_path / "other.db"), owned(path.parent / "other.db"):
        pass
    with owned(path):
        assert stat.S_IMODE(path.with_name("gallery.db.lock").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(GalleryError, match="must belong to the user"),
        owned(tmp_path / "file" / "gallery.db"),
    ):
        pass
