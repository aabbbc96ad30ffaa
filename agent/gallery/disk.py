"""Files that survive a power cut whole, or not at all."""

import os
from contextlib import suppress
from pathlib import Path

_BLOCK = 1 << 20


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


def replace(path: Path, data: bytes) -> bool:
    """Put a new file in the place of one, and zeros over what that held; after a power cut there is one of the two.

    Returns:
        False if what the old one held is kept, under a second name.

    Raises:
        OSError: it cannot be done; the old one is still there, or the new one is already.
    """
    newer = path.with_name(path.name + ".new")
    newer.unlink(missing_ok=True)  # left by a power cut
    with path.open("r+b") as old:
        write_new(newer, data)
        try:
            newer.replace(path)
        except BaseException:
            with suppress(OSError):
                newer.unlink()
            raise
        flush_folder(path.parent)
        state = os.fstat(old.fileno())
        if state.st_nlink:
            return False
        for start in range(0, state.st_size, _BLOCK):
            old.write(bytes(min(_BLOCK, state.st_size - start)))
        old.flush()
        os.fsync(old.fileno())
    return True


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
