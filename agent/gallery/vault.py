"""The gallery's file together with the key that opens it."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.gallery.book import Book
from agent.gallery.file import File, damaged
from agent.gallery.keys import Key, KeyFile
from agent.gallery.migrations import VERSION, migrate, version
from agent.gallery.types import GalleryError


class Vault:
    """An open gallery of this version, and its key.

    Attributes:
        file: as SQLite knows it.
        keys: where the key is kept.
    """

    def __init__(self, file: File, keys: KeyFile) -> None:
        """Use ``open`` instead: it checks the file first."""
        self.file = file
        self.keys = keys
        self._known: dict[str, Key] = {}

    @classmethod
    def open(cls, path: Path, key: Path, *, readonly: bool) -> "Vault":
        """Open the gallery at ``path``; unless ``readonly``, make it and its key, or bring it up to date.

        Args:
            path: of the file.
            key: where its key is kept, unless systemd gives it.
            readonly: change nothing.

        Raises:
            GalleryError: as ``File.open``; or the file is of a newer version, or (``readonly``) an older one; or its
                key is missing, or is another.
        """
        file = File.open(path, readonly=readonly)
        try:
            vault = cls(file, KeyFile.find(key))
            if not readonly:
                file.log_ahead()
                vault._make()
            _check_version(file)
            with file.reading():
                vault.key()
        except BaseException:
            file.close()
            raise
        return vault

    def key(self) -> Key:
        """The key that seals the gallery now; it may be another than a moment ago, for another process rotates it.

        Raises:
            GalleryError: it is missing, or the file of keys has another.
        """
        wanted = self.file.value("SELECT key FROM vault")
        if wanted is None:
            raise damaged(self.file.path, "it does not say which key it is sealed with")
        if wanted not in self._known:
            self._known = {key.id: key for key in self.keys.load()}
        if wanted in self._known:
            return self._known[wanted]
        raise GalleryError(
            f"{self.keys.path} is not the key of {self.file.path}, which is sealed with key {wanted}; put that one "
            "back, or move the gallery away and restore a backup with `cabinsense gallery import`"
        )

    @contextmanager
    def unchecked(self) -> Iterator[Book]:
        """A transaction that reads, also from a gallery that is damaged."""
        with self.file.reading():
            yield Book(self.file, self.key())

    @contextmanager
    def reading(self) -> Iterator[Book]:
        """A transaction that reads from a gallery that is whole.

        Raises:
            GalleryError: it is not.
        """
        with self.unchecked() as book:
            book.check()
            yield book

    @contextmanager
    def writing(
        self, despite: Callable[[Book], Collection[int]] = lambda _: (), measured: str = ""
    ) -> Iterator[Book]:
        """A transaction that changes the gallery: all that happens inside, or nothing.

        Args:
            despite: says which rows of people may be damaged, see ``Book.check``.
            measured: the pack whose threshold may be.

        Raises:
            GalleryError: what is there is damaged.
        """
        with self.file.writing():
            book = Book(self.file, self.key())
            book.check(despite(book), measured)
            yield book
            book.stamp()

    def _make(self) -> None:
        """Bring the file to this version."""
        if version(self.file) == VERSION:
            return
        with self.file.writing():
            if version(self.file) < VERSION:  # no other process was quicker
                migrate(self.file, self.keys.load()[0] if self.keys.exists() else self.keys.make())


def _check_version(file: File) -> None:
    if version(file) < VERSION:
        raise GalleryError(
            f"{file.path} was made by an older version, or is empty; `cabinsense run` brings it up to date"
        )
