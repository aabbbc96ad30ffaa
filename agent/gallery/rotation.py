"""A new key for the gallery.

The new key is in the file of keys, beside the old one, before anything is sealed with it, and the old one leaves that
file after everything is. In between the gallery itself says which of the two it is sealed with, and changes from one
to the other in one transaction; so at any moment, also after a power cut, the file of keys has the one that opens it.
All of it happens under the write lock of the gallery.
"""

from agent.gallery import backups
from agent.gallery.keys import new_key
from agent.gallery.types import GalleryError
from agent.gallery.vault import Vault


def rotate(vault: Vault) -> tuple[int, tuple[str, ...]]:
    """Seal everything with a new key and forget the old one.

    Returns:
        How many seals were made, and which files keep the old key, each with the reason: a second name of the file of
        keys, and backups of the gallery, which it can no longer open then, though their passphrase does.

    Raises:
        GalleryError: systemd gives the key; something in the gallery does not open; or a file cannot be written. The
            gallery is as before then.
    """
    if vault.keys.given:
        raise GalleryError(
            f"{vault.keys.path} is given by systemd and cannot be changed here; docs/gallery.md says how to rotate it"
        )
    newer = new_key()
    with vault.writing() as book:
        wiped = vault.keys.write([vault.key(), newer])
        count = book.reseal(newer)
        book.note("rotate-key", count=count)
    kept = () if wiped else (f"{vault.keys.path}: it has a second name, under which it stays as it was",)
    missed = finish(vault)
    vault.file.erase()
    return count, (*kept, *missed)


def finish(vault: Vault) -> tuple[str, ...]:
    """Bring a rotation to its end, also one that a power cut has interrupted; else do nothing.

    Returns:
        The backups that keep the old key, as ``rotate`` does.

    Raises:
        GalleryError: the file of keys cannot be written.
    """
    if vault.keys.given or len(vault.keys.load()) == 1:
        return ()
    with vault.file.writing():
        keys, current = vault.keys.load(), vault.key()
        missed = backups.rewrap(vault, keys, current)
        vault.keys.write([current])
    return missed
