"""Where the agent keeps what it keeps."""

import os
from pathlib import Path


def data_dir() -> Path:
    """The folder of packs and the gallery.

    The first of: ``CABINSENSE_DATA``; ``STATE_DIRECTORY``, which systemd sets for a service; ``XDG_DATA_HOME``; the
    user's ``~/.local/share``.
    """
    for variable in ("CABINSENSE_DATA", "STATE_DIRECTORY"):
        if value := os.environ.get(variable):
            return Path(value)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "cabinsense"


def cache_dir() -> Path:
    """The folder of verified downloads, which any number of checkouts may share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cabinsense"


def samples_dir() -> Path:
    """The folder of the sample clip and photographs, for trying things out."""
    return cache_dir() / "samples"


def key_of(gallery: Path) -> Path:
    """Where the key of a gallery is kept, unless something else is asked for: beside it."""
    return gallery.with_name(gallery.stem + ".key")


def runtime_dir() -> Path:
    """The folder of sockets: the service's ``RUNTIME_DIRECTORY``, the user's, or a folder below the data."""
    if value := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(value)
    if value := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(value) / "cabinsense"
    return data_dir() / "run"
