"""The key of a gallery, and the file that keeps it.

A line a key: its id, then its 32 bytes, both in hexadecimal. There are two lines only while a rotation is under way,
see ``agent.gallery.rotation``. 32 bytes in base64 alone are a key as well: that is what people make with a shell.
systemd may give the key instead, as a credential; then no file is made or changed here.
"""

import base64
import errno
import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from agent.gallery.disk import flush_folder, replace, write_new
from agent.gallery.types import GalleryError

CREDENTIAL = "cabinsense-gallery-key"
"""What systemd's credential is called (systemd.exec(5), LoadCredentialEncrypted=)."""
_SECRET = 32  # bytes of a key of AES-256
_LONGEST = 1024  # bytes; two lines have 162


@dataclass(frozen=True, slots=True)
class Key:
    """What opens a gallery.

    Attributes:
        secret: 32 random bytes.
    """

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Tells keys apart and says nothing else of them: 16 hexadecimal digits of a digest."""
        return hashlib.sha256(b"cabinsense gallery key\0" + self.secret).hexdigest()[:16]


def new_key() -> Key:
    """A key that nobody has."""
    return Key(secrets.token_bytes(_SECRET))


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Where the key of a gallery is kept.

    Attributes:
        path: of the file.
        given: systemd has put it there: it is read, and nothing else.
    """

    path: Path
    given: bool = False

    @classmethod
    def find(cls, path: Path) -> "KeyFile":
        """The credential that systemd has given this process, else the file at ``path``."""
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder and (credential := Path(folder) / CREDENTIAL).exists():
            return cls(credential, given=True)
        return cls(path)

    def exists(self) -> bool:
        """There is something at the path."""
        return os.path.lexists(self.path)

    def load(self) -> tuple[Key, ...]:
        """The keys in the file: one, or during a rotation two, the older one first.

        Raises:
            GalleryError: there is no such file, others may read it, or it holds something else.
        """
        keys = self._read()
        if not _usable(keys):
            # A rotation puts a new file in the place of the one that was opened, and zeros over what that held.
            keys = self._read()
        if not _usable(keys):
            raise GalleryError(
                f"{self.path} holds no key of a gallery, or a damaged one; put back a copy, or move it away together "
                "with the gallery and restore a backup with `cabinsense gallery import`"
            )
        return tuple(key for key in keys if key is not None)

    def _read(self) -> tuple[Key | None, ...]:
        """What each line of the file holds; raises GalleryError as ``load`` does."""
        try:
            with self.path.open("rb") as file:
                # systemd lets the service in by an access list, which shows as a permission of the group.
                if _others_may_read(file) and not self.given:
                    raise GalleryError(
                        f"{self.path}: others may read the key of the gallery; `chmod 600` it, and if somebody may "
                        "have read it, `cabinsense gallery rotate-key`"
                    )
                data = file.read(_LONGEST)
        except FileNotFoundError as error:
            raise GalleryError(
                f"{self.path}: the key of the gallery is missing; put it back there, or move the gallery away and "
                "restore a backup with `cabinsense gallery import`; docs/gallery.md says how a command gets a key that "
                "systemd keeps"
            ) from error
        except OSError as error:
            raise GalleryError(
                f"{self.path}: {error.strerror}; the key of the gallery must belong to the user who runs this"
            ) from error
        return tuple(_parsed(line) for line in data.split(b"\n") if line)

    def make(self) -> Key:
        """Write a new key where there is none yet.

        Raises:
            GalleryError: it cannot be written.
        """
        key = new_key()
        # What a power cut left of an earlier try goes: whoever makes a key holds the write lock of the gallery.
        spare = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            spare.unlink(missing_ok=True)
            write_new(spare, _written([key]))
            try:
                os.link(spare, self.path)  # all of it or nothing, and never over a key that exists
            finally:
                spare.unlink()
            flush_folder(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        return key

    def write(self, keys: Sequence[Key]) -> bool:
        """Replace what the file holds: after a power cut it holds either the old or the new.

        Returns:
            False if what it held before is kept, under a second name.

        Raises:
            GalleryError: it cannot be written.
        """
        try:
            # Of a link it is the file at its end that holds the key.
            return replace(self.path.resolve(), _written(keys))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> GalleryError:
        if error.errno == errno.ENOSPC:
            return GalleryError(
                f"{self.path} cannot be written: the disk is full; free some space and try again"
            )
        return GalleryError(
            f"{self.path}: {error.strerror}; this key and its folder must belong to the user who runs this"
        )


def _others_may_read(file: BinaryIO) -> bool:
    return bool(os.fstat(file.fileno()).st_mode & 0o077)


def _usable(keys: Sequence[Key | None]) -> bool:
    """One key, or the two of a rotation."""
    return 1 <= len(keys) <= 2 and None not in keys


def _written(keys: Sequence[Key]) -> bytes:
    """The content of a file of keys."""
    return b"".join(f"{key.id} {key.secret.hex()}\n".encode() for key in keys)


def _parsed(line: bytes) -> Key | None:
    """The key in a line; None if there is none, or its id is not its own."""
    name, _, secret = line.partition(b" ")
    try:
        key = Key(bytes.fromhex(secret.decode("ascii")) if secret else base64.b64decode(name, validate=True))
    except ValueError:
        return None
    own = key.id.encode() == name if secret else True
    return key if len(key.secret) == _SECRET and own else None
