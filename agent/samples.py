"""The sample clip and photographs, once they have been fetched."""

from pathlib import Path

from agent import paths
from engines.errors import UserError


class SampleError(UserError):
    """A sample is not there; the message says how to fetch it."""


def clip() -> Path:
    """The in-car clip: 120 frames of a man in a car, 176×144.

    Raises:
        SampleError: it has not been fetched.
    """
    path = paths.samples_dir() / "carphone_pristine.mp4"
    if not path.exists():
        raise SampleError(
            f"{path}: the sample clip is not there; `cabinsense models fetch --samples` fetches it"
        )
    return path
