"""Files that survive a power cut whole, or not at all."""

import os
from contextlib import suppress
from pathlib import Path


def write_new(path: Path, data: bytes) -> None:
    """Write a file that its owner alone may read, down to the disk; there is none if that fails.

    Raises:
        OSError: there is one already, or it cannot be written.
    """
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        flush_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def flush_folder(folder: Path) -> None:
    """See to it that a power cut does not undo a change of a file's name.

    Raises:
        OSError: the disk fails.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
