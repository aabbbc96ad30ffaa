"""One gallery belongs to one agent.

Two agents on one file would not lose anybody, for SQLite lets one write at a time; but neither would notice whom the
other has enrolled, or forgotten. So an agent holds a lock for as long as it runs; the kernel drops it with the process,
however that ends. The command line holds it while it changes a gallery that no agent uses.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.gallery.types import GalleryError

_STEP_S = 0.05


@contextmanager
def owned(gallery: Path, wait_s: float = 2.0) -> Iterator[None]:
    """Within, the gallery at this path is nobody else's.

    Args:
        gallery: path of its file, which need not exist yet.
        wait_s: how long to wait for another process that has it; a change takes milliseconds.

    Raises:
        GalleryError: another process has it, or the lock's file cannot be written.
    """
    path = gallery.with_name(gallery.name + ".lock")
    try:
        gallery.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise GalleryError(
            f"{path}: {error.strerror}; the gallery and its folder must belong to the user who runs this"
        ) from error
    try:
        until = time.monotonic() + wait_s
        while not _locked(handle):
            if time.monotonic() > until:
                holder = os.pread(handle, 20, 0).decode("ascii", "replace")
                raise GalleryError(
                    f"{gallery} is in use by another agent (process {holder}); stop that one, or name another "
                    "file under gallery.path; a command reaches it with its configuration"
                )
            time.sleep(_STEP_S)
        with suppress(OSError):  # on a full disk the others are told of no number
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
