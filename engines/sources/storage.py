"""Files and folders that appear whole or not at all, and a lock against a second process that makes the same."""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock ``file``, waiting for whoever has it; a killed process lets go of it by itself.

    Raises:
        OSError: the file cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is at work in %s; waiting for it", file.parent)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write_file(file: Path, data: bytes) -> None:
    """Write ``file`` so that it holds all of ``data`` or what it held before, even when the power fails.

    Raises:
        OSError: it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    _sync_folder(file.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; it takes the place of ``target`` when the block ends without an error.

    The caller holds a lock. After a power cut between the two renames ``target`` is missing, never half there.

    Raises:
        OSError: a folder cannot be made or moved.
    """
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _sync_folder(fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
