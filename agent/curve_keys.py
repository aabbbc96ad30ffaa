"""Keys of the network (CURVE): the daemon's pair, those of its clients, and the list of clients that it lets in.

They have nothing to do with the key that seals the gallery. A file holds a key as certificates of czmq and of
pyzmq's ``zmq.auth`` do, so that their tools may make and read them: ``NAME.key`` the public half, ``NAME.key_secret``
both. The daemon's folder (mode 0700) is::

    server.key_secret  server.key  allowed/NAME.key ...
"""

import os
import re
import stat
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from engines.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_KEY_CHARS = 40  # 32 bytes in Z85, ZeroMQ RFC 32
_FILE_BYTES = 4096  # more than any certificate has
_PUBLIC, _SECRET = ".key", ".key_secret"


class KeysError(UserError):
    """A key of the network cannot be used, made or taken away; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key in Z85, 40 characters each; ``secret`` is empty where only the public half is known."""

    public: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The list of clients.

    Attributes:
        names: of the clients, by public key.
        problems: a sentence for each file that is no client.
    """

    names: Mapping[str, str]
    problems: tuple[str, ...] = ()


def new_pair() -> Pair:
    """A pair that nobody else has."""
    public = b"-"
    while public.startswith(b"-"):  # a command line would take it for an option
        public, secret = zmq.curve_keypair()
    return Pair(public.decode(), secret.decode())


def server_pair(folder: Path) -> Pair:
    """The daemon's own pair, made when there is none yet.

    Raises:
        KeysError: it cannot be read or made, or others may read it.
    """
    secret = folder / f"server{_SECRET}"
    if not secret.exists():
        with suppress(FileExistsError):  # another thread or process was quicker
            _write(secret, new_pair())
    pair = read_secret(secret)
    public = folder / f"server{_PUBLIC}"
    if not public.exists():
        with suppress(FileExistsError):
            _write(public, Pair(pair.public))
    return pair


def create(folder: Path, name: str) -> tuple[Path, Path]:
    """Make the pair of a client, and say in which files: the public one, and the one to keep secret.

    Raises:
        KeysError: the name is none, or there is such a file already: no key is ever overwritten.
    """
    check_name(name)
    public, secret = folder / f"{name}{_PUBLIC}", folder / f"{name}{_SECRET}"
    pair = new_pair()
    try:
        _write(public, Pair(pair.public))
        _write(secret, pair)
    except FileExistsError as error:
        raise KeysError(
            f"{error.filename2} exists, and may be somebody's key; choose another name or folder"
        ) from error
    return public, secret


def allow(folder: Path, name: str, public: str) -> None:
    """Let the client with this key in from now on.

    Raises:
        KeysError: the name is none or another client's, or the key is let in under another name, so that revoking
            one of them would not keep it out.
    """
    check_name(name)
    _check_public(public, name)
    for other, called in allowed(folder).names.items():
        if other == public and called != name:
            raise KeysError(f"this key is {called}'s already; `cabinsense keys revoke {called}` first")
        if called == name and other != public:
            raise KeysError(f"{name} has another key; `cabinsense keys revoke {name}` first")
    with suppress(FileExistsError):
        _write(folder / "allowed" / f"{name}{_PUBLIC}", Pair(public))


def revoke(folder: Path, name: str) -> None:
    """Keep a client out from now on.

    Raises:
        KeysError: nobody of that name is let in, or the file cannot be removed.
    """
    path = folder / "allowed" / f"{name}{_PUBLIC}"
    try:
        check_name(name)
        path.unlink()
        _sync(path.parent)
    except FileNotFoundError as error:
        known = ", ".join(sorted(allowed(folder).names.values())) or "none"
        raise KeysError(f"no client is called {name}; those that are let in: {known}") from error
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}; run this as the daemon's user") from error


def allowed(folder: Path) -> Allowed:
    """The clients that are let in; a file that cannot be read lets nobody in."""
    names: dict[str, str] = {}
    problems = []
    for path in sorted((folder / "allowed").glob(f"*{_PUBLIC}")):
        client = _client(path)
        if isinstance(client, Pair):
            names.setdefault(client.public, path.stem)
        else:
            problems.append(client)
    return Allowed(names, tuple(problems))


def _client(path: Path) -> Pair | str:
    """The key of a client, or why there is none in a file."""
    try:
        check_name(path.stem)
        return read(path)
    except KeysError as error:
        return str(error)


def read(path: Path) -> Pair:
    """The key in a file; its secret half only where the file has it.

    Raises:
        KeysError: there is none in it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES).decode(errors="replace")
    except OSError as error:
        raise KeysError(
            f"{path}: {error.strerror}; name a file that `cabinsense keys new` has made"
        ) from error
    found = dict(re.findall(r'^\s*(public-key|secret-key)\s*=\s*"([^"]*)"\s*$', text, re.MULTILINE))
    pair = Pair(found.get("public-key", ""), found.get("secret-key", ""))
    _check_public(pair.public, str(path))
    if pair.secret and (
        not is_key(pair.secret) or zmq.curve_public(pair.secret.encode()).decode() != pair.public
    ):
        raise KeysError(f"{path}: its two halves are no pair; make another one with `cabinsense keys new`")
    return pair


def read_secret(path: Path) -> Pair:
    """The pair in a file that nobody else may read.

    Raises:
        KeysError: it holds no pair, or others may read it.
    """
    pair = read(path)
    if not pair.secret:
        raise KeysError(f"{path}: only the public half; name the file that ends in {_SECRET}")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeysError(f"{path}: others may read this secret; `chmod 600` it, or better make a new one")
    return pair


def is_key(text: str) -> bool:
    """Whether ``text`` may be a key."""
    try:
        return len(text) == _KEY_CHARS and len(z85.decode(text)) == 32
    except (KeyError, ValueError, struct.error):
        return False


def check_name(name: str) -> None:
    """Refuse what cannot name a file; raises KeysError."""
    if not _NAME.fullmatch(name):
        raise KeysError(
            f"{name!r} is no name for a key; take up to 32 letters, digits, dots, dashes and underscores"
        )


def _check_public(key: str, where: str) -> None:
    if not is_key(key):
        raise KeysError(f"{where}: no public key of {_KEY_CHARS} characters; `cabinsense keys new` makes one")


def _write(path: Path, pair: Pair) -> None:
    """Write a new file as a whole or not at all, for its owner alone.

    Raises:
        FileExistsError: it is there already.
        KeysError: it cannot be written.
    """
    lines = ["curve", f'    public-key = "{pair.public}"']
    if pair.secret:
        lines.append(f'    secret-key = "{pair.secret}"')
    try:
        _make(path.parent)
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # its mode is 0600
            file.write("\n".join(lines) + "\n")
            file.flush()
            _give_to_owner(Path(file.name))
            os.fsync(file.fileno())
            path.hardlink_to(file.name)  # unlike a rename, it never takes the place of another file
        _sync(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}; choose a folder that may be written to") from error


def _make(folder: Path) -> None:
    """Make a folder for its owner alone, and those above it likewise."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _give_to_owner(folder)


def _give_to_owner(path: Path) -> None:
    """Let what root makes belong to the folder's owner, who is the daemon's user."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    """See that what was made or removed in a folder stays so when the power is cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
