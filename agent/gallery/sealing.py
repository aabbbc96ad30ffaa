"""Sealing: what may not be read is encrypted, and what may not be changed is stamped.

Both are AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits. A seal holds only together with what it is about:
a sealed embedding opens only as a sample of its person, made by its pack, with the figures that stand beside it. A
stamp is a seal with nothing inside. A key may make 2^32 seals before the chance that two share a nonce counts (section
8.3); a gallery makes a few dozen an enrolment.
"""

import os
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12
TAG = 16
"""Bytes at the start and at the end of a seal."""

Fact = str | bytes | int | float | None | Sequence["Fact"]
"""What a seal can be about."""


class TamperedError(Exception):
    """A seal does not open: it, or what it is about, was changed, or another key made it."""


class Sealer:
    """Makes and opens seals with one key."""

    def __init__(self, secret: bytes) -> None:
        """``secret``: 32 random bytes."""
        self._aes = AESGCM(secret)

    def close(self, content: bytes, *about: Fact) -> bytes:
        """``content``, encrypted and bound to ``about``, the first fact of which says what kind of thing it is."""
        nonce = os.urandom(NONCE)
        return nonce + self._aes.encrypt(nonce, content, _context(about))

    def open(self, sealed: object, *about: Fact) -> bytes:
        """The content of a seal that ``close`` made about the same facts.

        Raises:
            TamperedError: it is none.
        """
        if not isinstance(sealed, bytes) or len(sealed) < NONCE + TAG:
            raise TamperedError
        try:
            return self._aes.decrypt(sealed[:NONCE], sealed[NONCE:], _context(about))
        except InvalidTag:
            raise TamperedError from None

    def stamp(self, *about: Fact) -> bytes:
        """A seal with nothing inside."""
        return self.close(b"", *about)

    def stamped(self, stamp: object, *about: Fact) -> bool:
        """Whether ``stamp`` was made about these facts."""
        try:
            return not self.open(stamp, *about)
        except TamperedError:
            return False


def _context(about: Sequence[Fact]) -> bytes:
    """Facts as bytes that no others give: MessagePack says of each what it is and how long."""
    return msgspec.msgpack.encode(about)
