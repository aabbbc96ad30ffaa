"""The gallery as the command line changes it, beside a running daemon or without one.

SQLite lets one process write at a time. What only the daemon can do at once, it is asked for; what needs a passphrase,
or photographs, is done here, and the daemon is told to read the gallery anew.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.config import Config
from agent.control import Done, ReloadGallery, Request, daemon_listens, request
from agent.gallery.owner import owned
from agent.gallery.store import Gallery

ANSWER_S = 10.0
"""How long to wait for the daemon: a change takes milliseconds, but the disk may be slow or in use."""


def opened(config: Config, *, readonly: bool = False) -> Gallery:
    """The gallery that the configuration names."""
    return Gallery.open(config.gallery_path, key=config.gallery_key_path, readonly=readonly)


def asked(config: Config, change: Request) -> Done | None:
    """What the running daemon replies to a request; None if none runs.

    Raises:
        ControlError: it refuses, or does not answer.
    """
    if not daemon_listens(config.control_endpoint):
        return None
    return request(config.control_endpoint, change, Done, ANSWER_S, curve=config.curve)


@contextmanager
def changing(config: Config) -> Iterator[Gallery]:
    """The gallery, to be changed here; a daemon that runs knows of it afterwards.

    Raises:
        GalleryError: an agent uses the gallery that does not listen where the configuration says.
        ControlError: the daemon cannot be told; the change is made.
    """
    if daemon_listens(config.control_endpoint):
        with opened(config) as gallery:
            yield gallery
        request(config.control_endpoint, ReloadGallery(), Done, ANSWER_S, curve=config.curve)
        return
    with owned(config.gallery_path), opened(config) as gallery:
        yield gallery
